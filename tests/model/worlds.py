"""Worlds that somebody may have pushed, and the three ways to get them in front of ocifs: memory, a
layout, a real registry.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from hypothesis import strategies as st

from tests.model.model import (
    Artifact,
    Index,
    Layer,
    Thing,
    World,
    describe,
    digest_of,
    encode,
    manifest_of,
    parts,
)
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry
from tests.tree.memory import MemoryRegistry

REPOSITORIES = ("app", "app/api", "app/api/v2", "tools", "team-x/thing_y", "team-x")
TAGS = ("v1", "latest", "1.0.0-rc.1", "_odd", "V2")
TITLES = ("README.md", "model.bin", "a/b.txt", "a/c/d.txt", "data.json")
PLATFORMS = (("linux", "amd64"), ("linux", "arm64"), ("windows", "amd64"))
TYPES = ("application/vnd.example.thing", "application/vnd.example.other.v2+json")

_contents = st.binary(max_size=40)
_annotations = st.dictionaries(
    st.sampled_from(("org.example.note", "com.example.other", "x")),
    st.text(max_size=20),
    max_size=3,
)


@st.composite
def artifacts(draw: st.DrawFn, refers: bool = True) -> Artifact:
    titles = draw(st.lists(st.sampled_from(TITLES), unique=True, max_size=3))
    return Artifact(
        type=draw(st.sampled_from(TYPES)),
        layers=tuple(Layer(title, draw(_contents)) for title in titles),
        annotations=draw(_annotations),
        config=draw(st.sampled_from((b"{}", b'{"a": 1}'))),
        subject=draw(st.none() | artifacts(refers=False)) if refers else None,
    )


@st.composite
def indices(draw: st.DrawFn) -> Index:
    platforms = draw(st.lists(st.sampled_from(PLATFORMS), unique=True, max_size=3))
    children: list[tuple[Artifact, tuple[str, str] | None]] = [
        (draw(artifacts(refers=False)), on) for on in platforms
    ]
    children += [(draw(artifacts(refers=False)), None) for _ in range(draw(st.integers(0, 2)))]
    return Index(tuple(children), draw(_annotations))


things = artifacts() | indices()
worlds = st.dictionaries(
    st.sampled_from(REPOSITORIES),
    st.dictionaries(st.sampled_from(TAGS), things, min_size=1, max_size=3),
    max_size=4,
)


def with_parts(world: World) -> Iterator[tuple[str, str, Thing]]:
    """What has to be pushed, in order: repository, tag (or none) and thing."""
    for repository, tags in world.items():
        for tag, thing in tags.items():
            for part in parts(thing):
                yield repository, "", part
            yield repository, tag, thing


def blobs_of(thing: Thing) -> list[bytes]:
    return (
        []
        if isinstance(thing, Index)
        else [thing.config, *(layer.content for layer in thing.layers)]
    )


def to_memory(world: World) -> MemoryRegistry:
    made = MemoryRegistry()
    for repository, tag, thing in with_parts(world):
        for blob in blobs_of(thing):
            made.put_blob(blob)
        made.put_manifest(repository, tag, manifest_of(thing), str(manifest_of(thing)["mediaType"]))
    return made


def to_registry(world: World, registry: Registry) -> None:
    for repository, tag, thing in with_parts(world):
        for blob in blobs_of(thing):
            push_blob(registry.url, repository, blob)
        push_manifest(registry.url, repository, manifest_of(thing), tag)


def to_layout(tags: dict[str, Thing], directory: Path) -> None:
    place = directory / "blobs" / "sha256"
    place.mkdir(parents=True)
    listed = []
    for _, tag, thing in with_parts({"": tags}):
        for blob in (*blobs_of(thing), encode(thing)):
            (place / digest_of(blob).removeprefix("sha256:")).write_bytes(blob)
        if tag:
            kind = str(manifest_of(thing)["mediaType"])
            listed.append(
                describe(
                    encode(thing), kind, annotations={"org.opencontainers.image.ref.name": tag}
                )
            )
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": listed}))
