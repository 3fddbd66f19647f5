"""What an index's directory has of its own: its children in order, by platform or by name, and one
to use without thinking of platforms.

Rules that hold here: pure; children are links to the directories of their digests, or to the blobs
that caches list as if they were manifests; the platform is no key, so a name that repeats gets a
suffix; the first child that satisfies a platform is the one that is meant (image-spec,
image-index.md); what is attached to a sibling is no platform: it is in the sibling's `referrers`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from ocifs.errors import NotFound
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.kinds.children import (
    attached_to,
    blob_children,
    child_name,
    child_role,
    main_child,
    platform_name,
)
from ocifs.oci.manifest import Manifest
from ocifs.oci.platform import first_match
from ocifs.tree.base import SymlinkNode
from ocifs.tree.manifest.files import FilesDirectory
from ocifs.tree.manifest.load import LoadedManifest, ManifestLocation
from ocifs.tree.names import mangle, to_bytes, unique
from ocifs.tree.node import Node
from ocifs.tree.static import StaticDirectory

SHORTCUTS = (b"config.json", b"layers", b"files")
IMAGE_SHORTCUTS = (b"rootfs",)
_NAMED = 20  # platforms that a message names


def index_links(
    location: ManifestLocation, loaded: LoadedManifest, key: Hashable
) -> Iterable[tuple[bytes, Node]]:
    """`manifests`, `platforms`, `artifacts` and the shortcuts into the child that is wanted, as
    names and nodes.
    """
    manifest, kind = loaded.manifest, loaded.classification.kind
    children = [(str(n).encode(), child) for n, child in enumerate(manifest.manifests)]
    directory = location.blobs if blob_children(manifest) else location.siblings
    yield b"manifests", _links((key, b"manifests"), children, directory)
    platform_children = _platform_children(manifest)
    names = _names(platform_name(manifest, child) for child in platform_children)
    if platform_children:
        yield (
            b"platforms",
            _links(
                (key, b"platforms"), list(zip(names, platform_children, strict=True)), directory
            ),
        )
    others = [child for child in manifest.manifests if is_artifact(child)]
    if others:
        named = zip(_names(child_name(child) for child in others), others, strict=True)
        yield b"artifacts", _links((key, b"artifacts"), list(named), directory)
    if blob_children(manifest):
        yield b"files", FilesDirectory(location, loaded, (key, b"files"))
        return
    child_path = _preferred_child(manifest, platform_children, names, location)
    if child_path:
        for shortcut in (*SHORTCUTS, *(IMAGE_SHORTCUTS if kind == "image-index" else ())):
            yield shortcut, SymlinkNode((key, shortcut), child_path + b"/" + shortcut)


def missing_shortcut_error(
    name: bytes, location: ManifestLocation, manifest: Manifest
) -> NotFound | None:
    """Why an index whose children are for platforms has no such shortcut; None for what none has."""
    platform_children = _platform_children(manifest)
    if not platform_children or name not in (*SHORTCUTS, *IMAGE_SHORTCUTS):
        return None
    there = list(
        dict.fromkeys(child.platform.text for child in platform_children if child.platform)
    )
    listed = ", ".join(there[:_NAMED]) + ", …" * (len(there) > _NAMED)
    return NotFound(
        f"the index has nothing for {location.context.platform.text}",
        hint=f"choose with --platform: there are {listed}",
    )


def _platform_children(manifest: Manifest) -> list[Descriptor]:
    return [
        child for child in manifest.manifests if child_role(child) == "platform" and child.platform
    ]


def is_artifact(child: Descriptor) -> bool:
    """Whether a child is for no platform and about none of the others."""
    return child_role(child) in ("artifact", "manifest") and attached_to(child) is None


def _preferred_child(
    manifest: Manifest,
    platform_children: Sequence[Descriptor],
    names: Sequence[bytes],
    location: ManifestLocation,
) -> bytes:
    """The way to the child that stands for the whole: that of the platform, or the only one; empty
    where none does.
    """
    chosen = first_match([child.platform for child in platform_children], location.context.platform)
    if chosen is not None:
        return b"platforms/" + names[chosen]
    only = None if platform_children else main_child(manifest)
    return b"" if only is None else f"manifests/{only}".encode()


def _names(texts: Iterable[str]) -> list[bytes]:
    return unique([mangle(to_bytes(text)) for text in texts])


def _links(
    key: Hashable, children: list[tuple[bytes, Descriptor]], directory: bytes
) -> StaticDirectory:
    """A directory of links to children in another one; it lies one level below the manifest's own."""
    return StaticDirectory(
        key,
        (
            (name, SymlinkNode((key, name), b"../" + directory + b"/" + str(child.digest).encode()))
            for name, child in children
        ),
    )
