"""Mistakes of users: one line reports the error without a traceback, a second one the remedy."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocifs.fuse.diagnose import NO_DIAGNOSIS, diagnose_mount_failure
from ocifs.oci import mediatype
from tests.registry.conftest import nobodys_home  # noqa: F401 (a fixture, for all tests here)
from tests.registry.private import House, private_house
from tests.support.faults import fault_server, http, in_turn
from tests.support.image import make_layout
from tests.support.mount import mounted, run_ocifs
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry
from tests.support.secrets import keep_secret
from tests.support.tokens import TokenServer

pytestmark = pytest.mark.servers

MISTAKES = [
    # Names that do not exist, next to similar ones.
    (
        ["ls", "{host}/mistakes/app:v1.2"],
        1,
        "{host}/mistakes/app has no tag v1.2",
        "did you mean v1.1 or v1?",
    ),
    (
        ["ls", "{host}", "mistakes/app:nightly"],
        1,
        "mistakes/app has no tag nightly",
        "available: v1, v1.1",
    ),
    (
        ["ls", "{host}/mistakes/ap"],
        1,
        "no such repository or namespace: 'mistakes/ap'",
        "did you mean mistakes/app?",
    ),
    (
        ["cat", "{host}", "mistake/app:v1/kind"],
        1,
        "no such repository or reference: 'mistake'",
        "did you mean mistakes/app:v1/kind?",
    ),
    (
        ["ls", "{host}/mistakes/app/v1"],
        1,
        "no such repository or namespace: 'mistakes/app/v1'",
        "did you mean mistakes/app:v1",
    ),
    (
        ["ls", "{host}", "mistakes/app/v1.1/kind"],
        1,
        "no such repository or reference: 'v1.1'",
        "did you mean mistakes/app:v1.1",
    ),
    (
        ["ls", "{host}/mistakes/app", "v1"],
        1,
        "no such repository or reference: 'v1'",
        "did you mean _tags/v1",
    ),
    (["ls", "{host}/mistakes/app:v1", "layer/0"], 1, "no 'layer' in", "did you mean layers/0?"),
    (["ls", "{host}", "mistakes/app/_manifests/v11"], 1, "app has no tag v11", "did you mean v1.1"),
    (["inspect", "oci:{place}/layout:v2"], 1, "no image named 'v2'", "there is: v1"),
    (
        ["mount", "{host}/mistakes/app:v2", "{place}/mnt"],
        1,
        "mistakes/app has no tag v2",
        "list the tags: `ocifs tags {host}/mistakes/app`",
    ),
    # Invalid words.
    (["ls", "{host}/mistakes/app:v1/layer/0"], 1, "no 'layer' in", "did you mean layers/0?"),
    (["ls", "{host}/mistakes/app:vl"], 1, "has no tag vl", "did you mean v1?"),
    (
        ["ls", "{host}/mistaeks/app", "_tags"],
        1,
        "has no repository mistaeks/app",
        "did you mean mistakes/app?",
    ),
    (
        ["cache", "pin", "{host}/mistakes/app:v1/layers"],
        2,
        "'app:v1' is not a valid component",
        "without the path: {host}/mistakes/app:v1",
    ),
    (
        ["ls", "{host}/Mistakes/App:V1"],
        2,
        "'Mistakes' has capital letters",
        "write it in lower case: {host}/mistakes/app:V1",
    ),
    (["ls", "ftp://{host}/app"], 2, "unknown scheme", "write {host}/app"),
    (
        ["ls", "https://me:pw@{host}/app"],
        2,
        "a source cannot contain a password: {host}",
        "log in with",
    ),
    (["mout", "{host}", "mnt"], 2, "unknown command: mout", "did you mean mount"),
    (["ls", "{host}", "--tag-tl", "3"], 2, "no such option '--tag-tl'", "did you mean '--tag-ttl'"),
    (
        ["ls", "{host}", "--timeout", "soon"],
        2,
        "not a number of seconds: soon",
        "see `ocifs ls --help`",
    ),
    (["ls"], 2, "missing argument 'SOURCE'", "see `ocifs ls --help`"),
    (["find", "{host}", "--kind", "helm"], 2, "unknown kind: helm", "did you mean helm-chart"),
    (["config", "show", "wrok"], 2, "unknown mount: wrok", "did you mean work?"),
    (["cache", "pin", "x"], 2, "not a digest or reference: x", "HOST/REPOSITORY:TAG"),
    # Mounts that are not possible.
    (
        ["mount", "{place}/mnt", "{host}"],
        2,
        "the source is missing: {place}/mnt is a directory",
        "ocifs mount {host} {place}/mnt",
    ),
    (
        ["mount", "{place}/mnt", "oci:{place}/layout"],
        2,
        "the source is missing: {place}/mnt is a directory",
        "ocifs mount oci:{place}/layout {place}/mnt",
    ),
    (
        ["mount", "{host}/mistakes/app:v1/rootfs", "{place}/mnt"],
        2,
        "cannot mount a path of an image",
        "ocifs mount --view rootfs {host}/mistakes/app:v1 {place}/mnt",
    ),
    (
        ["mount", "{host}/mistakes/_tags", "{place}/mnt"],
        2,
        "cannot mount a path of a source",
        "ocifs mount {host}/mistakes {place}/mnt",
    ),
    (["mount", "xyz"], 2, "unknown mount: xyz", "available: work"),
    (["mount", "{host}"], 2, "missing argument MOUNTPOINT", "ocifs mount SOURCE MOUNTPOINT"),
    (
        ["mount", "{place}/mnt"],
        2,
        "missing argument SOURCE",
        "ocifs mount SOURCE MOUNTPOINT",
    ),
    (["mount", "wrok"], 2, "unknown mount: wrok", "did you mean work?"),
    (
        ["mount", "work"],
        2,
        "no mountpoint for the mount work",
        'mountpoint = "/mnt/work"',
    ),
    (
        ["mount", "{host}", "{place}/absent"],
        2,
        "not a directory: {place}/absent",
        "mkdir -p {place}/absent",
    ),
    (["mount", "{host}", "{place}/file"], 2, "not a directory: {place}/file", "name a directory"),
    (
        ["mount", "{host}", "{place}/mnt", "--log-file", "/proc/x/y"],
        2,
        "cannot write the log to",
        "--log-file",
    ),
    (
        ["mount", "{host}", "{place}/mnt", "--metrics", "{port}"],
        2,
        "cannot listen",
        "give each mount its own port",
    ),
    (
        ["umount", "-l", "{place}/mnt"],
        2,
        "not an ocifs mount: {place}/mnt",
        "list the mounts: `ocifs status`",
    ),
    # Hosts that are not registries, or do not answer.
    (["ls", "{page}"], 1, "is not valid JSON", "is this a registry"),
    (
        ["ls", "reg.example.com/a:b", "--offline"],
        1,
        "--offline prevents requests",
        "run `ocifs prefetch`",
    ),
    (
        ["ls", "{silent}/a:b", "--timeout", "0.5"],
        1,
        "no data for 0.5 s",
        "check it with `ocifs doctor {silent}/a:b`",
    ),
    (
        ["ls", "reg.example.com", "--ca-file", "{place}/file"],
        2,
        "no certificate authorities in",
        "BEGIN CERTIFICATE",
    ),
]


@pytest.fixture(scope="module")
def places(
    registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Registries, files and a configuration for the mistakes."""
    place = tmp_path_factory.mktemp("mistakes")
    make_layout(place / "layout", [b"\0" * 1024], tag="v1")
    empty = {
        "mediaType": mediatype.OCI_EMPTY,
        "digest": push_blob(registry.url, "mistakes/app", b"{}"),
        "size": 2,
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "artifactType": "application/x.mistake",
    }
    for tag in ("v1", "v1.1"):
        push_manifest(
            registry.url, "mistakes/app", {**manifest, "config": empty, "layers": [empty]}, tag
        )
    (place / "mnt").mkdir()
    (place / "file").write_text("")
    (place / "c.toml").write_text(f"[mounts.work]\nsource = '{registry.host}'\n")
    with (
        fault_server(in_turn(http(200, b"<html>Welcome</html>"))) as page,
        socket.create_server(("127.0.0.1", 0)) as silent,
    ):
        port = str(silent.getsockname()[1])
        yield {
            "place": str(place),
            "host": registry.host,
            "page": page.host,
            "silent": f"127.0.0.1:{port}",
            "port": port,
        }


