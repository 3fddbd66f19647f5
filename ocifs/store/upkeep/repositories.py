"""The repositories that an item of the cache belongs to: their cached manifests refer to it.

Called from worker threads. Only the disk is read. A manifest that cannot be parsed refers to
nothing, and is not an error.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping

from ocifs.errors import OcifsError
from ocifs.oci.digest import Digest
from ocifs.oci.manifest import Manifest, parse_manifest
from ocifs.store.disk import CacheDirectory
from ocifs.store.upkeep.inventory import NAME, Item

_PREFIX = "manifest "


def provenance(directory: CacheDirectory, items: list[Item]) -> Mapping[Digest, frozenset[str]]:
    """The repositories (`host/name`) of each cached manifest and of each digest that it names."""
    repositories: defaultdict[Digest, set[str]] = defaultdict(set)
    for item in items:
        manifest = _manifest_of(item) if item.kind == NAME else None
        if manifest is not None:
            repository, digest, media_type = manifest
            for reached in _reachable(directory, digest, media_type):
                repositories[reached].add(repository)
    return {digest: frozenset(names) for digest, names in repositories.items()}


def _manifest_of(item: Item) -> tuple[str, Digest, str] | None:
    """The repository, digest and media type that a name records; None for tags and lists."""
    try:
        record = json.loads(item.paths[0].read_bytes())
        host, key, value = record["host"], record["key"], record["value"]
        if not str(key).startswith(_PREFIX):
            return None
        repository, _, digest = str(key).removeprefix(_PREFIX).rpartition("@")
        return f"{host}/{repository}", Digest.parse(digest), str(value)
    except (OSError, ValueError, RecursionError, TypeError, KeyError, OcifsError):
        return None


def _reachable(directory: CacheDirectory, digest: Digest, media_type: str) -> set[Digest]:
    reached = {digest}
    try:
        body = directory.whole(digest).read_bytes()
        manifest: Manifest = parse_manifest(body, digest, media_type, "")
    except (OSError, OcifsError):
        return reached
    descriptors = (manifest.config, *manifest.layers, *manifest.manifests)
    return reached | {descriptor.digest for descriptor in descriptors if descriptor is not None}
