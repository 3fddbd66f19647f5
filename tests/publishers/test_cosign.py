"""cosign's signatures and attestations, by tags and as bundles, are found from their image.

cosign verifies them in the mount. scripts/setup does not build cosign, because this takes 290 s of
processor time and 1.4 GB. The test runs if it is installed:

    go install github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from tests.publishers.test_crane import push
from tests.support.mount import mounted
from tests.support.registry import running_registry
from tests.support.tools import Tool, tool

NO_LOG = (
    '{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json",'
    '"rekorTlogConfig":{},"tsaConfig":{}}'
)
BY_TAG = (
    "--key",
    "cosign.key",
    "--tlog-upload=false",
    "--use-signing-config=false",
    "--new-bundle-format=false",
)


def sign(cosign: Tool, image: str) -> None:
    """Sign an image with cosign's tags, and with a bundle that refers to the image."""
    cosign("generate-key-pair")
    (cosign.home / "predicate.json").write_text('{"a": 1}')
    (cosign.home / "no-log.json").write_text(NO_LOG)
    there = ("--allow-insecure-registry", image)
    cosign("sign", *BY_TAG, *there)
    cosign("attest", *BY_TAG, "--type", "slsaprovenance", "--predicate", "predicate.json", *there)
    cosign("sign", "--key", "cosign.key", "--signing-config", "no-log.json", *there)


@pytest.mark.servers
@pytest.mark.mount
def test_cosign_verifies_the_files_of_its_signature_in_a_mount(tmp_path: Path) -> None:
    crane, cosign = (
        tool("crane", tmp_path / "home"),
        tool("cosign", tmp_path / "home", optional=True),
    )
    cosign = dataclasses.replace(cosign, environment={"COSIGN_PASSWORD": "", "COSIGN_YES": "true"})
    (tmp_path / "registry").mkdir()
    with running_registry(tmp_path / "registry") as registry:
        push(crane, f"{registry.host}/app:1")
        digest = crane("digest", f"{registry.host}/app:1").decode().strip()
        sign(cosign, f"{registry.host}/app@{digest}")
        with mounted(f"{registry.host}/app:1", tmp_path / "mnt", tmp_path / "cache") as mount:
            found = {
                path.name: next(path.iterdir()) / "files"
                for path in (mount.path / "referrers").iterdir()
            }
            assert sorted(found) == ["cosign-attestation", "cosign-signature", "sigstore-bundle"]
            signature = found["cosign-signature"]
            signed = json.loads((signature / "payload.json").read_bytes())
            assert signed["critical"]["image"]["docker-manifest-digest"] == digest
            key = ("--key", "cosign.pub", "--insecure-ignore-tlog")
            cosign(
                "verify-blob",
                *key,
                "--signature",
                signature / "signature.b64",
                signature / "payload.json",
            )
            (envelope,) = found["cosign-attestation"].iterdir()
            assert envelope.name == "slsa-provenance-v0.2.dsse.json"
            bundle = (found["sigstore-bundle"] / "bundle.sigstore.json").read_bytes()
            own = cosign(
                "download",
                "signature",
                "--allow-insecure-registry",
                f"{registry.host}/app@{digest}",
            )
            assert json.loads(own) == json.loads(bundle)
