"""The commands of the how-to pages run unchanged, succeed, and print the documented output.

Rules that hold here:
- `registry.example.com` is a registry of this test.
- Every command of a block without output must succeed.
- A block after `<!-- not run: why -->` is left out, and so is a block with a part of a file.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gguf
import numpy
import pytest

from ocifs.oci import mediatype
from tests.documents.session import Step, blocks, plain, run, steps
from tests.registry.private import private_house
from tests.support.archives import archive_of, saved_layers
from tests.support.image import make_layout
from tests.support.ports import free_port
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry, running_registry
from tests.support.secrets import keep_secret
from tests.support.tokens import TokenServer

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.mount, pytest.mark.servers]


PLACES = ("mnt", "app", "app-mnt")  # the mount points of the pages


def a_layer(*entries: tuple[str, bytes, int]) -> bytes:
    """A tar of files with their modes. A file with mode 0 is a whiteout."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content, mode in entries:
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(content), mode, 1_700_000_000
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def packages(openssl: str) -> bytes:
    stanza = (
        "Package: {}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {}\n"
        "Maintainer: x\nDescription: x\n"
    )
    return "\n".join(
        stanza.format(*row) for row in (("libc6", "2.36-9"), ("openssl", openssl))
    ).encode()


BASE = a_layer(
    ("usr/bin/su", b"su", 0o4755),
    ("root/.ssh/id_rsa", b"-----BEGIN OPENSSH PRIVATE KEY-----\n", 0o600),
    ("etc/os-release", b"ID=debian\n", 0o644),
    ("etc/passwd", b"app:x:1000:1000::/:/bin/sh\n", 0o644),
)
RELEASES = {
    "1.0": a_layer(
        ("root/.ssh/.wh.id_rsa", b"", 0),
        ("etc/app.conf", b"port = 8080\n", 0o644),
        ("var/lib/dpkg/status", packages("3.0.11-1"), 0o644),
    ),
    "1.1": a_layer(
        ("root/.ssh/.wh.id_rsa", b"", 0),
        ("etc/app.conf", b"port = 8081\n", 0o644),
        ("usr/bin/app-helper", b"helper", 0o755),
        ("usr/bin/su", b"su", 0o755),
        ("var/lib/dpkg/status", packages("3.0.15-1"), 0o644),
    ),
}


def push_releases(registry: Registry, place: Path) -> None:
    """Push team/app:1.0 and team/app:1.1, with two layers each, of which they share the lower."""
    for tag, layer in RELEASES.items():
        layout = make_layout(place / tag, [BASE, layer], tag=tag)
        index = json.loads((layout / "index.json").read_text())
        blob = layout / "blobs" / index["manifests"][0]["digest"].replace(":", "/")
        manifest = json.loads(blob.read_text())
        config = json.loads(
            (layout / "blobs" / manifest["config"]["digest"].replace(":", "/")).read_text()
        )
        config["config"] = {"User": "app", "Env": ["PATH=/usr/bin" + ":/opt/bin" * (tag == "1.1")]}
        config["history"] = [{"created_by": "COPY . /"}]
        body = json.dumps(config).encode()
        manifest["config"] |= {
            "digest": push_blob(registry.url, "team/app", body),
            "size": len(body),
        }
        for each in manifest["layers"]:
            push_blob(
                registry.url,
                "team/app",
                (layout / "blobs" / each["digest"].replace(":", "/")).read_bytes(),
            )
        push_manifest(registry.url, "team/app", manifest, tag)


