"""The entry points: `ocifs` (also as `python -m ocifs`) and `mount.ocifs`.

Rules that hold here: only the standard library is imported before the current directory is removed
from the search paths.
"""

import sys

import ocifs
from ocifs import startup
from ocifs.programs import exclude_current_directory


def main() -> None:
    """The `ocifs` command."""
    exclude_current_directory()
    _check_package()
    startup.prepare()
    from ocifs.cli.main import main as run

    try:
        run()
    except SystemExit as end:
        startup.leave(end.code)


def mount_helper() -> None:
    """The `mount.ocifs` command."""
    exclude_current_directory()
    _check_package()
    from ocifs.cli.mount_helper import main as run

    run()


def _check_package() -> None:
    """Exit if another distribution has replaced `ocifs/__init__.py`: Oracle's has that name."""
    if "_DISTRIBUTION" not in vars(ocifs):
        from ocifs.distributions import REMEDY

        sys.exit(f"ocifs: another distribution has replaced files of ocifs-mount; {REMEDY}")


if __name__ == "__main__":
    main()
