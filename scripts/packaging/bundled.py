"""List the versions and licences of the libraries in a directory, for a package's copyright file.

python scripts/packaging/bundled.py SITE_PACKAGES
"""

from __future__ import annotations

import sys
from importlib.metadata import Distribution, distributions


def licence(library: Distribution) -> str:
    """The licence in a library's metadata, which has two possible fields."""
    words = library.metadata.get("License-Expression") or library.metadata.get("License") or ""
    return " ".join(words.split()).replace("Apache 2.0", "Apache-2.0")


def main() -> int:
    for library in sorted(
        distributions(path=sys.argv[1:]), key=lambda each: each.metadata["Name"].lower()
    ):
        name = library.metadata["Name"]
        if name == "ocifs-mount":
            continue
        if not licence(library):
            print(f"bundled: no licence in the metadata of {name}", file=sys.stderr)
            return 1
        print(f" {name} {library.version}: {licence(library)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
