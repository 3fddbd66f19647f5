"""A request that fails once is retried, and the reader succeeds."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.test_registry_mount import push_files
from tests.soak.expect import ASKED, REPEATED
from tests.support.faultproxy import FaultProxy, fault_proxy
from tests.support.mount import mounted
from tests.support.registry import Registry

pytestmark = [pytest.mark.mount, pytest.mark.servers]

CONTENT = random.Random(3).randbytes(3_000_000)


@pytest.fixture
def proxy(registry: Registry) -> Iterator[FaultProxy]:
    push_files(registry, "repeated/app", "v1", CONTENT)
    with fault_proxy(registry.host) as running:
        running.once = True
        yield running


@pytest.mark.parametrize("fault", (*REPEATED, *ASKED))
def test_the_first_request_for_something_fails_and_no_reader_notices(
    proxy: FaultProxy, tmp_path: Path, fault: str
) -> None:
    with mounted(proxy.host, tmp_path / "mnt", tmp_path / "cache", ["--timeout=5"]) as mount:
        assert "repeated" in os.listdir(mount.path)  # the first request also detects TLS
        proxy.fault = fault
        place = mount.path / "repeated/app"
        assert os.listdir(place / "_tags") == ["v1"]
        assert (place / "_manifests/v1/layers/0/blob").read_bytes() == CONTENT
        assert not (mount.path / ".ocifs/errors").read_bytes()
    assert proxy.made[fault] > 2


@pytest.mark.parametrize("fault", REPEATED)
def test_the_first_contact_fails_and_no_reader_notices(
    proxy: FaultProxy, tmp_path: Path, fault: str
) -> None:
    """Before the first answer it is not known whether a registry on loopback has TLS."""
    proxy.fault = fault
    with mounted(proxy.host, tmp_path / "mnt", tmp_path / "cache", ["--timeout=5"]) as mount:
        assert "repeated" in os.listdir(mount.path)
        assert (mount.path / "repeated/app/_manifests/v1/layers/0/blob").read_bytes() == CONTENT
        errors = (mount.path / ".ocifs/errors").read_text().splitlines()
    # The mount may note that its first question, which is not repeated, had no answer in time.
    assert all(" NOTE: " in line for line in errors)
    assert proxy.made[fault] > 2
