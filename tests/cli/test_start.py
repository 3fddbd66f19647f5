"""The modules that commands do not import, which decides how quickly they start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ocifs.oci import mediatype
from tests.support.image import make_layout
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry

# What no command needs before it has parsed its arguments.
HEAVY = ("httpx", "httpcore", "ssl", "trio", "email", "asyncio", "importlib.metadata", "rich")
# What a listing of tags does not need: layers, manifests, local sources, mounts.
NOT_FOR_TAGS = (
    "ocifs.layers.service",
    "ocifs.layers.indexing",
    "ocifs.layers.merge",
    "ocifs.layers.tar",
    "ocifs.layers.toc",
    "ocifs.layout",
    "ocifs.fuse",
    "ocifs.mounting",
    "ocifs.metrics",
    "ocifs.oci.kinds.table",
    "ocifs.tree.manifest.directory",
    "ocifs.tree.rootfs",
    "ocifs.registry.admission",
    "ocifs.cli.mount",
    "ocifs.cli.suggestions",
    "pyfuse3",
    "zlib_ng",
    "backports.zstd",
    "rich",
    "pygments",
    "asyncio",
    "importlib.metadata",
    "numpy",
)
PROGRAM = """
import json, sys
from ocifs import startup
def leave(status):
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
    sys.exit(status)
startup.leave = leave
from ocifs.__main__ import main
sys.argv = sys.argv[1:]
main()
"""


def imported(*words: str, cache: Path, **more: str) -> set[str]:
    """The modules that a command has imported when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "ocifs", *words],
        env={**os.environ, "XDG_CACHE_HOME": str(cache), **more},
        capture_output=True,
        timeout=60,
        check=True,
    )
    return set(json.loads(done.stderr.decode().splitlines()[-1]))


def unwanted(modules: set[str], names: tuple[str, ...]) -> list[str]:
    """The modules that are one of `names`, or in one of them."""
    return sorted(
        module
        for module in modules
        if any(module == name or module.startswith(f"{name}.") for name in names)
        # The stub that keeps httpx from importing rich.
        and module != "httpx._main"
    )


def test_help_imports_no_library_but_click(tmp_path: Path) -> None:
    assert unwanted(imported("--help", cache=tmp_path), (*HEAVY, "ocifs.settings")) == []


@pytest.mark.servers
def test_a_listing_of_tags_imports_nothing_of_manifests_layers_and_mounts(
    registry: Registry, tmp_path: Path
) -> None:
    empty = push_blob(registry.url, "start/app", b"{}")
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": {"mediaType": "a/b", "digest": empty, "size": 2},
        "layers": [],
    }
    push_manifest(registry.url, "start/app", manifest, "1")
    modules = imported("ls", f"{registry.host}/start/app", "_tags", cache=tmp_path)
    assert unwanted(modules, NOT_FOR_TAGS) == []
    # What it does need is there, so that the names above are not merely misspelt.
    assert {"httpx", "trio", "ocifs.tree.registry.repository"} <= modules
    deeper = imported("ls", f"{registry.host}/start/app:1", cache=tmp_path)
    assert {"ocifs.layers.toc", "ocifs.tree.manifest.directory"} <= deeper


def test_a_local_source_imports_no_registry_client_of_fuse(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "layout", [b"\0" * 1024])
    modules = imported("ls", f"oci:{layout}:v1", cache=tmp_path)
    assert unwanted(modules, ("pyfuse3", "ocifs.fuse", "ocifs.metrics", "rich")) == []


def test_a_library_is_imported_as_usual(tmp_path: Path) -> None:
    program = "import ocifs, sys, httpx; ocifs.open; print(type(httpx.main).__name__)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    # With rich it is click's command, and without it a function: both are those of httpx.
    assert done.stdout.strip() in ("Command", "function")


def test_the_prepared_imports_have_the_same_results() -> None:
    program = """
import gc, sys
from ocifs import startup
startup.prepare()
assert not gc.isenabled()
import httpx, trio, ctypes.util
assert not any(module.startswith(("rich", "pygments")) for module in sys.modules)
assert httpx.AsyncClient and trio.run and ctypes.util.find_library("c")
startup.collect_from_now()
assert gc.isenabled()
print(trio._core._thread_cache.set_os_thread_name is not None)
"""
    plain = "import trio; print(trio._core._thread_cache.set_os_thread_name is not None)"
    shown = [
        subprocess.run(
            [sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=True
        ).stdout
        for text in (program, plain)
    ]
    assert shown[0] == shown[1]


@pytest.mark.parametrize(
    ("code", "status"),
    [("0", 0), ("None", 0), ("3", 3), ("'a message'", 1)],
)
def test_a_command_ends_with_its_status_and_its_whole_output(code: str, status: int) -> None:
    program = f"""
import sys
from ocifs import startup
sys.stdout.write("x" * 100_000)
startup.leave({code})
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, len(done.stdout)) == (status, 100_000)


def test_an_output_that_fails_is_a_status() -> None:
    program = "from ocifs import startup; print('x' * 10); startup.leave(0)"
    buffered = {name: os.environ[name] for name in os.environ if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=buffered,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert done.returncode == 120
    assert done.stderr == b"ocifs: cannot write the output: No space left on device\n"


def test_completing_a_host_imports_no_client_of_registries() -> None:
    program = "import sys, ocifs.cli.completions; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert unwanted(set(done.stdout.split()), ("httpx", "httpcore", "ocifs.app", "rich")) == []
