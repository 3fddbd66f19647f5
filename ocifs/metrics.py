"""What a mount says of itself in numbers, for Prometheus: which metrics there are, and their text.

Rules that hold here: the table is the documentation (scripts/generate_metrics.py writes
docs/reference/metrics.md from it); every number is one of status.json's, read from the same status
at the same look, so that the two never differ; labels are of a bounded set: hosts of the mount,
kinds of operation, names of errnos. No digest, no repository, no path is ever a label.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ocifs.errors import UsageError

DEFAULT_PORT = 9469
StatusData: TypeAlias = Mapping[str, object]
Sample: TypeAlias = tuple[tuple[str, ...], float]
"""Labels' values, and the number."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: `kind` is counter or gauge, `values` finds its numbers in a status."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]
    values: Callable[[StatusData], Iterator[Sample]]


def _counts(field: str) -> Callable[[StatusData], Iterator[Sample]]:
    """A number for each name in a table of the status."""

    def values(status: StatusData) -> Iterator[Sample]:
        table = status.get(field)
        for name, number in table.items() if isinstance(table, Mapping) else ():
            yield (str(name),), float(number)

    return values


def _top(field: str, within: str = "") -> Callable[[StatusData], Iterator[Sample]]:
    """One number of the status, or of a table in it."""

    def values(status: StatusData) -> Iterator[Sample]:
        table = status.get(within) if within else status
        number = table.get(field) if isinstance(table, Mapping) else None
        if isinstance(number, int | float):
            yield (), float(number)

    return values


def _registry(field: str) -> Callable[[StatusData], Iterator[Sample]]:
    """A number of each registry; truth is 1, what is not known yet is left out."""

    def values(status: StatusData) -> Iterator[Sample]:
        registries = status.get("registries")
        for registry in registries if isinstance(registries, list) else ():
            number = registry.get(field)
            if isinstance(number, int | float):
                yield (str(registry.get("host")),), float(number)

    return values


def _info(status: StatusData) -> Iterator[Sample]:
    yield (str(status.get("version")), str(status.get("source"))), 1.0


_HOST = ("host",)
METRICS = (
    Metric(
        "ocifs_info", "gauge", "Always 1; which ocifs serves what.", ("version", "source"), _info
    ),
    Metric(
        "ocifs_start_time_seconds",
        "gauge",
        "Unix time at which the mount was made.",
        (),
        _top("started"),
    ),
    Metric(
        "ocifs_operations",
        "counter",
        "Operations that the kernel asked for.",
        ("operation",),
        _counts("operations"),
    ),
    Metric(
        "ocifs_operation_seconds",
        "counter",
        "Seconds that callers waited for operations, in all; over ocifs_operations_total it is their mean.",
        ("operation",),
        _counts("operation_seconds"),
    ),
    Metric(
        "ocifs_errors",
        "counter",
        "Errors that callers got, without ENOENT of absent names.",
        ("errno",),
        _counts("errors"),
    ),
    Metric(
        "ocifs_bugs",
        "counter",
        "Errors that nobody thought of; each is a bug.",
        (),
        _top("unexpected"),
    ),
    Metric(
        "ocifs_read_bytes", "counter", "Bytes that were given to readers.", (), _top("bytes_read")
    ),
    Metric(
        "ocifs_registry_reachable",
        "gauge",
        "Whether the last question was answered: 1 or 0.",
        _HOST,
        _registry("reachable"),
    ),
    Metric(
        "ocifs_registry_stale",
        "gauge",
        "Whether names are shown as they last were: 1 or 0.",
        _HOST,
        _registry("stale"),
    ),
    Metric(
        "ocifs_registry_questions",
        "counter",
        "Questions to the registry.",
        _HOST,
        _registry("questions"),
    ),
    Metric(
        "ocifs_registry_failures",
        "counter",
        "Questions that got no answer.",
        _HOST,
        _registry("failures"),
    ),
    Metric(
        "ocifs_registry_received_bytes",
        "counter",
        "Bytes of blobs that came.",
        _HOST,
        _registry("bytes_received"),
    ),
    Metric(
        "ocifs_registry_fetches",
        "gauge",
        "Ranges of blobs on their way.",
        _HOST,
        _registry("fetches"),
    ),
    Metric(
        "ocifs_cache_bytes", "gauge", "What the cache takes on its disk.", (), _top("size", "cache")
    ),
    Metric("ocifs_cache_limit_bytes", "gauge", "What it may take.", (), _top("limit", "cache")),
)


def parse_address(text: str) -> tuple[str, int]:
    """Where to serve: `HOST:PORT`, `:PORT` or `PORT` (both on loopback), `HOST`.

    Raises UsageError.
    """
    host, colon, port = ("", ":", text) if text.isdigit() else text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(DEFAULT_PORT)
    host = host.strip("[]") or "127.0.0.1"
    if not (_is_address(host) and port.isdigit() and int(port) <= 65535):
        raise UsageError(
            f"{text} is no address to serve at", hint="write 127.0.0.1:9469, [::1]:9469 or 9469"
        )
    return host, int(port)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True


def exposition(status: StatusData) -> bytes:
    """The metrics of a status in Prometheus' text format 0.0.4."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.metrics_core import Metric as Family
    from prometheus_client.registry import Collector

    class _Status(Collector):
        def collect(self) -> Iterator[Family]:
            for metric in METRICS:
                kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
                family = kind(metric.name, metric.help, labels=metric.labels)
                for labels, number in metric.values(status):
                    family.add_metric(labels, number)
                yield family

    registry = CollectorRegistry()
    registry.register(_Status())
    return generate_latest(registry)


def name_in_text(metric: Metric) -> str:
    """A metric's name as it is scraped."""
    return f"{metric.name}_total" if metric.kind == "counter" else metric.name
