"""containerd's `hosts.toml`: the hosts that may serve a registry's content (containerd
docs/hosts.md).

    DIRECTORY/registry.example.com_5000_/hosts.toml     or registry.example.com:5000, or _default

    server = "https://registry.example.com"             the registry itself, tried last
    [host."https://mirror.example.com"]
      capabilities = ["pull"]                           pull: by digest; resolve: tags
      ca, client, skip_verify, header, override_path, dial_timeout, proxy

Called by `RouteTable` in worker threads. Everything except `load` is pure.

- Hosts are tried in the order of the file.
- A host other than the registry itself is sent the registry's name (`ns`).
- A directory with an empty hosts.toml, or with none, has the registry's `*.crt`, `*.cert` and
  `*.key`, as in docker.
- An error names file and key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from ocifs.errors import UsageError
from ocifs.oci.reference import DOCKER_HUB, is_host, normal_host
from ocifs.registry.config.endpoint import ROOT, Endpoint, Route, with_plain_fallback
from ocifs.registry.config.toml import TomlTable, read_text, redacted

FILE = "hosts.toml"
_CAPABILITIES = frozenset({"pull", "resolve", "push", "referrers"})
# Go's time.ParseDuration: both micro signs are in use.
_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 0.001,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_ONE = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h)"
_DURATION = re.compile(r"(?P<number>[0-9.]+)(?P<unit>[a-zµμ]+)")
_DURATION_LENGTH = 100


@dataclass(frozen=True, slots=True)
class HostEntry:
    """A host that may serve a registry's content."""

    endpoint: Endpoint
    by_tag: bool = True
    by_digest: bool = True
    own: bool = False

    def route(self, repository: str) -> Route:
        """The route for a repository."""
        return Route(self.endpoint, repository, self.by_tag, self.by_digest, self.own)


def directories_of(root: Path, host: str) -> tuple[Path, ...]:
    """The directories for a registry, of which the first that exists is used."""
    name, colon, port = host.rpartition(":")
    names = [f"{name}_{port}_", host] if colon and port.isdigit() else [host]
    return tuple(root / directory for directory in (*names, "_default"))


def load(root: Path, host: str) -> tuple[HostEntry, ...]:
    """The hosts for a registry, itself last; empty without a configuration.

    Raises UsageError. Blocks on disk.
    """
    for directory in directories_of(root, host):
        if directory.is_dir():
            try:
                text = read_text(directory / FILE)
            except FileNotFoundError:
                text = ""
            # containerd treats an empty file like a missing one.
            return parse(text, directory / FILE, host) if text else _certificates(directory, host)
    return ()


def parse(text: str, file: Path, host: str) -> tuple[HostEntry, ...]:
    """Parse the file of the registry `host`. Raises UsageError."""
    top = TomlTable.parse(text, str(file))
    hosts = top.table("host")
    entries = []
    for url in hosts.values:
        entries += _entries(hosts.table(url), url, file.parent, host)
    server = top.text("server")
    own = _entries(top, server, file.parent, host) if server else _default(top, file.parent, host)
    return (*entries, *(replace(entry, own=True) for entry in own))


def _default(table: TomlTable, directory: Path, host: str) -> list[HostEntry]:
    """The registry itself, if the file has no `server`."""
    endpoint = replace(_endpoint(table, directory), host=host)
    return [HostEntry(endpoint, *_capabilities(table))]


