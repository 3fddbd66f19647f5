"""autofs mounts a registry on the first access, with its daemon in a mount namespace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry

ROOT = Path(__file__).parents[2]
# automount ignores accesses of its own process group, so it gets a new session. It has no event for
# its readiness.
SCRIPT = """set -e
mount -t overlay overlay -o lowerdir={place}/sbin:/usr/sbin /usr/sbin || exit 77
setsid automount -f -p {place}/pid {place}/auto.master > {place}/automount.log 2>&1 &
for _ in $(seq 200); do grep -q "{place}/oci autofs" /proc/self/mounts && break; sleep 0.05; done
grep -q "{place}/oci autofs" /proc/self/mounts || {{ cat {place}/automount.log >&2; exit 77; }}
trap 'p=$(cat {place}/pid); kill $p; timeout 10 tail --pid=$p -f /dev/null || kill -9 -$p' EXIT
for name in work {host}; do
  timeout 30 ls {place}/oci/$name/{inside}
  grep -q "{place}/oci/$name fuse.ocifs" /proc/self/mounts
  umount {place}/oci/$name
done
"""


@pytest.mark.mount
@pytest.mark.servers
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a mount namespace")
def test_an_access_mounts_the_sources_of_the_map_and_any_host_of_a_wildcard(
    registry: Registry, tmp_path: Path
) -> None:
    if shutil.which("automount") is None:
        assert not os.environ.get("CI"), "automount must be there in CI: see scripts/setup"
        pytest.skip("autofs is not installed")
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "size": 2}
    empty["digest"] = push_blob(registry.url, "autofs/app", b"{}")
    kind = "application/vnd.oci.image.manifest.v1+json"
    push_manifest(
        registry.url,
        "autofs/app",
        {
            "schemaVersion": 2,
            "mediaType": kind,
            "artifactType": "a/b",
            "config": empty,
            "layers": [empty],
        },
        "1",
    )
    for name in ("sbin", "oci"):
        (tmp_path / name).mkdir()
    program = tmp_path / "sbin/mount.ocifs"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m ocifs.cli.mount_helper "$@"\n')
    program.chmod(0o755)
    (tmp_path / "auto.master").write_text(f"{tmp_path}/oci {tmp_path}/auto.oci --timeout=600\n")
    (tmp_path / "auto.oci").write_text(
        f"work -fstype=ocifs,allow_other,tag_ttl=300 :{registry.host}\n"
        "* -fstype=ocifs,allow_other :&\n"
    )
    script = SCRIPT.format(place=tmp_path, host=registry.host, inside="autofs/app/_tags")
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip(f"no overlay or no autofs in a namespace here: {done.stderr}")
    assert (done.returncode, done.stdout.split()) == (0, ["1", "1"]), done.stderr
