"""Fixtures for the whole suite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support import hermetic, starter
from tests.support.hermetic import pytest_configure, pytest_unconfigure  # noqa: F401 (hooks)
from tests.support.leaks import pytest_runtest_logreport, pytest_sessionfinish, pytest_sessionstart  # noqa: F401 (hooks)
from tests.support.registry import Registry, running_registry

hermetic.isolate()
starter.enable()

# No law is about time, so a slow example on a busy machine is not a failure.
settings.register_profile("ocifs", deadline=None)
settings.load_profile("ocifs")


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A real registry, shared by the session. Each test uses its own repository name."""
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running