def _entries(table: TomlTable, url: str, directory: Path, host: str) -> list[HostEntry]:
    try:
        # As in containerd, which looks at these four letters alone.
        parts = urlsplit(url if url.startswith("http") else f"https://{url}")
        valid = parts.scheme in ("http", "https") and is_host(parts.netloc)
    except ValueError:
        valid = False
    if not valid:
        path = redacted(table.path)
        location = f"{table.file}: {path}" if table.path else table.location("server")
        raise UsageError(f"{location} is not a registry address")
    name = normal_host(parts.netloc)
    path = parts.path.rstrip("/")
    root = path if table.flag("override_path") or path.endswith(ROOT) else path + ROOT
    endpoint = replace(
        _endpoint(table, directory),
        host=name,
        scheme="" if name == DOCKER_HUB else parts.scheme,
        root=root,
        namespace=host if name != host else "",
    )
    tls = table.flag("skip_verify") or bool(endpoint.authorities or endpoint.identities)
    # As in containerd: an http URL with TLS settings is tried with TLS first.
    insecure = parts.scheme == "http" and tls and parts.port != 80
    endpoints = with_plain_fallback(endpoint) if insecure else (endpoint,)
    return [HostEntry(endpoint, *_capabilities(table)) for endpoint in endpoints]


def _endpoint(table: TomlTable, directory: Path) -> Endpoint:
    return Endpoint(
        "",
        unverified=table.flag("skip_verify"),
        authorities=tuple(directory / path for path in table.texts("ca")),
        identities=_identities(table, directory),
        headers=_headers(table.table("header")),
        connect_timeout=_duration(table, "dial_timeout"),
        proxy=table.proxy(),
    )


def _capabilities(table: TomlTable) -> tuple[bool, bool]:
    """Whether the host resolves tags, and whether it serves content by digest."""
    names = {name.lower() for name in table.texts("capabilities")}
    if not names <= _CAPABILITIES:
        unknown = sorted(names - _CAPABILITIES)[0]
        problem = f"has an unknown capability: {unknown!r}; write pull, resolve or push"
        raise table.error("capabilities", problem)
    # As in containerd, a host without capabilities has all of them.
    return ("resolve" in names, "pull" in names) if names else (True, True)


def _identities(table: TomlTable, directory: Path) -> tuple[tuple[Path, Path | None], ...]:
    value = table.values.get("client", [])
    values = [value] if isinstance(value, str) else value if isinstance(value, list) else [None]
    identities: list[tuple[Path, Path | None]] = []
    for item in values:
        pair = [item, ""] if isinstance(item, str) else item
        if (
            not isinstance(pair, list)
            or len(pair) != 2
            or not all(isinstance(path, str) for path in pair)
        ):
            problem = "is neither a path nor a list of paths or of pairs [certificate, key]"
            raise table.error("client", problem)
        identities.append((directory / pair[0], directory / pair[1] if pair[1] else None))
    return tuple(identities)


def _headers(table: TomlTable) -> tuple[tuple[str, str], ...]:
    headers = []
    for name in table.values:
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
            raise table.error(repr(name)[:60], "is not a header name")
        value = ", ".join(table.texts(name))  # as in RFC 9110, 5.3
        # A line break in a value would begin another header.
        if not value.isprintable() or not value.isascii():
            raise table.error(name, "is not a header value")
        headers.append((name, value))
    return tuple(headers)


def _duration(table: TomlTable, key: str) -> float | None:
    """The seconds of a duration in Go's notation: `1s`, `500ms`, `1m30s`."""
    text = table.text(key)
    if not text:
        return None
    if len(text) > _DURATION_LENGTH or re.fullmatch(f"(?:{_ONE})+", text) is None:
        raise table.error(key, f"({text[:_DURATION_LENGTH]}) is not a duration such as 1s or 500ms")
    seconds = sum(
        float(match["number"]) * _SECONDS[match["unit"]] for match in _DURATION.finditer(text)
    )
    return seconds or None  # in Go, zero means no timeout of its own


def _certificates(directory: Path, host: str) -> tuple[HostEntry, ...]:
    authorities = tuple(sorted(directory.glob("*.crt")))
    certificates = sorted(directory.glob("*.cert"))
    identities = tuple((path, path.with_suffix(".key")) for path in certificates)
    if not authorities and not identities:
        return ()
    return (HostEntry(Endpoint(host, authorities=authorities, identities=identities), own=True),)
