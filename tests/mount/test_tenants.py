"""Tenants share a cache.

A user sees another user's cached content only after the registry has granted access to it.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.mount import mounted, run_ocifs
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry, running_registry
from tests.support.secrets import keep_secret

pytestmark = [pytest.mark.servers, pytest.mark.mount]
PAYLOAD = b"private payload " * 20_000
PASSWORDS = {"alice": keep_secret("opensesame-alice"), "carol": keep_secret("opensesame-carol")}
LOGIN = """
auth: {{htpasswd: {{realm: test, path: {passwords}}}}}
"""


@dataclass
class Private:
    """A registry with two users, an image by tag and by digest, and the users' credential files."""

    registry: Registry
    digest: str
    blob: str
    place: Path

    def authfile(self, name: str) -> str:
        pair = f"{name}:{PASSWORDS.get(name, keep_secret('wrong-password'))}"
        path = self.place / f"{name}.json"
        entry = {self.registry.host: {"auth": base64.b64encode(pair.encode()).decode()}}
        path.write_text(json.dumps({"auths": entry if name != "anonymous" else {}}))
        path.chmod(0o600)
        return str(path)


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Private]:
    passwords = tmp_path / "passwords"
    lines = [
        subprocess.run(["htpasswd", "-Bbn", name, password], capture_output=True, check=True).stdout
        for name, password in PASSWORDS.items()
    ]
    passwords.write_bytes(b"".join(line.strip() + b"\n" for line in lines))
    (tmp_path / "registry").mkdir()
    data = tmp_path / "data"
    with running_registry(tmp_path / "registry", data) as open_to_all:
        blob = push_blob(open_to_all.url, "team/secret", PAYLOAD)
        empty = push_blob(open_to_all.url, "team/secret", b"{}")
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": "x/y",
            "config": {
                "mediaType": "application/vnd.oci.empty.v1+json",
                "digest": empty,
                "size": 2,
            },
            "layers": [{"mediaType": "a/b", "digest": blob, "size": len(PAYLOAD)}],
        }
        digest = push_manifest(open_to_all.url, "team/secret", manifest, "v1")
    (tmp_path / "private").mkdir()
    with running_registry(
        tmp_path / "private", data, LOGIN.format(passwords=passwords)
    ) as registry:
        yield Private(registry, digest, blob, tmp_path)


WAYS = {
    "by digest": "_manifests/{digest}/layers/0/blob",
    "by tag": "_manifests/v1/layers/0/blob",
    "by the blob's own digest": "_blobs/{blob}",
}


@pytest.mark.parametrize("state", ["up", "down", "offline"])
@pytest.mark.parametrize("other", ["anonymous", "mallory"])
def test_a_user_cannot_read_the_content_of_another_user(
    private: Private, tmp_path: Path, other: str, state: str
) -> None:
    host, cache = private.registry.host, tmp_path / "cache"
    repository = f"{host}/team/secret"
    for way in WAYS.values():
        path = way.format(digest=private.digest, blob=private.blob)
        read = run_ocifs(
            "cat", "--authfile", private.authfile("alice"), repository, path, cache=cache
        )
        assert read.stdout == PAYLOAD
    quick = ["--timeout", "4", "--max-wait", "8", "--authfile", private.authfile(other)]
    if state == "down":
        private.registry.stop()
    elif state == "offline":
        quick.append("--offline")
    with mounted(repository, tmp_path / "mnt", cache, [*quick, "--repo", "team/secret"]) as mount:
        for way in WAYS.values():
            path = way.format(digest=private.digest, blob=private.blob)
            with pytest.raises(OSError):
                (mount.path / path).read_bytes()
            seen = run_ocifs("cat", *quick, repository, path, cache=cache, check=False)
            assert (seen.returncode, seen.stdout) == (1, b"")


def test_users_with_access_share_blobs_and_read_them_without_the_registry(
    private: Private, tmp_path: Path
) -> None:
    host, cache = private.registry.host, tmp_path / "cache"
    repository, path = f"{host}/team/secret", WAYS["by digest"].format(digest=private.digest)
    blobs = f"/v2/team/secret/blobs/{private.blob}"
    fetches = []
    for name in PASSWORDS:
        read = run_ocifs("cat", "--authfile", private.authfile(name), repository, path, cache=cache)
        assert read.stdout == PAYLOAD
        fetches.append(private.registry.requests("GET", blobs))
    assert fetches[0] == fetches[1] > 0
    private.registry.stop()
    for name in PASSWORDS:
        read = run_ocifs(
            "cat", "--offline", "--authfile", private.authfile(name), repository, path, cache=cache
        )
        assert read.stdout == PAYLOAD
