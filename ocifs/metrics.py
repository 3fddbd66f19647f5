"""The metrics of a mount for Prometheus, and their text format.

`scrape` calls `exposition` on the event loop for each request.

Rules that hold here:

- The table METRICS is also the documentation: scripts/generate_metrics.py writes
  docs/reference/metrics.md from it.
- Every number is one of status.json, so that the two never differ.
- The values of labels are bounded: hosts of the mount, operations, names of errnos. Digests,
  repositories and paths are never labels.
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
"""The values of the labels, and the number."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `kind`: counter or gauge. `values`: extracts the samples from a status."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]
    values: Callable[[StatusData], Iterator[Sample]]


def _counts(field: str) -> Callable[[StatusData], Iterator[Sample]]:
    """One sample for each entry of a table in the status."""

    def values(status: StatusData) -> Iterator[Sample]:
        table = status.get(field)
        for name, number in table.items() if isinstance(table, Mapping) else ():
            yield (str(name),), float(number)

    return values


def _top(field: str, within: str = "") -> Callable[[StatusData], Iterator[Sample]]:
    """One number of the status, or of the table `within` it."""

    def values(status: StatusData) -> Iterator[Sample]:
        table = status.get(within) if within else status
        number = table.get(field) if isinstance(table, Mapping) else None
        if isinstance(number, int | float):
            yield (), float(number)

    return values


def _registry(field: str) -> Callable[[StatusData], Iterator[Sample]]:
    """One number for each registry. True is 1; unknown values are left out."""

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
        "ocifs_info",
        "gauge",
        "Always 1. The labels are the version of ocifs and the source.",
        ("version", "source"),
        _info,
    ),
    Metric(
        "ocifs_start_time_seconds",
        "gauge",
        "Unix time of the mount.",
        (),
        _top("started"),
    ),
    Metric(
        "ocifs_operations",
        "counter",
        "Requests from the kernel.",
        ("operation",),
        _counts("operations"),
    ),
    Metric(
        "ocifs_operation_seconds",
        "counter",
        "Total seconds of operations. Divide by ocifs_operations_total for the mean.",
        ("operation",),
        _counts("operation_seconds"),
    ),
    Metric(
        "ocifs_errors",
        "counter",
        "Errors returned to callers, without ENOENT for absent names.",
        ("errno",),
        _counts("errors"),
    ),
    Metric(
        "ocifs_bugs",
        "counter",
        "Unexpected errors. Each is a bug of ocifs.",
        (),
        _top("unexpected"),
    ),
    Metric("ocifs_read_bytes", "counter", "Bytes returned to readers.", (), _top("bytes_read")),
    Metric(
        "ocifs_registry_reachable",
        "gauge",
        "1 if the last request was answered, else 0.",
        _HOST,
        _registry("reachable"),
    ),
    Metric(
        "ocifs_registry_stale",
        "gauge",
        "1 if cached names are shown because the registry fails, else 0.",
        _HOST,
        _registry("stale"),
    ),
    Metric(
        "ocifs_registry_questions",
        "counter",
        "Requests to the registry.",
        _HOST,
        _registry("questions"),
    ),
    Metric(
        "ocifs_registry_failures",
        "counter",
        "Requests without a response.",
        _HOST,
        _registry("failures"),
    ),
    Metric(
        "ocifs_registry_received_bytes",
        "counter",
        "Bytes of blobs received.",
        _HOST,
        _registry("bytes_received"),
    ),
    Metric(
        "ocifs_registry_fetches",
        "gauge",
        "Active fetches of ranges of blobs.",
        _HOST,
        _registry("fetches"),
    ),
    Metric(
        "ocifs_cache_bytes", "gauge", "Size of the cache on its disk.", (), _top("size", "cache")
    ),
    Metric(
        "ocifs_cache_limit_bytes", "gauge", "Limit of the cache's size.", (), _top("limit", "cache")
    ),
)


def parse_address(text: str) -> tuple[str, int]:
    """Parse a listen address: `HOST:PORT`, `HOST`, `:PORT` or `PORT`, the last two on loopback.

    Raises UsageError.
    """
    host, colon, port = ("", ":", text) if text.isdigit() else text.rpartition(":")
    # The last colon of `[::1]` belongs to the address, not to a port.
    if not colon or text.endswith("]"):
        host, port = text, str(DEFAULT_PORT)
    host = host.strip("[]") or "127.0.0.1"
    if not (_is_address(host) and port.isdigit() and int(port) <= 65535):
        raise UsageError(
            f"invalid listen address: {text}", hint="write 127.0.0.1:9469, [::1]:9469 or 9469"
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
    # Imported here: every mount parses addresses by this module, but few serve metrics.
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
    """A metric's name in the text format."""
    # prometheus_client adds the suffix to the names of counters.
    return f"{metric.name}_total" if metric.kind == "counter" else metric.name
