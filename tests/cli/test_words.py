"""A source and a path as one word: the same output as SOURCE PATH, for every command."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocifs.oci.joined import split_joined
from ocifs.oci.reference import parse_source
from tests.support.image import make_layout
from tests.support.mount import run_ocifs
from tests.support.pushed import push_image, tar_of
from tests.support.registry import Registry

FILES = {"etc/app.conf": b"port = 1\n", "etc/other": b"other\n", "opt/x": b"x\n"}
DIGEST = "sha256:" + "a" * 64

WORDS = [
    ("h.io/a/b:1/rootfs/etc", "h.io/a/b:1", "rootfs/etc"),
    ("h.io/a/_tags", "h.io/a", "_tags"),
    ("h.io/a/_manifests/1/kind", "h.io/a", "_manifests/1/kind"),
    (f"h.io:5000/a@{DIGEST}/digest", f"h.io:5000/a@{DIGEST}", "digest"),
    (f"h.io/a:1@{DIGEST}/digest", f"h.io/a:1@{DIGEST}", "digest"),
    ("h.io/a:1/rootfs/x:y/z@w", "h.io/a:1", "rootfs/x:y/z@w"),
    ("h.io/a:1/", "h.io/a:1", ""),
    ("h.io/a/", "h.io/a/", ""),
    ("h.io/", "h.io/", ""),
    ("h.io", "h.io", ""),
    ("h.io/_tags", "h.io", "_tags"),
    ("[::1]:5000/a:1/kind", "[::1]:5000/a:1", "kind"),
    ("localhost/a:1/kind", "localhost/a:1", "kind"),
    ("https://h.io:5000/a:1/kind", "https://h.io:5000/a:1", "kind"),
    ("docker://h.io/a:1/kind", "docker://h.io/a:1", "kind"),
    ("OCI://H.io/a:1/kind", "OCI://H.io/a:1", "kind"),
    # Docker Hub, without a host. A number after a colon is a port if a slash follows.
    ("alpine:3.19/rootfs", "alpine:3.19", "rootfs"),
    ("bitnami/redis:7/rootfs", "bitnami/redis:7", "rootfs"),
    ("alpine:5000/rootfs", "alpine:5000/rootfs", ""),
]


@pytest.mark.parametrize(("word", "source", "path"), WORDS)
def test_a_word_is_split_into_source_and_path(word: str, source: str, path: str) -> None:
    assert split_joined(word) == (source, path)


names = st.from_regex(r"[a-z0-9]{1,5}(?:[._-][a-z0-9]{1,3})?", fullmatch=True)
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,8}", fullmatch=True)
hosts = st.sampled_from(["h.io", "h.io:5000", "localhost", "[::1]:80", "127.0.0.1:5000"])


@given(hosts, st.lists(names, min_size=1, max_size=4), tags, st.text(max_size=20))
def test_a_source_with_a_tag_is_split_from_any_path(
    host: str, parts: list[str], tag: str, path: str
) -> None:
    source = f"{host}/{'/'.join(parts)}:{tag}"
    assert split_joined(source) == (source, "")
    assert split_joined(f"{source}/{path}") == (source, path.lstrip("/"))


@given(st.text(max_size=40))
def test_nothing_is_lost_or_added_by_splitting(word: str) -> None:
    source, path = split_joined(word)
    assert word.startswith(source) and word.endswith(path)
    assert not word[len(source) : len(word) - len(path)].strip("/")


@pytest.mark.parametrize("host", ["GHCR.io", "ghcr.IO", "https://GHCR.io", "Docker://ghcr.io"])
def test_hosts_and_schemes_have_no_case(host: str) -> None:
    assert str(parse_source(f"{host}/a/b:V1")) == "ghcr.io/a/b:V1"


@pytest.fixture(scope="module")
def image(registry: Registry) -> str:
    push_image(registry.url, "words/app:1.0", FILES)
    return f"{registry.host}/words/app"


def output(*words: str, cache: Path) -> str:
    return run_ocifs(*words, cache=cache).stdout.decode()


@pytest.mark.servers
def test_commands_take_a_source_and_a_path_as_one_word(image: str, cache: Path) -> None:
    assert output("ls", f"{image}/_tags", cache=cache) == "1.0\n"
    assert output("ls", f"{image}:1.0/rootfs/etc/", cache=cache) == "app.conf\nother\n"
    assert output("ls", f"{image}:1.0/rootfs", "etc", cache=cache) == "app.conf\nother\n"
    assert output("cat", f"{image}:1.0/rootfs/etc/app.conf", cache=cache) == "port = 1\n"
    digest = output("cat", f"{image}:1.0/digest", cache=cache).strip()
    assert output("cat", f"{image}@{digest}/rootfs/opt/x", cache=cache) == "x\n"
    assert output("cat", f"{image}/_tags/1.0/rootfs/opt/x", cache=cache) == "x\n"
    shown = output("tree", f"{image}:1.0/rootfs/etc", cache=cache).splitlines()
    assert shown == [f"{image}:1.0/rootfs/etc", "├── app.conf", "└── other"]
    whole = output("inspect", f"{image}:1.0", cache=cache)
    assert output("inspect", f"{image}/_tags/1.0", cache=cache) == whole
    run_ocifs("prefetch", f"{image}:1.0/rootfs/etc", "app.conf", "other", cache=cache)
    target = cache / "exported"
    exported = output("export", f"{image}/_tags/1.0", f"oci:{target}:x", cache=cache)
    assert exported.strip() == digest


@pytest.mark.servers
def test_cat_takes_several_paths(image: str, registry: Registry, cache: Path) -> None:
    both = "port = 1\nother\n"
    named = ("rootfs/etc/app.conf", "/rootfs/etc/other")
    assert output("cat", f"{image}:1.0", *named, cache=cache) == both
    assert output("cat", f"{image}:1.0/rootfs/etc", "app.conf", "other", cache=cache) == both
    words = [f"{image}:1.0{name if name[0] == '/' else '/' + name}" for name in named]
    assert output("cat", *words, cache=cache) == both
    paths = [f"{image}:1.0/{name}" for name in named]
    assert output("cat", "--any", *paths, cache=cache) == both
    missing = run_ocifs("cat", words[0], f"{image}:1.0/nothing", cache=cache, check=False)
    assert (missing.returncode, missing.stdout) == (1, b"port = 1\n")
    assert b"no 'nothing'" in missing.stderr


@pytest.mark.servers
@pytest.mark.parametrize("scheme", ["http://", "HTTP://", "docker://", "oci://"])
def test_schemes_of_other_tools_are_understood(scheme: str, image: str, cache: Path) -> None:
    assert output("ls", f"{scheme}{image}/_tags", cache=cache) == "1.0\n"
    assert output("ls", f"{scheme}{image}/", "_tags", cache=cache) == "1.0\n"


@pytest.mark.servers
def test_the_hint_for_a_file_of_the_image_contains_rootfs(image: str, cache: Path) -> None:
    wrong = run_ocifs("cat", f"{image}:1.0", "etc/app.conf", cache=cache, check=False)
    assert wrong.returncode == 1
    assert b"did you mean rootfs/etc/app.conf?" in wrong.stderr
    wrong = run_ocifs("cat", f"{image}/_tags/1.0/etc/app.conf", cache=cache, check=False)
    assert b"did you mean _tags/1.0/rootfs/etc/app.conf?" in wrong.stderr
    wrong = run_ocifs("cat", f"{image}:1.0/rootfs/etc/app.cnf", cache=cache, check=False)
    assert b"did you mean rootfs/etc/app.conf?" in wrong.stderr


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layout with two names, an archive of it, and a directory of skopeo."""
    place = tmp_path_factory.mktemp("local")
    layout = make_layout(place / "layout", [tar_of(FILES)], tag="team/app:1.0")
    with tarfile.open(place / "image.tar", "w") as tar:
        for path in sorted(layout.iterdir()):
            tar.add(path, path.name)
    return place