def push_model(registry: Registry, place: Path) -> None:
    """Push models/q:8b: a real GGUF of 32 MiB, as a file with a title."""
    writer = gguf.GGUFWriter(place / "model.gguf", "llama")
    for name in ("token_embd.weight", "output.weight"):
        writer.add_tensor(name, numpy.zeros((2048, 2048), dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    content = (place / "model.gguf").read_bytes()
    layer = {
        "mediaType": "application/vnd.cncf.model.weight.v1.raw",
        "digest": push_blob(registry.url, "models/q", content),
        "size": len(content),
        "annotations": {"org.opencontainers.image.title": "model.gguf"},
    }
    empty = {
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": push_blob(registry.url, "models/q", b"{}"),
        "size": 2,
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": empty,
        "layers": [layer],
    }
    manifest["artifactType"] = "application/vnd.example.model"
    push_manifest(registry.url, "models/q", manifest, "8b")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    place = tmp_path_factory.mktemp("howto")
    (place / "r").mkdir()
    with running_registry(place / "r") as running:
        push_releases(running, place)
        push_model(running, place)
        yield running


@contextmanager
def home(place: Path) -> Iterator[dict[str, str]]:
    """The environment of a user with an empty home directory, and `ocifs` on the PATH.

    The mounts that a page has left are unmounted at the end.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not re.match("XDG_|OCIFS_|DOCKER_|REGISTRY_", name)
    }
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    place.mkdir(exist_ok=True)
    for name in PLACES:
        (place / name).mkdir()
    try:
        yield {
            **kept,
            "HOME": str(place),
            "PATH": programs,
            "LC_ALL": "C.UTF-8",
            "REGISTRY_PASSWORD": "x",
        }
    finally:
        for name in PLACES:
            subprocess.run(
                ["fusermount3", "-u", "-z", "-q", place / name], check=False, capture_output=True
            )


def follow(page: str, host: str, place: Path, environment: dict[str, str]) -> int:
    """Run a page, and return the number of its commands and of compared outputs."""
    text = (ROOT / "docs/how-to" / page).read_text()
    for name in ("registry.example.com", "registry.inside.example", "127.0.0.1:34099"):
        text = text.replace(name, host)
    text = text.replace("9469", str(free_port()))  # the port of the metrics
    found = []
    commands = [block for block in blocks(text) if not re.match(r"[{[]|[\w-]+ = ", block)]
    for step in (step for block in commands for step in steps(block)):
        trap = (
            "trap 'echo failed: $BASH_COMMAND' ERR\n{}\ntrap - ERR" if step.output is None else "{}"
        )
        found.append(Step(trap.format(step.command), step.output))
    shown = run(found, place, environment)
    for step, printed in shown:
        assert "failed: " not in printed, printed
        if step.output is not None:
            assert digestless(plain(printed)) == digestless(plain(step.output)), step.command
    return len(shown)


def digestless(text: str) -> str:
    return re.sub(r"sha256:([0-9a-f]{64})", "sha256:DIGEST", text)


PAGES = (
    "ci.md",
    "scan-images.md",
    "compare-releases.md",
    "run-models.md",
    "size-the-cache.md",
    "export-and-air-gap.md",
    "use-a-root-filesystem.md",
    "monitor-mounts.md",
    "read-one-file.md",
    "list-files.md",
    "hpc.md",
)


def sheet() -> list[str]:
    """The commands of the cheat sheet, without the table of other tools."""
    text = (ROOT / "docs/cheat-sheet.md").read_text().partition("| other tools |")[0]
    return re.findall(r"^\| [^|]+ \| `([^`]+)` \|$", text, re.MULTILINE)


def test_the_commands_of_the_cheat_sheet_work(registry: Registry, tmp_path: Path) -> None:
    commands = sheet()
    assert len(commands) > 20
    with home(tmp_path / "home") as environment:
        for command in commands:
            here = command.replace("registry.example.com", registry.host)
            done = subprocess.run(
                ["bash", "-c", here],
                cwd=tmp_path / "home",
                env=environment,
                capture_output=True,
                timeout=60,
                check=False,
            )
            # diff ends with 1 if it finds differences.
            assert done.returncode == command.startswith("diff"), (command, done.stderr)


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_print_the_documented_output(
    page: str, registry: Registry, tmp_path: Path
) -> None:
    for program in ("jq", "rsync", "dpkg-query"):
        if shutil.which(program) is None:
            assert not os.environ.get("CI"), f"{program} must be there in CI: see scripts/setup"
            pytest.skip(f"{program} is not installed")
    with home(tmp_path / "home") as environment:
        settings = tmp_path / "home/.config/containers"
        settings.mkdir(parents=True)
        (settings / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        (settings / "registries.conf").write_text(
            f"[[registry]]\nlocation = '{registry.host}'\ninsecure = true\n"
        )
        assert follow(page, registry.host, tmp_path / "home", environment) > 2


def test_the_page_on_browsing_without_a_mount_is_right(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    pushed = {"1.0": "team/app:1.0", "chart-0.1.0": "charts/hello:0.1.0", "notes": "team/notes:1"}
    with home(tmp_path / "home") as environment, running_registry(tmp_path / "r") as registry:
        example = tmp_path / "home/example"
        subprocess.run([sys.executable, ROOT / "scripts/example.py", example], check=True)
        copy = [
            "skopeo",
            "--insecure-policy",
            "copy",
            "--quiet",
            "--all",
            "--dest-tls-verify=false",
        ]
        for name, reference in pushed.items():
            subprocess.run(
                [*copy, f"oci:{example}:{name}", f"docker://{registry.host}/{reference}"],
                check=True,
            )
        assert (
            follow("browse-without-mounting.md", registry.host, tmp_path / "home", environment) == 7
        )


def test_the_page_on_saved_images_is_right(tmp_path: Path) -> None:
    with home(tmp_path / "home") as environment:
        releases = [(f"app:{tag}", [BASE, layer]) for tag, layer in RELEASES.items()]
        for name, images in (("image.tar", releases[:1]), ("two.tar", releases)):
            (tmp_path / "home" / name).write_bytes(archive_of(saved_layers(images)))
        assert (
            follow("read-saved-images.md", "registry.example.com", tmp_path / "home", environment)
            == 14
        )


def test_the_head_of_a_model_is_fetched_and_not_the_model(
    registry: Registry, tmp_path: Path
) -> None:
    with home(tmp_path / "home") as environment:
        model = "gguf.GGUFReader('mnt/models/q:8b/files/model.gguf')"
        look = f"import gguf; print({model}.tensors[0].name)"
        script = (
            f'ocifs mount {registry.host} mnt && python3 -c "{look}" && cat mnt/.ocifs/status.json'
        )
        done = subprocess.run(
            ["bash", "-ec", script],
            cwd=tmp_path / "home",
            env=environment,
            capture_output=True,
            timeout=60,
            check=True,
        )
    said = json.loads(done.stdout.partition(b"\n")[2])
    received = sum(each["bytes_received"] for each in said["registries"])
    assert 0 < received < 8 << 20  # of 32 MiB


def test_the_page_on_private_registries_is_right(tmp_path: Path) -> None:
    tokens = TokenServer("me", keep_secret("pw-of-the-how-to"))
    (tmp_path / "house").mkdir()
    with home(tmp_path / "home") as environment, private_house(tmp_path / "house", tokens) as house:
        shutil.copy(house.front.ca, tmp_path / "home/ca.crt")
        (tmp_path / "home/password.txt").write_text(tokens.password)
        environment["XDG_RUNTIME_DIR"] = str(tmp_path / "run")
        (tmp_path / "run").mkdir(mode=0o700)
        assert follow("private-registry.md", house.host, tmp_path / "home", environment) == 6
