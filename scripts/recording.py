"""Record a terminal session with a real image, in a registry with a public name.

    unshare --net --mount --propagation private python -m scripts.recording

Prints the session as JSON: a list of {"command", "output", "seconds"}. Needs root. Port 443
is free because the network namespace is new.

Rules that hold here:
- The image is the Debian of the tests, with one more layer for each release of an application.
- `registry.example.com` is docker-registry with TLS, in a network namespace of this process. Its
  name is in an /etc/hosts of the mount namespace.
- Each command runs in one shell, with an empty cache at the start. The output is unchanged.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypedDict

import trustme

from scripts.example import tar
from tests.support.debian import debian_image
from tests.support.push import push_blob, push_manifest
from tests.support.registry import running_registry

HOST = "registry.example.com"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
HELM = "application/vnd.cncf.helm."
COMMANDS = (
    f"ocifs mount {HOST} mnt",
    "ls mnt/team/app/_tags",
    "grep PRETTY_NAME mnt/team/app:1.0/rootfs/etc/os-release",
    "diff -r mnt/team/app:1.0/rootfs/etc mnt/team/app:1.1/rootfs/etc",
    f"ocifs find {HOST} --kind helm-chart",
    "tar -xOf mnt/charts/web:1.4.0/files/web-1.4.0.tgz web/Chart.yaml",
    "ocifs umount mnt",
)
RELEASES: Mapping[str, Mapping[str, bytes]] = {
    "1.0": {"etc/app.conf": b"port = 8080\nworkers = 4\n", "opt/app/VERSION": b"1.0\n"},
    "1.1": {"etc/app.conf": b"port = 8080\nworkers = 8\n", "opt/app/VERSION": b"1.1\n"},
}
REGISTRY = """version: 0.1
log: {{accesslog: {{disabled: true}}, level: error}}
storage: {{filesystem: {{rootdirectory: {here}/data}}}}
http:
  addr: "127.0.0.1:443"
  tls: {{certificate: {here}/server.pem, key: {here}/server.key}}
"""
COMMAND_SECONDS, START_SECONDS = 120, 60


class Recorded(TypedDict):
    """A command of the session, its output, and the seconds that it took."""

    command: str
    output: str
    seconds: float


def push_releases(url: str, releases: Mapping[str, Mapping[str, bytes]] = RELEASES) -> None:
    """Push each release of team/app: the layers of Debian, and a layer with the files."""
    layout = debian_image().layout
    index = json.loads((layout / "index.json").read_bytes())
    manifest = json.loads(_blob(layout, index["manifests"][0]["digest"]))
    config = json.loads(_blob(layout, manifest["config"]["digest"]))
    for layer in manifest["layers"]:
        push_blob(url, "team/app", _blob(layout, layer["digest"]))
    for release, files in releases.items():
        content = tar(files)
        packed = gzip.compress(content, mtime=0)
        diff_ids = [*config["rootfs"]["diff_ids"], f"sha256:{hashlib.sha256(content).hexdigest()}"]
        body = json.dumps(
            {
                "created": "2026-01-01T00:00:00Z",
                "architecture": config["architecture"],
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
            }
        ).encode()
        top = {
            "mediaType": LAYER,
            "digest": push_blob(url, "team/app", packed),
            "size": len(packed),
        }
        described = {**manifest["config"], "digest": push_blob(url, "team/app", body)}
        push_manifest(
            url,
            "team/app",
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {**described, "size": len(body)},
                "layers": [*manifest["layers"], top],
            },
            release,
        )


def push_chart(url: str) -> None:
    """Push a Helm chart, as `helm push` does."""
    about = b"name: web\nversion: 1.4.0\napiVersion: v2\n"
    chart = gzip.compress(tar({"web/Chart.yaml": about}), mtime=0)
    config = json.dumps({"apiVersion": "v2", "name": "web", "version": "1.4.0"}).encode()
    push_manifest(
        url,
        "charts/web",
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": HELM + "config.v1+json",
                "digest": push_blob(url, "charts/web", config),
                "size": len(config),
            },
            "layers": [
                {
                    "mediaType": HELM + "chart.content.v1.tar+gzip",
                    "digest": push_blob(url, "charts/web", chart),
                    "size": len(chart),
                }
            ],
        },
        "1.4.0",
    )


def _blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()


@contextlib.contextmanager
def public_registry(here: Path) -> Iterator[None]:
    """Serve the pushed content as https://registry.example.com."""
    authority = trustme.CA()
    leaf = authority.issue_cert(HOST)
    leaf.cert_chain_pems[0].write_to_path(str(here / "server.pem"))
    leaf.private_key_pem.write_to_path(str(here / "server.key"))
    authority.cert_pem.write_to_path(str(here / "ca.pem"))
    (here / "hosts").write_text(f"127.0.0.1 localhost {HOST}\n")
    subprocess.run(["mount", "--bind", here / "hosts", "/etc/hosts"], check=True)
    (here / "registry.yml").write_text(REGISTRY.format(here=here))
    server = subprocess.Popen(
        ["docker-registry", "serve", here / "registry.yml"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        check = [
            "curl",
            "-sf",
            "--cacert",
            here / "ca.pem",
            "-o",
            "/dev/null",
            f"https://{HOST}/v2/",
        ]
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run(check, check=False).returncode:
            if time.monotonic() > deadline or server.poll() is not None:
                raise RuntimeError("docker-registry did not answer on port 443")
            time.sleep(0.1)
        yield
    finally:
        server.terminate()
        server.wait(60)


def record(here: Path) -> Iterator[Recorded]:
    """Run the commands, and return each with its output and its time."""
    config = here / "config.toml"
    config.write_text(f'ca-file = "{here}/ca.pem"\ncache-dir = "{here}/cache"\n')
    work = here / "work"
    (work / "mnt").mkdir(parents=True)
    environment = {
        **{
            name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
        },
        "OCIFS_CONFIG": str(config),
        "LC_ALL": "C.UTF-8",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    try:
        for command in COMMANDS:
            began = time.perf_counter()
            ended = subprocess.run(
                ["bash", "-c", command],
                cwd=work,
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=COMMAND_SECONDS,
                check=False,
            )
            seconds = time.perf_counter() - began
            # diff ends with 1 if it finds differences.
            if ended.returncode and not (command.startswith("diff") and ended.returncode == 1):
                raise RuntimeError(f"{command}: ended with {ended.returncode}: {ended.stdout}")
            yield {"command": command, "output": ended.stdout, "seconds": round(seconds, 3)}
    finally:
        if os.path.ismount(work / "mnt"):
            subprocess.run(["umount", "--lazy", work / "mnt"], check=False)


def new_recording() -> list[Recorded]:
    """Record the session in namespaces of its own. Needs root."""
    own_network = ("unshare", "--net", "--mount", "--propagation", "private")
    done = subprocess.run(
        [*own_network, sys.executable, "-m", "scripts.recording"],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        check=True,
        timeout=600,
    )
    recorded: list[Recorded] = json.loads(done.stdout)
    return recorded


def main() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory(prefix="ocifs-recording-") as place:
        here = Path(place)
        with running_registry(here) as registry:
            push_releases(registry.url)
            push_chart(registry.url)
        with public_registry(here):
            print(json.dumps(list(record(here)), indent=1))


if __name__ == "__main__":
    main()
