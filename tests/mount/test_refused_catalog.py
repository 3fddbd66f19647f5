"""A registry that refuses its catalog: the empty listing has one line in `.ocifs/errors`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.faults import Handler, Reply, Request, fault_server, http
from tests.support.mount import mounted

pytestmark = pytest.mark.mount


def with_catalog(status: int) -> Handler:
    def handler(request: Request) -> Reply:
        path = request.target.partition("?")[0]
        if path == "/v2/_catalog":
            return http(status, b"" if status != 200 else b'{"repositories": []}')
        if path == "/v2/team/app/tags/list":
            return http(200, b'{"name": "team/app", "tags": ["1"]}')
        return http(200 if path == "/v2/" else 404)

    return handler


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir() if path.name != ".ocifs")


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_an_empty_listing_after_a_refusal_has_one_line(tmp_path: Path, status: int) -> None:
    with (
        fault_server(with_catalog(status)) as server,
        mounted(server.host, tmp_path / "mnt", tmp_path / "cache") as mount,
    ):
        errors = mount.path / ".ocifs/errors"
        assert errors.read_text() == ""
        for _ in range(3):
            assert names(mount.path) == []
        (line,) = errors.read_text().splitlines()
        assert "an empty listing: " in line and server.host in line
        # Names below it can still be entered, and are listed from then on.
        assert names(mount.path / "team/app/_tags") == ["1"]
        assert names(mount.path) == ["team"]
        assert errors.read_text().splitlines() == [line]


def test_an_empty_registry_has_no_line(tmp_path: Path) -> None:
    with (
        fault_server(with_catalog(200)) as server,
        mounted(server.host, tmp_path / "mnt", tmp_path / "cache") as mount,
    ):
        assert names(mount.path) == []
        assert (mount.path / ".ocifs/errors").read_text() == ""
