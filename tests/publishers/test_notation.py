"""Notation's signatures are found from their subject, as by Notation itself."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tests.support.mount import mounted
from tests.support.registry import Registry
from tests.support.tools import tool


@pytest.mark.servers
@pytest.mark.mount
def test_a_signature_is_beside_its_subject(registry: Registry, tmp_path: Path) -> None:
    notation, oras = tool("notation", tmp_path / "home"), tool("oras", tmp_path / "home")
    reference = f"{registry.host}/publishers/signed:1"
    (oras.home / "app").write_bytes(b"app")
    oras("push", "--plain-http", reference, "app")
    notation("cert", "generate-test", "--default", "ocifs.example")
    notation("sign", "--insecure-registry", reference)
    with mounted(f"{registry.host}/publishers", tmp_path / "mnt", tmp_path / "cache") as mount:
        base = mount.path / "signed:1"
        (found,) = (base / "referrers/notation-signature").iterdir()
        signed = (base / "digest").read_text().strip()
        digest = (found / "digest").read_text().strip()
        assert digest.encode() in notation("list", "--insecure-registry", reference)
        assert (found / "manifest.json").read_bytes() == oras(
            "manifest", "fetch", "--plain-http", f"{registry.host}/publishers/signed@{digest}"
        )
        signature = (found / "files/signature.jws").read_bytes()
        blob = (found / "layers/0/digest").read_text().strip()
        own = oras(
            "blob",
            "fetch",
            "--plain-http",
            "--output",
            "-",
            f"{registry.host}/publishers/signed@{blob}",
        )
        assert signature == own
        said = json.loads(base64.urlsafe_b64decode(json.loads(signature)["payload"] + "=="))
        assert said["targetArtifact"]["digest"] == signed
        assert (found / "subject/digest").read_text().strip() == signed
