"""A plugin of pytest that searches all logs and output of a run for the secrets of the tests.

It searches:
- the log of ocifs in this process, at every level
- the output of tests
- the output and arguments of ocifs in other processes, and the reports of mounts (`note`)
- the logs of servers, where a secret would come from a URL

Rules that hold here:
- A secret that is found fails the run, even if every test passed.
- `tests.support.secrets` registers the secrets.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import pytest

from tests.support.secrets import leaks

_FILE_BYTES = 4 << 20
_seen = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (lives as long as the run)


def note(what: str, text: str | bytes) -> None:
    """Record output or arguments of another process."""
    _seen.write(f"\n--- {what}\n{text if isinstance(text, str) else text.decode(errors='replace')}")


class _Log(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raised = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
        note(f"log {record.name}", f"{record.getMessage()}\n{raised}")


def pytest_sessionstart(session: pytest.Session) -> None:
    logger = logging.getLogger("ocifs")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(_Log())


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    for name, text in report.sections:
        if not name.startswith("Captured log"):  # `_Log` records it
            note(f"{report.nodeid} {name}", text)


def pytest_sessionfinish(session: pytest.Session) -> None:
    found = sorted(
        {f"{secret!r} in {where}" for where, text in _all(session.config) for secret in leaks(text)}
    )
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        shown = "\n".join(found)
        print(f"\nSECRETS WERE SHOWN:\n{shown}")


def _all(config: pytest.Config) -> list[tuple[str, str]]:
    _seen.seek(0)
    texts = []
    for block in _seen.read().split("\n--- "):
        where, _, text = block.partition("\n")
        texts.append((where, text))
    for path in _server_logs(config):
        with path.open("rb") as file:
            texts.append((str(path), file.read(_FILE_BYTES).decode(errors="replace")))
    return texts


def _server_logs(config: pytest.Config) -> list[Path]:
    factory = getattr(config, "_tmp_path_factory", None)
    base = factory.getbasetemp() if factory is not None else None
    named = [*base.rglob("log"), *base.rglob("*.log")] if base else []
    return [path for path in named if path.is_file() and not path.is_symlink()]
