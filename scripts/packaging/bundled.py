"""Say of each library in a directory which version it is and under which licence, for a package's
copyright file.

python scripts/packaging/bundled.py SITE_PACKAGES
"""

from __future__ import annotations

import sys
from importlib.metadata import Distribution, distributions


def licence(library: Distribution) -> str:
    """What a library's metadata say; the older of them have it in another field."""
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
            print(f"bundled: {name} says no licence", file=sys.stderr)
            return 1
        print(f" {name} {library.version}: {licence(library)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
