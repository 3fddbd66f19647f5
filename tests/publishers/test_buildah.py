"""Images for several platforms, built and pushed by Buildah, with attestations in their index."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.publishers.test_oras import shape
from tests.support.mount import mounted
from tests.support.registry import Registry
from tests.support.tools import Tool, tool

pytestmark = [pytest.mark.servers, pytest.mark.mount]
STATEMENT = b'{"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://slsa.dev/provenance/v1"}'
CONTAINERFILE = """FROM scratch
COPY etc /etc
COPY app /bin/app
LABEL org.example.made-by=buildah
CMD ["/bin/app"]
"""


class Buildah:
    """Buildah with its own storage, in a directory of the test."""

    def __init__(self, home: Path) -> None:
        self.tool = tool("buildah", home)
        (home / "config.json").write_text("{}")  # it requires the credentials file in DOCKER_CONFIG
        self.storage = (
            "--root",
            home / "storage",
            "--runroot",
            home / "run",
            "--storage-driver",
            "vfs",
        )

    def __call__(self, *arguments: str | Path) -> bytes:
        return self.tool(*self.storage, *arguments)

    def root_of(self, reference: str) -> dict[str, bytes | str | None]:
        """The files of an image, as Buildah pulls and unpacks it."""
        container = self("from", "--tls-verify=false", reference).decode().strip()
        return shape(Path(self("mount", container).decode().strip()))


def build(buildah: Buildah, registry: Registry) -> str:
    context = buildah.tool.home / "context"
    (context / "etc/app").mkdir(parents=True)
    (context / "etc/app/settings").write_bytes(os.urandom(5000))
    (context / "etc/current").symlink_to("app/settings")
    (context / "app").write_bytes(b"#!/bin/sh\necho hello\n")
    (context / "Containerfile").write_text(CONTAINERFILE)
    repository = f"{registry.host}/publishers/buildah"
    buildah("manifest", "create", "all")
    for machine in ("amd64", "arm64"):
        buildah(
            "build",
            "-q",
            "--isolation",
            "chroot",
            "--platform",
            f"linux/{machine}",
            "-t",
            machine,
            context,
        )
        buildah("manifest", "add", "all", machine)
    buildah(
        "manifest",
        "push",
        "--all",
        "--format",
        "oci",
        "--tls-verify=false",
        "all",
        f"docker://{repository}:1",
    )
    return repository


@pytest.mark.skipif(os.geteuid() != 0, reason="Buildah mounts an image only for root")
def test_an_image_for_two_platforms_is_what_buildah_pulls(
    registry: Registry, tmp_path: Path
) -> None:
    buildah = Buildah(tmp_path / "home")
    repository = build(buildah, registry)
    with mounted(
        repository, tmp_path / "mnt", tmp_path / "cache", ("--platform", "linux/arm64")
    ) as mount:
        base = mount.path / "_tags/1"
        assert (base / "kind").read_text() == "image-index\n"
        assert sorted(path.name for path in (base / "platforms").iterdir()) == [
            "linux-amd64",
            "linux-arm64",
        ]
        image = base / "platforms/linux-amd64"
        assert json.loads((image / "config.json").read_bytes())["architecture"] == "amd64"
        assert json.loads((base / "config.json").read_bytes())["architecture"] == "arm64"
        assert "Runs:          /bin/app\n" in (image / "summary.txt").read_text()
        digest = (image / "digest").read_text().strip()
        assert shape(image / "rootfs") == buildah.root_of(f"{repository}@{digest}")
        assert os.access(image / "rootfs/bin/app", os.R_OK)


def attest(buildah: Buildah, oras: Tool, repository: str, image: str) -> None:
    """Add an attestation beside an image, in BuildKit's first format: as a pseudo-image.

    Buildah accepts no other format.
    """
    (oras.home / "statement").write_bytes(STATEMENT)
    (oras.home / "config").write_text(
        '{"os": "unknown", "architecture": "unknown", "rootfs": {"type": "layers", "diff_ids": []}}'
    )
    kind = ("--config", "config:application/vnd.oci.image.config.v1+json")
    made = oras(
        "push",
        "--plain-http",
        *kind,
        "--format",
        "json",
        f"{repository}:made",
        "statement:application/vnd.in-toto+json",
    )
    notes = (
        "vnd.docker.reference.type=attestation-manifest",
        f"vnd.docker.reference.digest={image}",
    )
    noted = [option for note in notes for option in ("--annotation", note)]
    child = f"docker://{repository}@{json.loads(made)['digest']}"
    buildah(
        "manifest",
        "add",
        "--tls-verify=false",
        "--os",
        "unknown",
        "--arch",
        "unknown",
        *noted,
        "all",
        child,
    )
    buildah(
        "manifest",
        "push",
        "--all",
        "--format",
        "oci",
        "--tls-verify=false",
        "all",
        f"docker://{repository}:2",
    )


def test_an_attestation_beside_an_image_refers_to_it(registry: Registry, tmp_path: Path) -> None:
    buildah, oras = Buildah(tmp_path / "home"), tool("oras", tmp_path / "home")
    repository = build(buildah, registry)
    with mounted(repository, tmp_path / "mnt", tmp_path / "cache") as mount:
        image = (mount.path / "_tags/1/platforms/linux-arm64/digest").read_text().strip()
        attest(buildah, oras, repository, image)
        base = mount.path / "_tags/2"
        assert sorted(path.name for path in (base / "platforms").iterdir()) == [
            "linux-amd64",
            "linux-arm64",
        ]
        (found,) = (base / "platforms/linux-arm64/referrers/attestation").iterdir()
        assert (found / "kind").read_text() == "attestation\n"
        (file,) = (found / "files").iterdir()
        assert file.read_bytes() == STATEMENT
        assert not list((base / "platforms/linux-amd64/referrers").iterdir())
        assert "of linux-arm64" in (base / "summary.txt").read_text()
