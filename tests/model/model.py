"""One function from what was pushed to the tree that must be seen, written from docs/semantics.md
and without any code of ocifs.

Rules that hold here: a tree is a mapping of names; what a user may read is bytes, a link is its
target; `summary.txt` is for people and only has to be there. Everything listed is listed here, and
nothing else may be.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

OCI = "application/vnd.oci.image."
MANIFEST, INDEX = f"{OCI}manifest.v1+json", f"{OCI}index.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"


class Anything:
    """The content of a file that has to be there, whatever it says."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, bytes) and bool(other)

    __hash__ = None  # type: ignore[assignment]  # equal to much that differs


@dataclass(frozen=True)
class To:
    """A symbolic link."""

    target: str


Tree: TypeAlias = dict[str, "Tree | To | bytes | Anything"]


@dataclass(frozen=True)
class Layer:
    """Content with a title."""

    title: str
    content: bytes
    media_type: str = "application/octet-stream"


@dataclass(frozen=True)
class Artifact:
    """An artifact as ORAS pushes them; `subject` is what it refers to."""

    type: str
    layers: tuple[Layer, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    config: bytes = b"{}"
    subject: Artifact | None = None

    @property
    def config_type(self) -> str:
        return EMPTY if self.config == b"{}" else "application/vnd.example.config+json"


@dataclass(frozen=True)
class Index:
    """An index of artifacts, each for a platform (os, architecture) or none."""

    children: tuple[tuple[Artifact, tuple[str, str] | None], ...]
    annotations: Mapping[str, str] = field(default_factory=dict)


Thing: TypeAlias = Artifact | Index
# Repositories, their tags, and what each tag is.
World: TypeAlias = Mapping[str, Mapping[str, Thing]]


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def describe(content: bytes, media_type: str, **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content), **more}


def manifest_of(thing: Thing) -> dict[str, object]:
    """The manifest that is pushed."""
    if isinstance(thing, Index):
        children = [
            describe(
                encode(child),
                MANIFEST,
                **({"platform": {"os": on[0], "architecture": on[1]}} if on else {}),
            )
            for child, on in thing.children
        ]
        return {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": children,
            "annotations": dict(thing.annotations),
        }
    layers = [
        describe(
            each.content,
            each.media_type,
            annotations={"org.opencontainers.image.title": each.title},
        )
        for each in thing.layers
    ]
    made: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": thing.type,
        "config": describe(thing.config, thing.config_type),
        "layers": layers,
        "annotations": dict(thing.annotations),
    }
    if thing.subject is not None:
        made["subject"] = describe(encode(thing.subject), MANIFEST)
    return made


def encode(thing: Thing) -> bytes:
    return json.dumps(manifest_of(thing)).encode()


def parts(thing: Thing) -> list[Artifact]:
    """The manifests that have to be pushed before a thing, and whatever they need."""
    if isinstance(thing, Index):
        return [each for child, _ in thing.children for each in (*parts(child), child)]
    return [] if thing.subject is None else [*parts(thing.subject), thing.subject]


def registry_tree(world: World) -> Tree:
    """What is listed from the root of a registry, without following a link."""
    root: Tree = {}
    for name, tags in world.items():
        here = root
        for component in name.split("/"):
            here = _below(here, component)
        here.update(repository_tree(tags))
    return root


def repository_tree(tags: Iterable[str]) -> Tree:
    """What a repository has of its own."""
    links: Tree = {tag: To(f"../_manifests/{tag}") for tag in tags}
    return {"_tags": links, "_manifests": {}, "_blobs": {}}


def manifest_tree(thing: Thing, referrers: Sequence[Artifact] = ()) -> Tree:
    """What the directory of a manifest has. `referrers`: what refers to it."""
    body = encode(thing)
    tree: Tree = {
        "manifest.json": body,
        "digest": _line(digest_of(body)),
        "media-type": _line(INDEX if isinstance(thing, Index) else MANIFEST),
        "size": _line(str(len(body))),
        "summary.txt": Anything(),
        "annotations": _annotations(thing.annotations),
        "referrers": _referrers(referrers),
    }
    tree.update(_of_index(thing) if isinstance(thing, Index) else _of_artifact(thing))
    return tree


def _of_artifact(thing: Artifact) -> Tree:
    files: Tree = {}
    for layer in thing.layers:
        *directories, name = layer.title.split("/")
        here = files
        for directory in directories:
            here = _below(here, directory)
        here[name] = layer.content
    if not thing.layers and thing.config_type != EMPTY:
        files["config.json"] = thing.config  # what has no layers has its content in its config
    tree: Tree = {
        "kind": b"artifact\n",
        "artifact-type": _line(thing.type),
        "config.json": thing.config,
        "config.media-type": _line(thing.config_type),
        "config.digest": _line(digest_of(thing.config)),
        "layers": {str(number): _layer(layer) for number, layer in enumerate(thing.layers)},
        "files": files,
    }
    if thing.subject is not None:
        tree["subject"] = To(f"../{digest_of(encode(thing.subject))}")
    return tree


def _layer(layer: Layer) -> Tree:
    return {
        "blob": layer.content,
        "digest": _line(digest_of(layer.content)),
        "media-type": _line(layer.media_type),
        "size": _line(str(len(layer.content))),
        "annotations": _annotations({"org.opencontainers.image.title": layer.title}),
    }


def _of_index(thing: Index) -> Tree:
    """Children are found by their platform, or else by their digest; the one for linux/amd64, or
    the only one, stands for the index.
    """
    manifests: Tree = {}
    platforms: Tree = {}
    artifacts: Tree = {}
    for number, (child, on) in enumerate(thing.children):
        target = To(f"../../{digest_of(encode(child))}")
        manifests[str(number)] = target
        if on is not None:
            platforms["-".join(on)] = target
        else:
            name, times = digest_of(encode(child)).removeprefix("sha256:")[:12], 1
            while (f"{name}~{times}" if times > 1 else name) in artifacts:
                times += 1
            artifacts[f"{name}~{times}" if times > 1 else name] = target
    tree: Tree = {"kind": b"image-index\n", "artifact-type": _line(INDEX), "manifests": manifests}
    if platforms:
        tree["platforms"] = platforms
    if artifacts:
        tree["artifacts"] = artifacts
    if "linux-amd64" in platforms:
        way = "platforms/linux-amd64"
    elif not platforms and len(artifacts) == 1:
        way = "manifests/0"
    else:
        return tree
    return tree | {
        name: To(f"{way}/{name}") for name in ("config.json", "layers", "files", "rootfs")
    }


def _referrers(found: Sequence[Artifact]) -> Tree:
    links: Tree = {}
    for each in found:
        digest = digest_of(encode(each))
        # A short form of the type: application/vnd.example.other.v2+json is example.other.
        word = each.type.removeprefix("application/vnd.").partition(".v2+")[0]
        links[f"{word}-{digest.removeprefix('sha256:')[:12]}"] = To(f"../../../{digest}")
    return {"artifact": links} if links else {}


def _annotations(values: Mapping[str, str]) -> Tree:
    return {key: value.encode() for key, value in values.items()}


def _below(tree: Tree, name: str) -> Tree:
    found = tree.setdefault(name, {})
    assert isinstance(found, dict)
    return found


def _line(text: str) -> bytes:
    return f"{text}\n".encode()
