"""Write the files of `share/` that packages contain: manual pages, completions, the systemd unit.

    python -m scripts.make_share DIRECTORY [--version VERSION]

Rules that hold here:
- This runs while a wheel is built (scripts/packaging/hatch_build.py), without pyfuse3. The modules
  of the commands do not import it.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from ocifs import __version__
from ocifs.cli.completion import script
from scripts import make_man

UNIT = Path(__file__).parent / "packaging/systemd/user/ocifs@.service"
COMPLETIONS = {
    "bash": "bash-completion/completions/ocifs",
    "fish": "fish/vendor_completions.d/ocifs.fish",
    "zsh": "zsh/site-functions/_ocifs",
}


def write(directory: Path, version: str) -> None:
    """Write all files below a directory, with the version in the manual pages."""
    make_man.write(directory / "man", version)
    for shell, name in COMPLETIONS.items():
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(script(shell))
    unit = directory / "systemd/user" / UNIT.name
    unit.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(UNIT, unit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--version", default=None, help="version in the pages")
    options = parser.parse_args()
    write(options.directory, options.version or __version__)


if __name__ == "__main__":
    main()
