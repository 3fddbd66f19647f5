"""containerd's `hosts.toml`: for a registry, the hosts that may answer in its place, and what each
may be asked (containerd docs/hosts.md).

    DIRECTORY/registry.example.com_5000_/hosts.toml     or registry.example.com:5000, or _default

    server = "https://registry.example.com"             the registry itself, asked last
    [host."https://mirror.example.com"]
      capabilities = ["pull"]                           pull: by digest; resolve: what tags mean
      ca, client, skip_verify, header, override_path, dial_timeout, proxy

Where a directory has no hosts.toml, or an empty one, its `*.crt`, `*.cert` and `*.key` are the
registry's, as docker has them.

Rules that hold here: all but `load` is pure; hosts are asked in the order in which they stand; one
that is not the registry itself is told which registry it stands in for (`ns`); an error names file
and key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from ocifs.errors import UsageError
from ocifs.oci.reference import DOCKER_HUB, is_host, normal_host
from ocifs.registry.config.endpoint import ROOT, Endpoint, Route, with_a_fallback
from ocifs.registry.config.toml import TomlTable, read_text, shown

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
    """A place that may answer for a registry."""

    site: Endpoint
    by_tag: bool = True
    by_digest: bool = True
    own: bool = False

    def endpoint(self, repository: str) -> Route:
        """It, asked about a repository."""
        return Route(self.site, repository, self.by_tag, self.by_digest, self.own)


def directories_of(root: Path, host: str) -> tuple[Path, ...]:
    """Where the hosts of a registry may stand, in the order in which they are looked for."""
    name, colon, port = host.rpartition(":")
    names = [f"{name}_{port}_", host] if colon and port.isdigit() else [host]
    return tuple(root / each for each in (*names, "_default"))


def load(root: Path, host: str) -> tuple[HostEntry, ...]:
    """The hosts for a registry, itself last; none where nothing is said of it.

    Raises UsageError. Blocks on disk.
    """
    for directory in directories_of(root, host):
        if directory.is_dir():
            try:
                text = read_text(directory / FILE)
            except FileNotFoundError:
                text = ""
            # containerd takes an empty file for none.
            return parse(text, directory / FILE, host) if text else _certificates(directory, host)
    return ()


def parse(text: str, file: Path, host: str) -> tuple[HostEntry, ...]:
    """Read one file for the registry `host`. Raises UsageError."""
    top = TomlTable.parse(text, str(file))
    listed = top.table("host")
    found = []
    for url in listed.values:
        found += _hosts(listed.table(url), url, file.parent, host)
    server = top.text("server")
    own = _hosts(top, server, file.parent, host) if server else _plain(top, file.parent, host)
    return (*found, *(replace(each, own=True) for each in own))


def _plain(table: TomlTable, directory: Path, host: str) -> list[HostEntry]:
    """The registry itself where no `server` is named."""
    site = replace(_site(table, directory), host=host)
    return [HostEntry(site, *_capabilities(table))]


def _hosts(table: TomlTable, url: str, directory: Path, host: str) -> list[HostEntry]:
    try:
        parts = urlsplit(url if url.startswith("http") else f"https://{url}")
        fits = parts.scheme in ("http", "https") and is_host(parts.netloc)
    except ValueError:
        fits = False
    if not fits:
        where = table.place("server") if not table.path else f"{table.file}: {shown(table.path)}"
        raise UsageError(f"{where} is no address of a registry")
    there = normal_host(parts.netloc)
    path = parts.path.rstrip("/")
    root = path if table.flag("override_path") or path.endswith(ROOT) else path + ROOT
    site = replace(
        _site(table, directory),
        host=there,
        scheme="" if there == DOCKER_HUB else parts.scheme,
        root=root,
        namespace=host if there != host else "",
    )
    tls = table.flag("skip_verify") or bool(site.authorities or site.identities)
    # As in containerd: what is written with http and has settings of TLS is tried with TLS first.
    sites = (
        with_a_fallback(site) if parts.scheme == "http" and tls and parts.port != 80 else (site,)
    )
    return [HostEntry(each, *_capabilities(table)) for each in sites]


def _site(table: TomlTable, directory: Path) -> Endpoint:
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
    """Whether it may be asked by tag, and by digest."""
    named = {each.lower() for each in table.texts("capabilities")}
    if not named <= _CAPABILITIES:
        raise table.wrong(
            "capabilities",
            f"has {sorted(named - _CAPABILITIES)[0]!r}; there are pull, resolve and push",
        )
    return ("resolve" in named, "pull" in named) if named else (True, True)


def _identities(table: TomlTable, directory: Path) -> tuple[tuple[Path, Path | None], ...]:
    value = table.values.get("client", [])
    found: list[tuple[Path, Path | None]] = []
    for each in [value] if isinstance(value, str) else value if isinstance(value, list) else [None]:
        pair = [each, ""] if isinstance(each, str) else each
        if (
            not isinstance(pair, list)
            or len(pair) != 2
            or not all(isinstance(path, str) for path in pair)
        ):
            raise table.wrong(
                "client", "is neither a path nor a list of paths or of pairs [certificate, key]"
            )
        found.append((directory / pair[0], directory / pair[1] if pair[1] else None))
    return tuple(found)


def _headers(table: TomlTable) -> tuple[tuple[str, str], ...]:
    found = []
    for name in table.values:
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
            raise table.wrong(repr(name)[:60], "is no name of a header")
        value = ", ".join(table.texts(name))  # as RFC 9110, 5.3 joins them
        if not value.isprintable() or not value.isascii():
            raise table.wrong(name, "is no value of a header")
        found.append((name, value))
    return tuple(found)


def _duration(table: TomlTable, key: str) -> float | None:
    """Seconds from a duration as Go writes it: `1s`, `500ms`, `1m30s`."""
    text = table.text(key)
    if not text:
        return None
    if len(text) > _DURATION_LENGTH or re.fullmatch(f"(?:{_ONE})+", text) is None:
        raise table.wrong(key, f"({text[:_DURATION_LENGTH]}) is not a duration such as 1s or 500ms")
    seconds = sum(
        float(match["number"]) * _SECONDS[match["unit"]] for match in _DURATION.finditer(text)
    )
    return seconds or None  # in Go no time is no limit of its own


def _certificates(directory: Path, host: str) -> tuple[HostEntry, ...]:
    authorities = tuple(sorted(directory.glob("*.crt")))
    identities = tuple(
        (path, path.with_suffix(".key")) for path in sorted(directory.glob("*.cert"))
    )
    if not authorities and not identities:
        return ()
    return (HostEntry(Endpoint(host, authorities=authorities, identities=identities), own=True),)
