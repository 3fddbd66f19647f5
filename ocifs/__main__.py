"""The entry points: `ocifs` (also as `python -m ocifs`) and `mount.ocifs`.

Rules that hold here: only the standard library is imported before the current directory is removed
from the search paths.
"""

from ocifs import startup
from ocifs.programs import exclude_current_directory


def main() -> None:
    """The `ocifs` command."""
    exclude_current_directory()
    startup.prepare()
    from ocifs.cli.main import main as run

    try:
        run()
    except SystemExit as end:
        startup.leave(end.code)


def mount_helper() -> None:
    """The `mount.ocifs` command."""
    exclude_current_directory()
    from ocifs.cli.mount_helper import main as run

    run()


if __name__ == "__main__":
    main()
