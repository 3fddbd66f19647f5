"""The composition root: the only module that joins what users see with where bytes come from.

Rules that hold here: no decision of its own, only assembly; whatever lives as long as a mount belongs to the one nursery opened here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from ocifs.content import Origin
from ocifs.layers.workshop import Workshop
from ocifs.layout.layout import Layout
from ocifs.oci.digest import Digest
from ocifs.oci.reference import LayoutSource, Reference, RegistrySource, Source
from ocifs.settings import Settings
from ocifs.tree.context import Context
from ocifs.tree.node import Directory
from ocifs.tree.registry import RepositoryDirectory
from ocifs.tree.single import open_single


def host_of(source: Source) -> str:
    """The host that a source is on; empty for a layout."""
    return "" if isinstance(source, LayoutSource) else source.host
