"""What a program that keeps a file open reads after an error: right bytes, or an error."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.test_registry_mount import push_files
from tests.support.faultproxy import FaultProxy, fault_proxy
from tests.support.mount import mounted
from tests.support.registry import Registry

pytestmark = [pytest.mark.mount, pytest.mark.servers]

CONTENT = random.Random(4).randbytes(100_000)  # fetched as a whole
FILE = "held/app/_manifests/v1/layers/0/blob"


@pytest.fixture
def proxy(registry: Registry) -> Iterator[FaultProxy]:
    push_files(registry, "held/app", "v1", CONTENT)
    with fault_proxy(registry.host) as running:
        yield running


def check_readable_after(proxy: FaultProxy, tmp_path: Path, fault: str, verify: str) -> None:
    """A read of an open file fails under the fault, and succeeds after it."""
    with mounted(proxy.host, tmp_path / "mnt", tmp_path, [f"--verify={verify}"]) as mount:
        descriptor = os.open(mount.path / FILE, os.O_RDONLY)
        proxy.fault = fault
        with pytest.raises(OSError, match="Input/output error"):
            read(descriptor)
        proxy.fault = ""
        assert read(descriptor) == CONTENT
        os.close(descriptor)


def read(descriptor: int) -> bytes:
    """The whole file, past the page cache of the kernel."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return os.pread(descriptor, len(CONTENT), 0)


@pytest.mark.parametrize("verify", ["end", "full"])
@pytest.mark.parametrize("fault", ["short", "long"])
def test_an_open_file_is_readable_after_an_answer_of_another_size(
    proxy: FaultProxy, tmp_path: Path, fault: str, verify: str
) -> None:
    check_readable_after(proxy, tmp_path, fault, verify)


def test_with_full_verification_an_open_file_is_readable_after_other_content(
    proxy: FaultProxy, tmp_path: Path
) -> None:
    check_readable_after(proxy, tmp_path, "corrupt", "full")


def test_an_open_file_is_readable_after_damage_that_could_not_be_repaired(
    proxy: FaultProxy, tmp_path: Path
) -> None:
    with mounted(proxy.host, tmp_path / "mnt", tmp_path) as mount:
        assert (mount.path / FILE).read_bytes() == CONTENT
    damaged = [path for path in tmp_path.glob("ocifs/v1/blobs/*/*") if is_content(path)]
    damaged[0].write_bytes(bytes([CONTENT[0] ^ 1]) + CONTENT[1:])
    with mounted(proxy.host, tmp_path / "mnt", tmp_path) as mount:
        descriptor = os.open(mount.path / FILE, os.O_RDONLY)
        proxy.fault = "401"
        with pytest.raises(OSError, match="Input/output error"):
            read(descriptor)
        proxy.fault = ""
        assert read(descriptor) == CONTENT
        os.close(descriptor)


def is_content(path: Path) -> bool:
    return path.stat().st_size == len(CONTENT)
