"""The grammar of references and sources, and its error messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocifs.errors import InvalidReference
from ocifs.oci.digest import Digest
from ocifs.oci.local import LayoutSource, LocalTransport
from ocifs.oci.reference import Reference, RegistrySource, parse_reference, parse_source

HEX = "a" * 64
DIGEST = Digest("sha256", HEX)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alpine", Reference("docker.io", "library/alpine", "latest")),
        ("alpine:3.19", Reference("docker.io", "library/alpine", "3.19")),
        ("bitnami/redis", Reference("docker.io", "bitnami/redis", "latest")),
        ("docker.io/alpine", Reference("docker.io", "library/alpine", "latest")),
        ("index.docker.io/library/alpine", Reference("docker.io", "library/alpine", "latest")),
        ("localhost/app", Reference("localhost", "app", "latest")),
        ("localhost:5000/a/b/c:v1", Reference("localhost:5000", "a/b/c", "v1")),
        ("registry:5000/app", Reference("registry:5000", "app", "latest")),
        ("[::1]:5000/app:v1", Reference("[::1]:5000", "app", "v1")),
        (f"reg.example.com/app@sha256:{HEX}", Reference("reg.example.com", "app", "", DIGEST)),
        (f"reg.example.com/app:v1@sha256:{HEX}", Reference("reg.example.com", "app", "v1", DIGEST)),
        ("docker://reg.example.com/app:v1", Reference("reg.example.com", "app", "v1")),
        ("reg.example.com/a__b/c-d.e:_x", Reference("reg.example.com", "a__b/c-d.e", "_x")),
    ],
)
def test_a_reference_follows_the_grammar_of_the_field(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("reg.example.com", RegistrySource("reg.example.com")),
        ("127.0.0.1:5000", RegistrySource("127.0.0.1:5000")),
        ("localhost", RegistrySource("localhost")),
        ("registry:5000/", RegistrySource("registry:5000")),
        ("[::1]:5000", RegistrySource("[::1]:5000")),
        ("reg.example.com/team", RegistrySource("reg.example.com", "team")),
        ("docker.io/bitnami", RegistrySource("docker.io", "bitnami")),
        ("alpine", RegistrySource("docker.io", "library/alpine")),
        ("alpine:3.19", Reference("docker.io", "library/alpine", "3.19")),
        ("reg.example.com/team/app:v1", Reference("reg.example.com", "team/app", "v1")),
        ("oci:./dir", LayoutSource("./dir")),
        ("oci:./dir:v1", LayoutSource("./dir", ref="v1")),
        ("oci-archive:/a.tar", LayoutSource("/a.tar", LocalTransport.OCI_ARCHIVE)),
    ],
)
def test_a_source_is_a_registry_a_part_of_one_a_manifest_or_a_layout(
    text: str, expected: object
) -> None:
    assert parse_source(text) == expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("reg.example.com/Team/app", "Team"),
        ("reg.example.com/app:.bad", ".bad"),
        ("reg.example.com/app@sha256:abc", "sha256:abc"),
        ("reg.example.com/app@md5", "md5"),
        ("ftp://reg.example.com/app", "ftp://"),
        ("reg.example.com//app", "//"),
        ("reg_x.example.com/app", "reg_x.example.com"),
        ("reg.example.com:99999/app", "reg.example.com:99999"),
        ("oci:dir:", ":"),
    ],
)
def test_a_refusal_points_at_the_part_that_is_wrong(text: str, part: str) -> None:
    with pytest.raises(InvalidReference) as refused:
        parse_source(text)
    _, shown, carets = str(refused.value).splitlines()
    start = carets.index("^")
    assert shown[start : start + carets.count("^")] == part


@pytest.mark.parametrize("text", ["", "reg.example.com/", "localhost:5000"])
def test_a_reference_needs_a_repository(text: str) -> None:
    with pytest.raises(InvalidReference):
        parse_reference(text)


components = st.from_regex(r"[a-z0-9]{1,6}((\.|_|__|-{1,2})[a-z0-9]{1,4}){0,2}", fullmatch=True)
references = st.builds(
    Reference,
    st.sampled_from(["reg.example.com", "localhost:5000", "[::1]:5000"]),
    st.lists(components, min_size=1, max_size=4).map("/".join),
    st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}", fullmatch=True),
    st.one_of(st.none(), st.just(DIGEST)),
)


@given(references)
def test_a_reference_survives_being_written_and_read(reference: Reference) -> None:
    assert parse_reference(str(reference)) == reference


@given(st.text(max_size=80))
def test_any_text_is_a_source_or_an_error_of_ours(text: str) -> None:
    try:
        parse_source(text)
    except InvalidReference:
        pass
