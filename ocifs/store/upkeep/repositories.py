"""Where what lies in a cache came from: the repositories whose manifests, kept here, refer to a
digest.

Rules that hold here: only what is on disk is asked; a manifest that cannot be understood says
nothing, and is nobody's error.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping

from ocifs.errors import OcifsError
from ocifs.oci.digest import Digest
from ocifs.oci.manifest import Manifest, parse_manifest
from ocifs.store.disk import Disk
from ocifs.store.upkeep.inventory import NAME, Item

_PREFIX = "manifest "


def provenance(disk: Disk, items: list[Item]) -> Mapping[Digest, frozenset[str]]:
    """For each digest that some kept manifest is or names, the repositories, as `host/name`, that
    are known to have it.
    """
    found: defaultdict[Digest, set[str]] = defaultdict(set)
    for item in items:
        known = _name(item) if item.kind == NAME else None
        if known is not None:
            repository, digest, media_type = known
            for each in _reach(disk, digest, media_type):
                found[each].add(repository)
    return {digest: frozenset(repositories) for digest, repositories in found.items()}


def _name(item: Item) -> tuple[str, Digest, str] | None:
    """The repository, digest and media type of a manifest that a name is about; None for tags and
    lists.
    """
    try:
        kept = json.loads(item.paths[0].read_bytes())
        host, key, value = kept["host"], kept["key"], kept["value"]
        if not str(key).startswith(_PREFIX):
            return None
        repository, _, digest = str(key).removeprefix(_PREFIX).rpartition("@")
        return f"{host}/{repository}", Digest.parse(digest), str(value)
    except (OSError, ValueError, RecursionError, TypeError, KeyError, OcifsError):
        return None


def _reach(disk: Disk, digest: Digest, media_type: str) -> set[Digest]:
    reached = {digest}
    try:
        body = disk.whole(digest).read_bytes()
        manifest: Manifest = parse_manifest(body, digest, media_type, "")
    except (OSError, OcifsError):
        return reached
    parts = (manifest.config, *manifest.layers, *manifest.manifests)
    return reached | {each.digest for each in parts if each is not None}
