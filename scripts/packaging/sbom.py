"""A software bill of materials of the libraries in a directory, in CycloneDX 1.5 (JSON).

    python scripts/packaging/sbom.py VERSION SITE_PACKAGES LOCK

Rules that hold here:
- The bill is reproducible, so it has no time and no serial number.
- The hashes are those in the lock file, of all files of a version in the package index.
"""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import distributions
from pathlib import Path

from scripts.packaging.bundled import licence

OWN = "ocifs-mount"


def hashes_of(lock: str) -> dict[str, list[str]]:
    """The SHA-256 hashes of each library in a lock file, by `name==version`."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in lock.splitlines():
        if pinned := re.match(r"([\w.-]+==[\w.!+-]+)", line):
            name = pinned[1].lower()
            found[name] = []
        elif (hashed := re.match(r"\s+--hash=sha256:([0-9a-f]{64})", line)) and name:
            found[name].append(hashed[1])
    return found


def component(name: str, version: str, licences: str, hashes: list[str]) -> dict[str, object]:
    """The component of one library."""
    return {
        "type": "library",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{version}",
        "bom-ref": f"pkg:pypi/{name}@{version}",
        "licenses": [{"license": {"name": licences}}],
        "hashes": [{"alg": "SHA-256", "content": each} for each in hashes],
    }


def bill(version: str, place: str, lock: str) -> dict[str, object]:
    """The whole bill. Raises KeyError for a library that is not in the lock file."""
    hashes = hashes_of(lock)
    libraries = sorted(distributions(path=[place]), key=lambda each: each.metadata["Name"].lower())
    components = []
    for each in libraries:
        name = re.sub(r"[-_.]+", "-", each.metadata["Name"]).lower()
        if name != OWN:
            components.append(
                component(name, each.version, licence(each), hashes[f"{name}=={each.version}"])
            )
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "name": OWN,
                "version": version,
                "purl": f"pkg:pypi/{OWN}@{version}",
                "bom-ref": OWN,
            }
        },
        "components": components,
        "dependencies": [{"ref": OWN, "dependsOn": [each["bom-ref"] for each in components]}],
    }


if __name__ == "__main__":
    made = bill(sys.argv[1], sys.argv[2], Path(sys.argv[3]).read_text())
    print(json.dumps(made, indent=2))
