"""Charts that Helm has packaged and pushed are used by Helm from a mount."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from tests.support.mount import mounted
from tests.support.registry import Registry
from tests.support.tools import tool


@pytest.mark.servers
@pytest.mark.mount
def test_a_chart_is_rendered_from_the_mount_as_from_the_registry(
    registry: Registry, tmp_path: Path
) -> None:
    helm = tool("helm", tmp_path / "home")
    helm("create", "web")
    helm("package", "web")
    provenance = b"-----BEGIN PGP SIGNED MESSAGE-----\nnot checked by a push\n"
    (helm.home / "web-0.1.0.tgz.prov").write_bytes(provenance)
    helm("push", "--plain-http", "web-0.1.0.tgz", f"oci://{registry.host}/publishers")
    (helm.home / "pulled").mkdir()
    helm(
        "pull",
        "--plain-http",
        "--version",
        "0.1.0",
        "--prov",
        "-d",
        "pulled",
        f"oci://{registry.host}/publishers/web",
    )
    remote = f"oci://{registry.host}/publishers/web"
    with mounted(f"{registry.host}/publishers", tmp_path / "mnt", tmp_path / "cache") as mount:
        base = mount.path / "web:0.1.0"
        chart = base / "files/web-0.1.0.tgz"
        assert (base / "kind").read_text() == "helm-chart\n"
        pulled = {path.name: path.read_bytes() for path in (helm.home / "pulled").iterdir()}
        assert set(pulled) == {chart.name, f"{chart.name}.prov"}
        shown_files = {path.name: path.read_bytes() for path in (base / "files").iterdir()}
        assert shown_files == {**pulled, "Chart.json": (base / "config.json").read_bytes()}
        assert json.loads((base / "files/Chart.json").read_bytes())["version"] == "0.1.0"
        assert chart.read_bytes() == (helm.home / "web-0.1.0.tgz").read_bytes()
        for command in (("template", "x"), ("show", "chart"), ("show", "values")):
            shown = helm(*command, chart)
            assert shown == helm(*command, remote, "--plain-http", "--version", "0.1.0")
            assert b"web" in shown or b"replicaCount" in shown
        with tarfile.open(chart) as archive:
            assert "web/Chart.yaml" in archive.getnames()
