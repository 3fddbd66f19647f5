"""`referrers/` of a registry that fails halfway: the known referrers are listed before an error."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from ocifs.oci.distribution.endpoints import referrers_tag
from tests.registry.test_referrers import (
    BAD,
    GOOD,
    MANIFEST,
    REFERRER,
    SUBJECT,
    index,
    registry,
    served,
)
from tests.support.faults import Handler, Reply, Request, fault_server, http
from tests.support.mount import mounted, run_ocifs

pytestmark = pytest.mark.mount

SIGNATURE = f"{referrers_tag(SUBJECT)}.sig"
KIND = "cosign-signature"


def two_pages(second: Reply) -> Handler:
    def api(request: Request) -> Reply:
        if "page=2" in request.target:
            return second
        return served(index(GOOD, BAD), link=f"<{request.target}?page=2>; rel=next")

    return registry(api, None)


def signed(handler: Handler) -> Handler:
    """The handler, with one of cosign's tags."""
    return lambda request: (
        served(MANIFEST) if request.target.endswith(f"/{SIGNATURE}") else handler(request)
    )


def of_tags(status: int) -> Handler:
    """A registry with a working referrers API that fails for cosign's tags."""
    whole = registry(served(index(GOOD)), None)
    return lambda request: (
        http(status) if request.target.endswith((".sig", ".att")) else whole(request)
    )


CUT: dict[str, tuple[Handler, bool]] = {
    **{
        f"second page: {status}": (two_pages(http(status)), False)
        for status in (404, 403, 400, 500, 503)
    },
    "second page: HTML": (two_pages(http(200, b"<html>")), False),
    "second page: lost": (two_pages(Reply(b"", "reset")), False),
    "second page: circle": (
        two_pages(served(index(GOOD), link="</v2/a/b/referrers/x?page=2>; rel=next")),
        False,
    ),
    "the API, and a tag of cosign": (signed(registry(http(500), None)), True),
    "the second page, and a tag of cosign": (signed(two_pages(http(404))), True),
    "tags of cosign: 403": (of_tags(403), False),
    "tags of cosign: 500": (of_tags(500), False),
}


@pytest.mark.parametrize("name", CUT)
def test_a_partial_list_of_referrers_is_shown_before_its_error(tmp_path: Path, name: str) -> None:
    handler, has_signature = CUT[name]
    with fault_server(handler) as server:
        with mounted(f"{server.host}/a/b", tmp_path / "mnt", tmp_path / "cache") as mount:
            place = mount.path / "_manifests" / str(SUBJECT) / "referrers"
            seen = []
            with pytest.raises(OSError) as caught, os.scandir(place) as entries:
                for entry in entries:
                    seen.append(entry.name)
            assert caught.value.errno in (errno.EIO, errno.EACCES, errno.EHOSTUNREACH)
            assert (KIND in seen) == has_signature
            others = [kind for kind in seen if kind != KIND]
            assert len(others) == (name != "the API, and a tag of cosign")
            for kind in others:
                with os.scandir(place / kind) as links:
                    link = next(links)
                assert link.name.endswith(REFERRER.short)
                assert Path(link).readlink().name == str(REFERRER)
            with pytest.raises(OSError) as absent:
                (place / "no-such-kind").lstat()
            assert absent.value.errno != errno.ENOENT, "it may be in what could not be listed"


def test_inspect_shows_a_partial_list_of_referrers_with_a_warning(tmp_path: Path) -> None:
    with fault_server(two_pages(http(404))) as server:
        done = run_ocifs("inspect", "--json", f"{server.host}/a/b:v1", cache=tmp_path / "cache")
    assert [each["digest"] for each in json.loads(done.stdout)["referrers"]] == [str(REFERRER)]
    assert b"cannot list all referrers" in done.stderr
