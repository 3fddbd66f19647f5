"""The log: no secrets, and the operation number on its lines."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from ocifs import telemetry

SECRETS = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789", max_size=40).map(
    lambda text: f"S3cr3t{text}"  # what no other word of a line begins with
)


@given(SECRETS)
def test_no_form_of_a_secret_is_written(secret: str) -> None:
    for text in (
        f"Authorization: Bearer {secret}",
        f"authorization: basic {secret}==",
        f"https://store.example.com/a/b?X-Amz-Signature={secret}&other={secret}",
        f"https://name:{secret}@proxy.example.com:3128/",
    ):
        assert secret not in telemetry.redact_secrets(text)
        raised = (ValueError, ValueError(f"in an exception: {text}"), None)
        record = logging.LogRecord(
            "ocifs.x", logging.ERROR, "", 1, "a line with %s", (text,), raised
        )
        for formatter in (
            telemetry.TextFormatter,
            telemetry.JsonFormatter,
            telemetry.JournalFormatter,
        ):
            record.exc_text = None  # which the formatter before has left
            assert secret not in formatter().format(record)


def test_what_is_no_secret_stays() -> None:
    text = "GET reg.example.com:5000/v2/a/blobs/sha256:0123456789abcdef bytes=0-99: 206 in 0.010 s"
    assert telemetry.redact_secrets(text) == text


async def test_work_on_behalf_of_an_operation_has_its_number() -> None:
    seen = []

    async def later() -> None:
        seen.append(telemetry.OPERATION.get())

    async def operation(nursery: trio.Nursery) -> None:
        telemetry.begin_operation(12)
        nursery.start_soon(later)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(operation, nursery)
    assert seen == [12]
    assert telemetry.OPERATION.get() == 0


def test_a_line_for_machines_is_one_object() -> None:
    error = ValueError("two\nlines")
    record = logging.LogRecord(
        "ocifs.x", logging.ERROR, "", 1, "a %s", ("b",), (ValueError, error, None)
    )
    line = telemetry.JsonFormatter().format(record)
    output = json.loads(line)
    assert "\n" not in line
    assert (output["level"], output["logger"], output["message"]) == ("error", "ocifs.x", "a b")
    assert "two\nlines" in output["exception"]


@pytest.mark.parametrize(
    ("verbosity", "level"), [(0, logging.INFO), (1, logging.DEBUG), (2, 5), (9, 5)]
)
def test_each_v_says_more_and_http_libraries_nothing(verbosity: int, level: int) -> None:
    previous, handlers = logging.getLogger().level, logging.getLogger().handlers[:]
    try:
        telemetry.start_logging(verbosity)
        assert logging.getLogger("ocifs.registry").getEffectiveLevel() == level
        assert not logging.getLogger("httpx").isEnabledFor(logging.ERROR)
        assert not logging.getLogger("httpcore.http11").isEnabledFor(logging.ERROR)
    finally:
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(previous)
        logging.getLogger("ocifs").setLevel(logging.NOTSET)


def test_the_journal_gets_priorities_where_it_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    assert not telemetry.stderr_is_journal()
    result = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{result.st_dev}:{result.st_ino}")
    assert telemetry.stderr_is_journal()
    # A message is one line, so that none forges another; a traceback has several.
    record = logging.LogRecord("ocifs.x", logging.WARNING, "", 1, "two\nlines", (), None)
    assert telemetry.JournalFormatter().format(record) == "<4>ocifs.x: two\\nlines"
    error = ValueError("two\nlines")
    record = logging.LogRecord(
        "ocifs.x", logging.WARNING, "", 1, "x", (), (ValueError, error, None)
    )
    assert (
        telemetry.JournalFormatter().format(record) == "<4>ocifs.x: x\n<4>ValueError: two\n<4>lines"
    )
