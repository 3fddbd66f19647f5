"""The commands of docs/how-to/use-artifacts.md run unchanged, on artifacts with its names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import wasmtime

from tests.publishers.test_programs import ADD
from tests.support.mount import mounted
from tests.support.registry import Registry, running_registry
from tests.support.tars import a_tar
from tests.support.tools import Tool, tool

PAGE = Path(__file__).parents[2] / "docs/how-to/use-artifacts.md"
SBOM = '{"spdxVersion": "SPDX-2.3"}'


def blocks() -> dict[str, str]:
    """The code blocks of the sections, by heading."""
    sections = re.split(r"^## (.*)$", PAGE.read_text(), flags=re.MULTILINE)[1:]
    code = (re.findall(r"^(?: {4}.*\n|\n(?= {4}))+", text, re.MULTILINE) for text in sections[1::2])
    return {
        heading: "".join(re.sub(r"^ {4}", "", block, flags=re.MULTILINE) for block in found).lstrip(
            "\n"
        )
        for heading, found in zip(sections[::2], code, strict=True)
    }


def push(registry: Registry, oras: Tool, helm: Tool) -> None:
    helm("create", "web")
    helm("package", "web")
    helm("push", "--plain-http", "web-0.1.0.tgz", f"oci://{registry.host}/charts")
    (oras.home / "add.wasm").write_bytes(wasmtime.wat2wasm(ADD))
    (oras.home / "model.gguf").write_bytes(b"GGUF" + bytes(1000))
    (oras.home / "sbom.spdx.json").write_text(SBOM)
    oras("push", "--plain-http", f"{registry.host}/modules/add:1", "add.wasm:application/wasm")
    for name in ("models/q:8b", "team/app:1.0"):
        oras("push", "--plain-http", f"{registry.host}/{name}", "model.gguf")
    (oras.home / "policy").mkdir()
    (oras.home / "policy/deny.rego").write_text("package main\n\ndeny contains 1\n")
    opa = "application/vnd.cncf.openpolicyagent.policy.layer.v1+rego"
    oras("push", "--plain-http", f"{registry.host}/policies/deny:1", f"policy/deny.rego:{opa}")
    (oras.home / "compose.yaml").write_text("services: {}\n")
    compose = ("--artifact-type", "application/vnd.docker.compose.project")
    oras(
        "push",
        "--plain-http",
        *compose,
        f"{registry.host}/projects/shop:1",
        "compose.yaml:application/vnd.docker.compose.file+yaml",
    )
    (oras.home / "config").write_text(
        '{"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}}'
    )
    image = ("--config", "config:application/vnd.oci.image.config.v1+json")
    (oras.home / "layer.tar").write_bytes(a_tar(**{"data.csv": b"1,2\n"}))
    layer = "layer.tar:application/vnd.oci.image.layer.v1.tar"
    oras("push", "--plain-http", *image, f"{registry.host}/team/data:1", layer)
    kind = ("--artifact-type", "application/spdx+json")
    oras(
        "attach",
        "--plain-http",
        *kind,
        f"{registry.host}/team/app:1.0",
        "sbom.spdx.json:application/spdx+json",
    )


@pytest.mark.servers
@pytest.mark.mount
def test_the_commands_of_the_page_print_the_documented_output(tmp_path: Path) -> None:
    # A separate registry: `ocifs find` reports errors, and other tests break repositories of the
    # shared one.
    (tmp_path / "registry").mkdir()
    with running_registry(tmp_path / "registry") as registry:
        run_page(registry, tmp_path)


def run_page(registry: Registry, tmp_path: Path) -> None:
    oras, helm = tool("oras", tmp_path / "home"), tool("helm", tmp_path / "home")
    push(registry, oras, helm)
    programs = f"{Path(sys.executable).parent}:{Path(helm.path).parent}:{os.environ['PATH']}"
    environment = {
        **os.environ,
        "PATH": programs,
        "HOME": str(oras.home),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    expected = {
        "Render a Helm chart": "kind: Deployment",
        "Run a WebAssembly module": "5\n",
        "Load a model": "",
        "Evaluate policies": "policy/deny.rego\npackage main\n",
        "Start a Compose project": "compose-project\nservices: {}\n",
        "Give a directory of an image to a program": "data.csv\n",
        "Read signatures and SBOMs": "sbom\n" + SBOM,
        "Find artifacts by kind": f"helm-chart\t{registry.host}/charts/web:0.1.0",
    }
    with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache"):
        for heading, code in blocks().items():
            program = [sys.executable, "-c"] if code.startswith("import ") else ["bash", "-ec"]
            command = [*program, code.replace("registry.example.com", registry.host)]
            done = subprocess.run(
                command, cwd=tmp_path, env=environment, capture_output=True, timeout=60, check=False
            )
            assert done.returncode == 0, (heading, done.stderr.decode())
            assert expected.pop(heading) in done.stdout.decode(), heading
    assert not expected
