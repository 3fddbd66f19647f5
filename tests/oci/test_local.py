"""The grammar of local sources (containers-transports(5))."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocifs.errors import InvalidReference
from ocifs.oci.local import LayoutSource, LocalTransport, is_local, parse_local
from ocifs.oci.reference import Reference, RegistrySource, hosts_of, parse_reference, parse_source

HEX = "a" * 64
DIGEST = f"sha256:{HEX}"
OCI, ARCHIVE, DOCKER, DIR, ANY = (
    LocalTransport.OCI,
    LocalTransport.OCI_ARCHIVE,
    LocalTransport.DOCKER_ARCHIVE,
    LocalTransport.DIR,
    LocalTransport.ANY,
)

READ = {
    "oci:dir": LayoutSource("dir"),
    "oci:/a/b:v1": LayoutSource("/a/b", OCI, "v1"),
    "oci:./dir:docker.io/library/alpine:3.20": LayoutSource(
        "./dir", OCI, "docker.io/library/alpine:3.20"
    ),
    "oci:./dir:@2": LayoutSource("./dir", OCI, "@2"),
    f"oci:./dir@{DIGEST}": LayoutSource("./dir", OCI, DIGEST),
    f"oci:./dir@sha512:{'0' * 128}": LayoutSource("./dir", OCI, f"sha512:{'0' * 128}"),
    f"oci:./dir:v1@{DIGEST}": LayoutSource("./dir", OCI, f"v1@{DIGEST}"),
    f"oci:./d@r:v1@{DIGEST}": LayoutSource("./d@r", OCI, f"v1@{DIGEST}"),
    "oci:./dir:a@b": LayoutSource("./dir", OCI, "a@b"),
    "oci-archive:a.tar:v1": LayoutSource("a.tar", ARCHIVE, "v1"),
    f"oci-archive:a.tar@{DIGEST}": LayoutSource("a.tar", ARCHIVE, DIGEST),
    "docker-archive:/x/a.tar": LayoutSource("/x/a.tar", DOCKER),
    "docker-archive:a.tar:localhost:5000/a/b:1": LayoutSource(
        "a.tar", DOCKER, "localhost:5000/a/b:1"
    ),
    "docker-archive:a.tar:@0": LayoutSource("a.tar", DOCKER, "@0"),
    "dir:/a/b": LayoutSource("/a/b", DIR),
    "dir:with:colon": LayoutSource("with:colon", DIR),
    "./image.tar": LayoutSource("./image.tar", ANY),
    "../image.tar.gz:v1": LayoutSource("../image.tar.gz", ANY, "v1"),
    "/srv/images/a:b:c": LayoutSource("/srv/images/a", ANY, "b:c"),
    f"./image.tar@{DIGEST}": LayoutSource("./image.tar", ANY, DIGEST),
    ".": LayoutSource(".", ANY),
    "..": LayoutSource("..", ANY),
}


@pytest.mark.parametrize("text", READ)
def test_a_local_source_is_read(text: str) -> None:
    assert parse_source(text) == READ[text]
    assert hosts_of(parse_source(text)) == ()


@pytest.mark.parametrize("source", READ.values(), ids=str)
def test_a_local_source_is_written_as_it_is_read(source: LayoutSource) -> None:
    assert parse_source(str(source)) == source


@pytest.mark.parametrize(
    "text",
    [
        "oci:",
        "oci-archive:",
        "docker-archive::x",
        "dir:",
        "oci:a:",
        f"oci:a:@{DIGEST}",
        "oci:a@sha256:abc",
        "./a:",
    ],
)
def test_a_wrong_local_source_is_refused_and_quoted(text: str) -> None:
    with pytest.raises(InvalidReference, match="invalid source") as raised:
        parse_source(text)
    assert text in str(raised.value)


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("docker-daemon:alpine:3.20", "docker save -o image.tar alpine:3.20"),
        ("containers-storage:alpine", "podman save --format oci-archive -o image.tar alpine"),
        (
            "containers-storage:[overlay@/x]a",
            "podman save --format oci-archive -o image.tar '[overlay@/x]a'",
        ),
        ("oci-layout:./dir:v1", "oci:./dir:v1"),
        ("oci-layout://dir:v1", "oci:dir:v1"),
        ("ocidir://a/b:v1", "oci:a/b:v1"),
        ("sif:a.sif", "skopeo copy sif:a.sif oci:./layout"),
        ("ostree:a@/repo", "skopeo copy ostree:a@/repo oci:./layout"),
        ("tarball:a.tar", "skopeo copy tarball:a.tar oci:./layout"),
    ],
)
def test_a_transport_of_other_tools_is_refused_with_the_command_that_helps(
    text: str, command: str
) -> None:
    with pytest.raises(InvalidReference, match="unsupported transport") as raised:
        parse_source(text)
    assert command in raised.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("docker://dir:5000/app:v1", Reference("dir:5000", "app", "v1")),
        ("oci://registry.example/app:v1", Reference("registry.example", "app", "v1")),
        ("dirs:5000", RegistrySource("docker.io", "library/dirs")),
        ("ocidir.example/app", RegistrySource("ocidir.example", "app")),
    ],
)
def test_a_registry_is_not_taken_for_a_local_source(text: str, expected: object) -> None:
    assert not is_local(text)
    source = parse_source(text)
    assert type(source) is type(expected) or isinstance(source, Reference)
    assert isinstance(source, Reference | RegistrySource)


@pytest.mark.parametrize("text", [*READ, "containers-storage:a", "docker-daemon:a"])
def test_a_local_source_is_never_a_reference_to_a_registry(text: str) -> None:
    with pytest.raises(InvalidReference):
        parse_reference(text)


@given(st.sampled_from(["oci:", "docker-archive:", "./", "/", "dir:"]), st.text(max_size=60))
def test_a_local_source_is_parsed_or_refused_and_never_remote(prefix: str, rest: str) -> None:
    text = prefix + rest
    if not is_local(text):
        assert text.startswith("oci://")
        return
    try:
        source = parse_local(text)
    except InvalidReference:
        return
    assert parse_source(str(source)) == source