LOCAL = [
    "{place}/layout/rootfs/etc/app.conf",
    "oci:{place}/layout/rootfs/etc/app.conf",
    "oci:{place}/layout:team/app:1.0/rootfs/etc/app.conf",
    "oci:{place}/layout:@0/rootfs/etc/app.conf",
    "oci:{place}/layout@{digest}/rootfs/etc/app.conf",
    "{place}/image.tar/rootfs/etc/app.conf",
    "{place}/image.tar:team/app:1.0/rootfs/etc/app.conf",
    "oci-archive:{place}/image.tar/rootfs/etc/app.conf",
    "{place}/layout/_manifests/@0/rootfs/etc/app.conf",
]


@pytest.mark.parametrize("word", LOCAL)
def test_paths_follow_local_sources(word: str, local: Path, cache: Path) -> None:
    digest = output("cat", f"{local}/layout", "digest", cache=cache).strip()
    named = word.format(place=local, digest=digest)
    assert output("cat", named, cache=cache) == "port = 1\n"


def test_a_local_path_that_does_not_exist_is_an_error(local: Path, cache: Path) -> None:
    for word in (f"{local}/nothing/rootfs", f"oci:{local}/layout:nothing/rootfs/etc"):
        done = run_ocifs("ls", word, cache=cache, check=False)
        assert done.returncode in (1, 2) and b"nothing" in done.stderr, word


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"
