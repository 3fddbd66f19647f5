"""The log of a real mount, in each format.

A request to the registry is logged with the number of the operation that caused it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocifs.oci import mediatype
from tests.support.mount import mounted
from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry

pytestmark = [pytest.mark.mount, pytest.mark.servers]
_REST = r"(?P<logger>[\w.]+): (?P<message>.*?)(?: #(?P<operation>\d+))?"
FORMS = {
    "text": rf"[\d-]+ [\d:,]+ (?P<level>[A-Z]+) {_REST}",
    "journald": rf"<(?P<level>\d)>{_REST}",
}
Line = tuple[str, str, str, int]
"""The level, the logger, the message, and the number of the operation or 0."""


def lines(said: str, form: str) -> Iterator[Line]:
    """The lines of a log. A line with another format is a failure."""
    for line in said.splitlines():
        if form == "json":
            found = json.loads(line)
            yield found["level"], found["logger"], found["message"], found.get("operation", 0)
        elif not line.startswith("mounted "):  # the message of a mount in the foreground
            match = re.fullmatch(FORMS[form], line)
            assert match is not None, line
            yield match["level"], match["logger"], match["message"], int(match["operation"] or 0)


@pytest.fixture(scope="module")
def pushed(registry: Registry) -> tuple[Registry, str]:
    """A registry with a manifest of one layer, and the layer's digest."""
    content = bytes(range(256)) * 400
    config, layer = (push_blob(registry.url, "logged/app", each) for each in (b"{}", content))
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "artifactType": "application/x.logged",
        "config": {"mediaType": mediatype.OCI_EMPTY, "digest": config, "size": 2},
        "layers": [
            {"mediaType": "application/octet-stream", "digest": layer, "size": len(content)}
        ],
    }
    push_manifest(registry.url, "logged/app", manifest, "1")
    return registry, layer


@pytest.mark.parametrize("form", ["json", "text", "journald"])
def test_a_request_has_the_number_of_the_operation_that_caused_it(
    form: str, pushed: tuple[Registry, str], tmp_path: Path
) -> None:
    registry, layer = pushed
    options = ["-v", "--log-format", form]  # `mounted` also passes -v, which makes -vv
    with mounted(registry.host, tmp_path / "mnt", tmp_path / "cache", options) as mount:
        (mount.path / "logged/app:1/layers/0/blob").read_bytes()
    found = list(lines(mount.said.decode(), form))
    doing = {
        number: message for _, logger, message, number in found if logger == "ocifs.fuse" and number
    }
    asked = {message: number for _, logger, message, number in found if logger == "ocifs.registry"}
    (blob,) = (number for message, number in asked.items() if f"/blobs/{layer}" in message)
    (manifest,) = (number for message, number in asked.items() if "/manifests/1" in message)
    assert (doing[blob], doing[manifest]) == ("read", "lookup")
    # The check before the mount belongs to no operation.
    before = [message for message, number in asked.items() if number == 0]
    assert [message.partition(": ")[0] for message in before] == [f"GET {registry.host}/v2/"]
    assert all(number in doing for number in asked.values() if number), asked
    levels = {logger: level for level, logger, _, _ in found if logger == "ocifs.registry"}
    assert levels == {"ocifs.registry": {"json": "debug", "text": "DEBUG", "journald": "7"}[form]}


def test_an_error_has_the_number_of_the_request_that_failed(
    pushed: tuple[Registry, str], tmp_path: Path
) -> None:
    registry, _ = pushed
    missing = "sha256:" + "0" * 64
    with mounted(
        registry.host, tmp_path / "mnt", tmp_path / "cache", ["--log-format", "json"]
    ) as mount:
        with pytest.raises(FileNotFoundError):
            (mount.path / "logged/app/_manifests" / missing / "kind").read_text()
        place = (
            registry.log.parent
            / "data/docker/registry/v2/repositories/logged/app/_manifests/tags/odd/current"
        )
        place.mkdir(parents=True, exist_ok=True)
        (place / "link").write_text("no digest")
        with pytest.raises(OSError, match="odd"):
            (mount.path / "logged/app:odd/kind").read_text()
    found = list(lines(mount.said.decode(), "json"))
    (asked,) = {
        number
        for _, logger, message, number in found
        if logger == "ocifs.registry" and "/odd" in message
    }
    told = [
        message for level, logger, message, number in found if number == asked and level == "info"
    ]
    assert told and told[0].startswith("lookup: E"), found
