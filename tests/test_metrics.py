"""Metrics: a real mount is scraped, and the text is parsed by prometheus-client."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ocifs.errors import UsageError
from ocifs.metrics import METRICS, exposition, name_in_text, parse_address
from ocifs.oci import mediatype
from ocifs.scrape import _is_host_allowed
from scripts.generate_metrics import REFERENCE, dashboard, page
from tests.support.mount import mounted, run_ocifs
from tests.support.ports import free_port
from tests.support.push import push_manifest
from tests.support.registry import Registry


def parsed(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    families = text_string_to_metric_families(text)
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.mark.mount
@pytest.mark.servers
def test_a_mount_is_scraped(registry: Registry, tmp_path: Path) -> None:
    port = free_port()
    with mounted(
        registry.host, tmp_path / "mnt", tmp_path / "cache", ["--metrics", str(port)]
    ) as mount:
        list(mount.path.iterdir())
        (mount.path / ".ocifs" / "version").read_text()
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False)
        result = parsed(answer.text)
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert result["ocifs_registry_reachable", (registry.host,)] == 1
        assert result["ocifs_registry_questions_total", (registry.host,)] == 1
        assert result["ocifs_operations_total", ("read",)] >= 1
        assert result["ocifs_operation_seconds_total", ("read",)] > 0
        assert result["ocifs_read_bytes_total", ()] >= 6
        assert {name for name, _ in result} <= {name_in_text(metric) for metric in METRICS}
        assert httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).status_code == 404
        assert httpx.post(f"http://127.0.0.1:{port}/metrics", trust_env=False).status_code == 405
        head = httpx.head(f"http://127.0.0.1:{port}/metrics", trust_env=False)
        assert (head.status_code, head.content) == (200, b"")
        with socket.create_connection(("127.0.0.1", port), 5) as client:
            client.sendall(b"\x00\xff" * 40_000)  # no HTTP, and too long for it
        assert httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).status_code == 200
        (tmp_path / "other").mkdir()
        taken = run_ocifs(
            "mount",
            registry.host,
            str(tmp_path / "other"),
            "--metrics",
            str(port),
            cache=tmp_path,
            check=False,
        )
        assert taken.returncode == 2 and b"cannot listen" in taken.stderr
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False)


def odd_tag(registry: Registry) -> str:
    """A tag that the registry cannot read itself, so that callers get EIO."""
    manifest = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": []}
    push_manifest(registry.url, "measured", manifest, "good")
    place = (
        registry.log.parent
        / "data/docker/registry/v2/repositories/measured/_manifests/tags/odd/current"
    )
    place.mkdir(parents=True, exist_ok=True)
    (place / "link").write_text("no digest")
    return "measured:odd"


@pytest.mark.mount
@pytest.mark.servers
def test_every_metric_of_the_reference_is_scraped_with_its_type_its_labels_and_its_meaning(
    registry: Registry, tmp_path: Path
) -> None:
    odd, port = odd_tag(registry), free_port()
    with mounted(
        registry.host, tmp_path / "mnt", tmp_path / "cache", ["--metrics", str(port)]
    ) as mount:
        (mount.path / "measured:good" / "kind").read_text()
        with pytest.raises(OSError, match="odd"):
            (mount.path / odd / "kind").read_text()
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    result = {
        sample.name: (family.type, set(sample.labels), family.documentation)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*) \|$",
        (REFERENCE / "metrics.md").read_text(),
        re.MULTILINE,
    )
    told = {
        name: (kind, set(re.findall(r"\w+", labels)), meaning)
        for name, kind, labels, meaning in rows
    }
    assert len(told) > 14
    assert result == told


def test_what_is_not_known_is_left_out() -> None:
    text = exposition(
        {"version": "1", "source": 'a "b"\n', "registries": [{"host": "h", "reachable": None}]}
    ).decode()
    ((name, labels),) = parsed(text)
    assert (name, set(labels)) == ("ocifs_info", {"1", 'a "b"\n'})


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9469", ("127.0.0.1", 9469)),
        (":1", ("127.0.0.1", 1)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("[::1]:5", ("::1", 5)),
        ("[::1]", ("::1", 9469)),
        ("localhost", ("localhost", 9469)),
        ("127.0.0.2", ("127.0.0.2", 9469)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["x", "1.2.3:4", "127.0.0.1:65536", "127.0.0.1:x", ":", "http://127.0.0.1:1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="invalid listen address"):
        parse_address(text)


def test_the_page_and_the_dashboard_are_made_from_the_table() -> None:
    assert (REFERENCE / "metrics.md").read_text() == page()
    assert (REFERENCE / "grafana-dashboard.json").read_text() == dashboard()
    json.loads(dashboard())


def test_the_dashboard_asks_for_metrics_and_labels_that_there_are() -> None:
    labels = {name_in_text(metric): {*metric.labels, "instance"} for metric in METRICS}
    made = json.loads((REFERENCE / "grafana-dashboard.json").read_text())
    alerts = (REFERENCE.parent / "how-to/monitor-mounts.md").read_text()
    assert set(re.findall(r"\bocifs_[a-z_]+", alerts)) <= labels.keys() | {"ocifs_"}
    queries = [target["expr"] for panel in made["panels"] for target in panel["targets"]]
    assert {name for name in labels if not any(name in query for query in queries)} == set()
    for query in [
        *queries,
        *(item["query"] for item in made["templating"]["list"] if item["type"] == "query"),
    ]:
        used = re.findall(r"\bocifs_\w+", query)
        assert used and labels.keys() >= set(used), query
        expected = set(re.findall(r"(\w+)=~", query)) | set(re.findall(r"by \((\w+)\)", query))
        assert all(expected <= labels[name] for name in used if "group_left" not in query), query


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:9469", True),
        ("127.9.9.9", True),
        ("[::1]:9469", True),
        ("localhost:1", True),
        ("LOCALHOST", True),
        ("rebind.example.com", False),
        ("localhost.example.com:9469", False),
        ("127.0.0.1.example.com", False),
        ("127.0.0.1:9469@example.com", False),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("[::1", False),
        ("", False),
    ],
)
def test_at_loopback_metrics_are_asked_for_by_its_own_names(host: str, allowed: bool) -> None:
    headers = [(b"Accept", b"*/*"), (b"hOsT", host.encode())]
    assert (
        _is_host_allowed("127.0.0.1", headers)
        == _is_host_allowed("::1", headers)
        == _is_host_allowed("::ffff:127.0.0.1", headers)
        == allowed
    )
    assert _is_host_allowed(
        "192.0.2.1", headers
    )  # there a scraper may use any name that leads there
    assert _is_host_allowed("127.0.0.1", [])  # HTTP/1.0, which no browser speaks
