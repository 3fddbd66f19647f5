"""The container image, and the manifests for Kubernetes, validated and run by runc as on a node."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from typing import Any  # manifests come from YAML

import kubernetes_validate
import pytest
import yaml

from ocifs.cli.mount import command as mount
from ocifs.metrics import parse_address
from tests.support.chroot import base_tar
from tests.support.installed import ROOT, run
from tests.support.kubelet import Node
from tests.support.ports import free_port
from tests.support.push import push_blob, push_manifest
from tests.support.registry import running_registry
from tests.support.secrets import keep_secret

MANIFESTS = ROOT / "docs/how-to/kubernetes"
DOCUMENTS = {
    (path.name, each["kind"]): each
    for path in sorted(MANIFESTS.glob("*.yaml"))
    for each in yaml.safe_load_all(path.read_text())
}
POD: dict[str, Any] = DOCUMENTS["daemonset.yaml", "DaemonSet"]["spec"]["template"]["spec"]
[CONTAINER] = POD["containers"]
[READER] = DOCUMENTS["pod.yaml", "Pod"]["spec"]["containers"]


@pytest.mark.parametrize(("page", "kind"), DOCUMENTS)
def test_a_manifest_is_valid_for_kubernetes(page: str, kind: str) -> None:
    newest = kubernetes_validate.latest_version()
    assert kubernetes_validate.validate(DOCUMENTS[page, kind], newest, strict=True)


def test_the_command_line_is_one_of_ocifs(tmp_path: Path) -> None:
    assert CONTAINER["args"][0] == "mount"
    # ocifs requires that the file of the secret exists.
    [authfile] = [
        Path(each.partition("=")[2]) for each in CONTAINER["args"] if each.startswith("--authfile=")
    ]
    (tmp_path / authfile.name).write_text("{}")
    args = [each.replace(str(authfile.parent), str(tmp_path)) for each in CONTAINER["args"][1:]]
    asked = mount.make_context("mount", args).params
    places = {each["mountPath"]: each for each in CONTAINER["volumeMounts"]}
    assert (asked["foreground"], asked["allow_other"]) == (True, True)
    assert places[str(asked["mountpoint"].parent)]["mountPropagation"] == "Bidirectional"
    assert CONTAINER["securityContext"]["privileged"]
    assert str(authfile.parent) in places
    [port] = CONTAINER["ports"]
    assert parse_address(asked["metrics"]) == ("0.0.0.0", port["containerPort"])
    for command in (
        *(CONTAINER[f"{kind}Probe"]["exec"]["command"] for kind in ("readiness", "liveness")),
        stop(),
    ):
        assert (command[0], command[-1]) == ("ocifs", str(asked["mountpoint"]))
    volumes = {volume["name"] for volume in POD["volumes"]}
    assert {
        each["name"]
        for each in (*CONTAINER["volumeMounts"], *POD["initContainers"][0]["volumeMounts"])
    } == volumes


def stop() -> list[str]:
    return list(CONTAINER["lifecycle"]["preStop"]["exec"]["command"])


BUILD = """
set -euo pipefail
export BUILDAH="--root $PWD/storage --runroot $PWD/run --storage-driver ${STORAGE_DRIVER:-overlay}"
"$2" --base "$1" localhost/ocifs:test
container=$(buildah $BUILDAH from localhost/ocifs:test)
# Without /dev/null, buildah would make the script's standard input non-blocking.
buildah $BUILDAH run --isolation chroot "$container" -- ocifs --version </dev/null
buildah $BUILDAH inspect --type image localhost/ocifs:test >settings.json
buildah $BUILDAH mount "$container" >image
echo built
read -r _ # the image is mounted until the test closes this pipe
"""


@dataclass(frozen=True)
class Image:
    """A mounted image: its root, in the mount namespace of `holder`, and its configuration."""

    holder: int
    root: Path
    settings: dict[str, Any]


@pytest.fixture(scope="module")
def image(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    for program in ("buildah", "runc"):
        if shutil.which(program) is None:
            assert not os.environ.get("CI"), f"{program} must be there in CI: see scripts/setup"
            pytest.skip(f"{program} is not installed")
    place = tmp_path_factory.mktemp("image")
    build = [
        "unshare",
        "--mount",
        "bash",
        "-c",
        BUILD,
        "build",
        base_tar(),
        ROOT / "scripts/packaging/container",
    ]
    environment = {**os.environ, "DEB": str(package)}
    with subprocess.Popen(
        build, cwd=place, env=environment, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True
    ) as holder:
        assert holder.stdin and holder.stdout and holder.stderr
        said = list(iter(holder.stdout.readline, "built\n" if holder.poll() is None else ""))
        assert said[-2:-1] == ["localhost/ocifs:test\n"] and said[-1].startswith(
            "ocifs, version "
        ), holder.stderr.read()
        settings = json.loads((place / "settings.json").read_text())["OCIv1"]["config"]
        yield Image(holder.pid, Path((place / "image").read_text().strip()), settings)
        holder.stdin.close()
    shutil.rmtree(place)


LIFE = """
set -eu
cd "$1"
mount --bind node node && mount --make-shared node
runc() { command runc --root "$PWD/runc" "$@"; }
trap 'for each in one two; do runc delete --force $each 2>/dev/null || true; done' EXIT
begin() {
  runc run --bundle mountpoint "init-$1"
  runc run --bundle ocifs "$1" >"said-$1" 2>&1 &
  for _ in $(seq 100); do
    if runc exec "$1" $READY >/dev/null 2>&1; then return; fi
  done
  cat "said-$1"
  return 1
}
begin one
cat node/var/lib/ocifs/registry/team/notes:1/layers/0/blob
runc run --bundle reader reader-one
curl -s "http://127.0.0.1:$PORT/metrics" | grep '^ocifs_info'
runc kill one KILL && wait $! || echo "killed, $?"
ls node/var/lib/ocifs/registry 2>&1 || true
begin two
runc run --bundle reader reader-two
runc exec two $STOP || true # the daemon ends with the mount, and the container with its daemon
wait $! && echo "ended, $?"
# Only the mounts of this test count, because other tests mount at the same time.
grep -c " $PWD/.* fuse.ocifs " /proc/self/mounts || echo "nothing is mounted"
"""


@pytest.mark.mount
@pytest.mark.servers
@pytest.mark.timeout(600)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs containers that mount")
def test_a_node_has_the_registry_for_its_pods(image: Image, tmp_path: Path) -> None:
    password = keep_secret("the-nodes-password")
    known = subprocess.run(
        ["htpasswd", "-Bbn", "node", password], capture_output=True, check=True
    ).stdout
    (tmp_path / "passwords").write_bytes(known)
    with running_registry(tmp_path, tmp_path / "data") as registry:
        notes = push_blob(registry.url, "team/notes", b"Buy milk.\n")
        empty = push_blob(registry.url, "team/notes", b"{}")
        layer = {"mediaType": "text/plain", "digest": notes, "size": 10}
        config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2}
        kind = "application/vnd.oci.image.manifest.v1+json"
        push_manifest(
            registry.url,
            "team/notes",
            {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]},
            "1",
        )
    auth = f"auth: {{htpasswd: {{realm: x, path: {tmp_path}/passwords}}}}\n"
    with running_registry(tmp_path, tmp_path / "data", auth) as registry:
        port = free_port()
        secret = base64.b64encode(f"node:{password}".encode()).decode()
        credentials = json.dumps({"auths": {registry.host: {"auth": secret}}})
        node = Node(
            tmp_path / "node",
            image.root,
            image.settings,
            {"ocifs-auth": {".dockerconfigjson": credentials}},
        )
        args = [
            each.replace("registry.example.com", registry.host).replace("9469", str(port))
            for each in CONTAINER["args"]
        ]
        node.bundle(tmp_path / "mountpoint", POD, POD["initContainers"][0])
        node.bundle(tmp_path / "ocifs", POD, {**CONTAINER, "args": args})
        node.bundle(tmp_path / "reader", DOCUMENTS["pod.yaml", "Pod"]["spec"], READER)
        ready = " ".join(CONTAINER["readinessProbe"]["exec"]["command"])
        environment = {**os.environ, "READY": ready, "STOP": " ".join(stop()), "PORT": str(port)}
        enter = [
            "nsenter",
            f"--mount=/proc/{image.holder}/ns/mnt",
            "unshare",
            "--mount",
            "--pid",
            "--fork",
        ]
        life = [*enter, "--kill-child", "--mount-proc", "bash", "-c", LIFE, "life", tmp_path]
        said = run(*life, env=environment, seconds=200)
    assert said.splitlines()[:2] == ["Buy milk.", "team"]
    metrics, killed, dead, *rest = said.splitlines()[2:]
    assert metrics.startswith("ocifs_info{") and registry.host in metrics
    assert killed == "killed, 137" and "Transport endpoint is not connected" in dead
    assert rest == ["team", "ended, 0", "0", "nothing is mounted"]