@pytest.mark.parametrize(
    ("words", "status", "what", "hint"), MISTAKES, ids=lambda each: str(each)[:40]
)
def test_a_mistake_is_told_with_what_to_try(
    words: list[str],
    status: int,
    what: str,
    hint: str,
    places: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OCIFS_CONFIG", f"{places['place']}/c.toml")
    done = run_ocifs(
        *(word.format(**places) for word in words), cache=tmp_path / "cache", check=False
    )
    said = done.stderr.decode()
    first, _, rest = said.partition("\n")
    assert done.returncode == status, said
    assert first.startswith("ocifs: ") and "Traceback" not in said and "Usage:" not in said
    assert what.format(**places) in first
    assert hint.format(**places) in rest and (not hint or rest.startswith("  ")), said


def test_carets_mark_the_invalid_part_and_control_characters_are_escaped(tmp_path: Path) -> None:
    done = run_ocifs("ls", "ghcr.io/a\nb/c:\x1b[2J", cache=tmp_path, check=False)
    lines = done.stderr.decode().splitlines()
    assert lines[1] == r"    ghcr.io/a\nb/c:\x1b[2J" and "\x1b" not in done.stderr.decode()
    marked = lines[1][lines[2].index("^") : lines[2].rindex("^") + 1]
    assert (marked, len(lines)) == (r"\x1b[2J", 3)


def test_a_value_of_the_environment_is_told_as_such(
    places: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCIFS_TIMEOUT", "soon")
    done = run_ocifs("ls", places["host"], cache=tmp_path, check=False)
    assert b"(from OCIFS_TIMEOUT in the environment)" in done.stderr


def test_help_without_a_command_is_no_error_in_disguise(tmp_path: Path) -> None:
    done = run_ocifs(cache=tmp_path, check=False)
    assert done.returncode in (0, 2)  # 0 before click 8.2
    assert b"Mounts:" in done.stdout + done.stderr and b"ocifs: " not in done.stderr


@pytest.mark.mount
def test_a_place_is_mounted_once(registry: Registry, tmp_path: Path) -> None:
    with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache"):
        again = run_ocifs(
            "mount", registry.host, str(tmp_path / "mnt"), cache=tmp_path / "cache", check=False
        )
        table = Path("/proc/self/mountinfo").read_text()
    assert again.returncode == 2
    assert (
        f"{registry.host} is already mounted at {tmp_path}/mnt\n  run `ocifs umount"
        in again.stderr.decode()
    )
    assert table.count(f" {tmp_path}/mnt ") == 1


@pytest.mark.mount
def test_a_person_is_told_what_a_mount_hides_and_a_script_is_not(
    registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "mnt" / "mine").mkdir(parents=True)
    seen, terminal = os.openpty()
    words = [
        sys.executable,
        "-m",
        "ocifs",
        "mount",
        registry.host,
        str(tmp_path / "mnt"),
        "--cache-dir",
    ]
    for stderr in (terminal, subprocess.DEVNULL):
        try:
            subprocess.run([*words, str(tmp_path / "c")], stderr=stderr, check=True, timeout=60)
        finally:
            subprocess.run(["fusermount3", "-u", "-z", tmp_path / "mnt"], check=True)
    os.close(terminal)
    assert b"its files are hidden while it is mounted" in os.read(seen, 4096)
    os.close(seen)
    quiet = run_ocifs("mount", registry.host, str(tmp_path / "mnt"), cache=tmp_path)
    subprocess.run(["fusermount3", "-u", "-z", tmp_path / "mnt"], check=True)
    assert quiet.stderr == b""


def test_a_repository_that_no_catalog_lists_is_listed_where_it_is_the_source(
    tmp_path: Path,
) -> None:
    def answer(request: object) -> object:
        target = getattr(request, "target", "")
        bodies = {
            "/v2/": b"{}",
            "/v2/_catalog": b'{"repositories": ["other"]}',
            "/v2/mine/tags/list": b'{"tags": []}',
        }
        found = next((bodies[each] for each in bodies if target.partition("?")[0] == each), None)
        return http(404) if found is None else http(200, found)

    with fault_server(answer) as server:
        done = run_ocifs("ls", f"{server.host}/mine", cache=tmp_path)
    assert done.stdout.split() == [b"_blobs", b"_manifests", b"_tags"]


def test_a_registry_that_lists_nothing_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    with fault_server(
        lambda request: http(200, b"{}") if request.target == "/v2/" else http(404)
    ) as server:
        done = run_ocifs("ls", server.host, cache=tmp_path, check=False)
        seeded = run_ocifs("ls", server.host, "--repo", "a/b", cache=tmp_path)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"does not list its repositories\n  write the name of one after it" in done.stderr
    assert seeded.stdout == b"a\n"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with private_house(
        tmp_path_factory.mktemp("house"), TokenServer("me", keep_secret("of-the-mistakes"))
    ) as house:
        yield house


def test_credentials_that_are_missing_or_wrong_are_told_apart(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["ls", f"{house.host}/team/one:v1", "--ca-file", str(house.front.ca)]
    none = run_ocifs(*words, cache=tmp_path, check=False).stderr.decode()
    assert f"{house.host} requires a login, and no credentials for it were found\n" in none
    assert f"log in with `podman login {house.host}`" in none
    monkeypatch.setenv("OCIFS_USERNAME", "me")
    monkeypatch.setenv("OCIFS_PASSWORD_FILE", str(tmp_path / "pw"))
    absent = run_ocifs(*words, cache=tmp_path, check=False).stderr.decode()
    assert absent.startswith(
        f"ocifs: cannot read OCIFS_PASSWORD_FILE, {tmp_path}/pw: No such file or directory\n"
    )
    (tmp_path / "pw").write_text(keep_secret("that-is-wrong"))
    wrong = run_ocifs(*words, cache=tmp_path, check=False).stderr.decode()
    assert f"{house.host} rejects the credentials of me from OCIFS_USERNAME and " in wrong
    credentials = tmp_path / "auth.json"
    auth = base64.b64encode(b"you:" + keep_secret("that-is-wrong").encode()).decode()
    credentials.write_text(json.dumps({"auths": {house.host: {"auth": auth}}}))
    monkeypatch.delenv("OCIFS_USERNAME")
    monkeypatch.delenv("OCIFS_PASSWORD_FILE")
    words += ["--authfile", str(credentials)]
    stored = run_ocifs(*words, cache=tmp_path, check=False).stderr.decode()
    assert f"{house.host} rejects the credentials of you from {credentials}\n" in stored
    plain = run_ocifs(
        "ls", f"{house.host}/team/one:v1", "--plain-http", cache=tmp_path, check=False
    ).stderr
    assert b"the registry requires TLS: leave out --plain-http" in plain


def test_what_keeps_the_kernel_from_mounting_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "is not there" in diagnose_mount_failure(
        tmp_path, allow_other=False, device=tmp_path / "fuse"
    )
    assert "is not the kernel's FUSE device" in diagnose_mount_failure(
        tmp_path, allow_other=False, device=Path("/dev/null")
    )
    if os.geteuid() == 0:
        assert diagnose_mount_failure(tmp_path, allow_other=True) == NO_DIAGNOSIS
    monkeypatch.setattr(os, "geteuid", lambda: 1)  # an ordinary user needs the helper
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "fusermount3 is not on the PATH" in diagnose_mount_failure(tmp_path, allow_other=False)
    (tmp_path / "fusermount3").touch(0o755)
    assert "is not setuid root" in diagnose_mount_failure(tmp_path, allow_other=False)


@pytest.mark.mount
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a mount namespace")
def test_a_daemon_whose_mount_is_refused_says_why(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    mount = (
        f"{sys.executable} -m ocifs mount {registry.host} {tmp_path}/mnt --cache-dir {tmp_path}/c"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"mount --bind /dev/null /dev/fuse || exit 77\n{mount}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip(f"no bind mounts in a namespace here: {done.stderr}")
    assert (done.returncode, "/dev/fuse is not the kernel's FUSE device" in done.stderr) == (
        2,
        True,
    ), done.stderr


@pytest.mark.mount
def test_a_cache_that_holds_next_to_nothing_is_a_warning(
    registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "mnt").mkdir()
    for size, expected in (("1M", True), ("1G", False)):
        words = ["mount", registry.host, str(tmp_path / "mnt"), "--cache-size", size]
        done = run_ocifs(*words, cache=tmp_path)
        run_ocifs("umount", str(tmp_path / "mnt"), cache=tmp_path)
        assert (b"small cache (1.0 MiB): content that does not fit" in done.stderr) == expected
