"""The names that only an index has: links to its children, and shortcuts into one of them.

- `manifests/`: all children, in order
- `platforms/`: children for a platform, by platform
- `artifacts/`: other children, by name
- `config.json`, `layers`, `files` and `rootfs` of the child for the selected platform

Rules that hold here:

- Pure.
- A child is a link to the directory of its digest. Build caches list blobs as if they were
  manifests; these are links to the blobs.
- A platform may occur more than once: later ones get a suffix. Of the children that match the
  selected platform the first is used (image-spec, image-index.md).
- A child that is attached to a sibling, such as an attestation, has no platform. It is in the
  sibling's `referrers`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from ocifs.errors import NotFound
from ocifs.filenames import mangle, to_bytes, unique
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
from ocifs.tree.node import Node
from ocifs.tree.static import StaticDirectory

SHORTCUTS = (b"config.json", b"layers", b"files")
IMAGE_SHORTCUTS = (b"rootfs",)
# The number of platforms that an error lists.
_NAMED = 20


def index_links(
    location: ManifestLocation, loaded: LoadedManifest, key: Hashable
) -> Iterable[tuple[bytes, Node]]:
    """The names and nodes of the links."""
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
    others = [
        child
        for child in manifest.manifests
        if is_artifact(child) and child not in platform_children
    ]
    if others:
        named = zip(_names(child_name(child) for child in others), others, strict=True)
        yield b"artifacts", _links((key, b"artifacts"), list(named), directory)
    # Blobs have neither a config nor layers that a shortcut could lead to.
    if blob_children(manifest):
        yield b"files", FilesDirectory(location, loaded, (key, b"files"))
        return
    child_path = _preferred_child(manifest, platform_children, names, location)
    if child_path:
        # A child of an index with a type can be an image as well (decision 0301).
        is_image = kind == "image-index" or (bool(platform_children) and _may_be_image(loaded))
        for shortcut in (*SHORTCUTS, *(IMAGE_SHORTCUTS if is_image else ())):
            yield shortcut, SymlinkNode((key, shortcut), child_path + b"/" + shortcut)


def _may_be_image(loaded: LoadedManifest) -> bool:
    return loaded.classification.kind == "artifact-index" or loaded.classification.row.is_image


def missing_shortcut_error(
    name: bytes, location: ManifestLocation, manifest: Manifest
) -> NotFound | None:
    """The error if a shortcut is missing since no child matches the platform; else None."""
    platform_children = _platform_children(manifest)
    if not platform_children or name not in (*SHORTCUTS, *IMAGE_SHORTCUTS):
        return None
    platforms = list(
        dict.fromkeys(child.platform.text for child in platform_children if child.platform)
    )
    listed = ", ".join(platforms[:_NAMED]) + ", …" * (len(platforms) > _NAMED)
    return NotFound(
        f"no child of the index is for {location.context.platform.text}",
        hint=f"choose with --platform: {listed}",
    )


def _platform_children(manifest: Manifest) -> list[Descriptor]:
    known = [child for child in manifest.manifests if child_role(child) == "platform"]
    # Children of an unknown type are offered if there are no others (image-index.md).
    return known or [child for child in manifest.manifests if child_role(child) == "unknown"]


def is_artifact(child: Descriptor) -> bool:
    """Whether a child has no platform and is not attached to another child."""
    return child_role(child) in ("artifact", "manifest", "unknown") and attached_to(child) is None


def _preferred_child(
    manifest: Manifest,
    platform_children: Sequence[Descriptor],
    names: Sequence[bytes],
    location: ManifestLocation,
) -> bytes:
    """The path of the child for the selected platform, or of the only child; empty if there is
    none.
    """
    chosen = first_match([child.platform for child in platform_children], location.context.platform)
    if chosen is not None:
        return b"platforms/" + names[chosen]
    # If platforms are listed and none matches, any other child would be a wrong choice.
    only = None if platform_children else main_child(manifest)
    return b"" if only is None else f"manifests/{only}".encode()


def _names(texts: Iterable[str]) -> list[bytes]:
    return unique([mangle(to_bytes(text)) for text in texts])


def _links(
    key: Hashable, children: list[tuple[bytes, Descriptor]], directory: bytes
) -> StaticDirectory:
    """A directory of links to children in `directory`, a path from the manifest's directory."""
    return StaticDirectory(
        key,
        (
            (name, SymlinkNode((key, name), b"../" + directory + b"/" + str(child.digest).encode()))
            for name, child in children
        ),
    )
