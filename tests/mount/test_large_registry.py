"""A mount of a registry with 100,000 repositories and as many tags.

Requests are counted, and truncated lists are detected.
"""

from __future__ import annotations

import errno
import json
import os
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from ocifs.oci import mediatype
from ocifs.oci.digest import Digest
from tests.support.faults import FaultServer, Handler, Reply, Request, fault_server, http
from tests.support.mount import mounted, run_ocifs

pytestmark = pytest.mark.mount

NAMES = sorted(
    [*(f"ns{number // 100:04d}/app{number:06d}" for number in range(100_000)), "team/app"]
)
TAGS = [f"t{number:06d}" for number in range(100_000)]
CONFIG = json.dumps({"os": "linux", "architecture": "amd64"}).encode()
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": {
            "mediaType": mediatype.OCI_CONFIG,
            "digest": str(Digest.of(CONFIG)),
            "size": len(CONFIG),
        },
        "layers": [],
    }
).encode()


def page(request: Request, member: str, names: list[str]) -> Reply:
    asked = urlsplit(request.target)
    size, last = int(parse_qs(asked.query)["n"][0]), parse_qs(asked.query).get("last", [""])[0]
    start = bisect_right(names, last)
    listed = names[start : start + size]
    link = (
        f"<{asked.path}?n={size}&last={listed[-1]}>; rel=next" if start + size < len(names) else ""
    )
    return http(200, json.dumps({member: listed}).encode(), "keep", link=link)


def registry(request: Request) -> Reply:
    path = urlsplit(request.target).path
    if path == "/v2/":
        return http(200, then="keep")
    if path == "/v2/_catalog":
        return page(request, "repositories", NAMES)
    if path == "/v2/team/app/tags/list":
        return page(request, "tags", TAGS)
    if path.startswith("/v2/team/app/manifests/t") or path.endswith(str(Digest.of(MANIFEST))):
        return http(200, MANIFEST, "keep", content_type=mediatype.OCI_MANIFEST)
    return (
        http(200, CONFIG, "keep")
        if path.endswith(str(Digest.of(CONFIG)))
        else http(404, then="keep")
    )


def with_tokens(answer: Handler, server: Callable[[], FaultServer]) -> Handler:
    def handler(request: Request) -> Reply:
        if request.target.startswith("/token"):
            return http(200, b'{"token": "t0ken"}', "keep")
        if request.headers.get("authorization") == "Bearer t0ken":
            return answer(request)
        return http(
            401,
            then="keep",
            www_authenticate=f'Bearer realm="http://{server().host}/token",service="x"',
        )

    return handler


@pytest.mark.parametrize(("tokens", "most"), [(False, 6), (True, 5)])
def test_the_first_look_at_a_manifest_takes_few_requests_however_many_repositories_there_are(
    tmp_path: Path, tokens: bool, most: int
) -> None:
    with fault_server(with_tokens(registry, lambda: server) if tokens else registry) as server:
        with mounted(server.host, tmp_path / "mnt", tmp_path / "cache") as mount:
            assert (mount.path / "team" / "app:t000001" / "kind").read_text() == "image\n"
            assert len(server.requests) <= most, [request.target for request in server.requests]


def test_lookups_cost_no_list_and_listings_one(tmp_path: Path) -> None:
    with fault_server(registry) as server:
        with mounted(server.host, tmp_path / "mnt", tmp_path / "cache") as mount:
            before = len(server.requests)
            for name in NAMES[:20_000:100]:
                assert (mount.path / name).is_dir()
            assert len(server.requests) - before <= 1
            namespaces = sorted(os.listdir(mount.path))
            assert namespaces == [".ocifs", *sorted({name.partition("/")[0] for name in NAMES})]
            for namespace in namespaces[1:20]:
                assert len(os.listdir(mount.path / namespace)) == 100
            assert len(server.requests) - before < 110  # the catalog has 101 pages


def test_many_tags_are_listed_with_their_targets(tmp_path: Path) -> None:
    with fault_server(registry) as server:
        with mounted(f"{server.host}/team/app", tmp_path / "mnt", tmp_path / "cache") as mount:
            before = len(server.requests)
            with os.scandir(mount.path / "_tags") as entries:
                links = {entry.name: entry.is_symlink() for entry in entries}
            assert links == dict.fromkeys(TAGS, True)
            assert os.readlink(mount.path / "_tags" / TAGS[-1]) == f"../_manifests/{TAGS[-1]}"
            assert len(server.requests) - before <= 102


def test_a_list_that_is_cut_short_is_shown_and_then_an_error(tmp_path: Path) -> None:
    def cut(request: Request) -> Reply:
        return http(500, then="keep") if "last=" in request.target else registry(request)

    with fault_server(cut) as server:
        with mounted(server.host, tmp_path / "mnt", tmp_path / "cache") as mount:
            for path, expected in (
                ("", {".ocifs", *(f"ns{n:04d}" for n in range(10))}),
                ("team/app/_tags", TAGS[:1000]),
            ):
                seen = []
                with pytest.raises(OSError) as caught, os.scandir(mount.path / path) as entries:
                    for entry in entries:
                        seen.append(entry.name)
                assert caught.value.errno == errno.EIO
                assert set(seen) == set(expected)
            assert (mount.path / "team" / "app:t000001" / "kind").read_text() == "image\n"


def test_ocifs_ls_shows_a_partial_list_before_its_error(tmp_path: Path) -> None:
    def cut(request: Request) -> Reply:
        return http(404, then="keep") if "last=" in request.target else registry(request)

    with fault_server(cut) as server:
        done = run_ocifs(
            "ls", f"{server.host}/team/app", "_tags", cache=tmp_path / "cache", check=False
        )
    assert done.returncode == 1
    assert done.stdout.decode().split() == TAGS[:1000]
    assert "missing" in done.stderr.decode()
