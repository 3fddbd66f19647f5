"""What an index's directory has of its own: its children in order, by platform, and one of them to use without thinking of platforms.

Rules that hold here: pure; children are links to the directories of their digests, or to the blobs
that caches list as if they were manifests; the platform is no key, so a name that repeats
gets a suffix; the first child that satisfies a platform is the one that is meant (image-spec, image-index.md).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from ocifs.oci.artifact import child_role, classify
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.manifest import Manifest
from ocifs.oci.platform import first_match
from ocifs.tree.bound import Whereabouts
from ocifs.tree.names import mangle, to_bytes, unique
from ocifs.tree.node import Link, Node
from ocifs.tree.static import StaticDirectory

SHORTCUTS = (b"config.json", b"layers", b"files")
OF_IMAGES = (b"rootfs",)


def index_links(where: Whereabouts, manifest: Manifest, key: Hashable) -> Iterable[tuple[bytes, Node]]:
    """`manifests`, `platforms` and the shortcuts into the child for the platform that is wanted, as names and nodes."""
    children = [(str(n).encode(), child) for n, child in enumerate(manifest.manifests)]
    yield b"manifests", _links((key, b"manifests"), children, where)
    machines = [child for child in manifest.manifests if child_role(child) == "platform" and child.platform]
    names = unique([mangle(to_bytes(str(child.platform))) for child in machines])
    if machines:
        yield b"platforms", _links((key, b"platforms"), list(zip(names, machines, strict=True)), where)
    chosen = first_match([child.platform for child in machines], where.context.platform)
    if chosen is not None:
        for shortcut in (*SHORTCUTS, *(OF_IMAGES if classify(manifest).kind == "image-index" else ())):
            yield shortcut, Link((key, shortcut), b"platforms/" + names[chosen] + b"/" + shortcut)


def _links(key: Hashable, children: list[tuple[bytes, Descriptor]], where: Whereabouts) -> StaticDirectory:
    """A directory of links to children; it lies one level below the manifest's own."""
    return StaticDirectory(
        key,
        ((name, Link((key, name), b"../" + _way(child, where))) for name, child in children),
    )


def _way(child: Descriptor, where: Whereabouts) -> bytes:
    room = where.blobs if child_role(child) == "blob" else where.siblings
    return room + b"/" + str(child.digest).encode()
