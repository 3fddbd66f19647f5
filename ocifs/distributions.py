"""Detects other installed distributions with the import package `ocifs`: Oracle's has that name.

Called by `ocifs doctor` in a worker thread, and when a program first uses the Python API. Never by
the start of a command: it reads the metadata of all installed distributions.
"""

from __future__ import annotations

import re
from importlib.metadata import packages_distributions

NAME = "ocifs-mount"
REMEDY = "use separate environments: uninstall both from this one, then install one of them"


def other_distributions() -> list[str]:
    """The names of other distributions that install files of the package `ocifs`."""
    try:
        found = packages_distributions().get("ocifs", ())
    except (OSError, ValueError):  # unreadable or invalid metadata of any distribution
        return []
    # Names are compared in their normalised form (PyPA, "Names and normalization").
    names = {re.sub(r"[-_.]+", "-", name).lower() for name in found if name}
    return sorted(names - {NAME})


def clash() -> str:
    """A message about other distributions with the same package, or an empty text."""
    names = " and ".join(other_distributions())
    return f"{names} and {NAME} overwrite each other's files of the package ocifs" if names else ""
