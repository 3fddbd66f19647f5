"""containers-registries.conf(5), version 2: locations and mirrors of registries, and short names.

    [[registry]]           prefix, location, insecure, blocked, proxy, mirror-by-digest-only
    [[registry.mirror]]    location, insecure, proxy, pull-from-mirror
    credential-helpers = ["containers-auth.json", "secretservice"]
    [aliases]              "short" = "registry.example.com/namespace/image"

Called from worker threads (`load`, `expand`) and from the event loop (everything else, which is
pure).

- Of several prefixes that match a name the longest decides; of two equal ones in a file the first.
- An invalid entry fails only the names that it matches. The message names file and key.
- Mirrors serve manifests and blobs, never lists.
- Files of version 1 are read for `registries.insecure` and `registries.block`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ocifs.directories import cache_home, config_home
from ocifs.errors import AccessDenied, UsageError
from ocifs.oci.local import is_local
from ocifs.oci.reference import is_host, is_repository, is_short_name, normal_host
from ocifs.registry.config.endpoint import Endpoint, Route, with_plain_fallback
from ocifs.registry.config.short_names import ShortNames, merge_short_names, read_short_names
from ocifs.registry.config.toml import TomlTable, read_text, redacted

_VERSION = re.compile(r"(?::[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127})?(?:@[a-z0-9+._-]+:[0-9a-fA-F]+)?")
_FROM_MIRROR = {
    "": (True, True),
    "all": (True, True),
    "digest-only": (False, True),
    "tag-only": (True, False),
}


@dataclass(frozen=True, slots=True)
class MirrorRule:
    """One `[[registry.mirror]]`."""

    location: str
    insecure: bool = False
    by_tag: bool = True
    by_digest: bool = True
    proxy: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class RegistryRule:
    """One `[[registry]]`: the settings for names that begin with `prefix`.

    `location` is empty if names are not rewritten. `problem`: the message for an invalid table,
    which fails each name that it matches.
    """

    prefix: str
    location: str = ""
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[MirrorRule, ...] = ()
    file: str = ""
    proxy: str = field(default="", repr=False)
    problem: str = ""
    version_1: bool = False


@dataclass(frozen=True, slots=True)
class RegistriesConf:
    """The contents of all files.

    `credential_helpers`: the credential sources in order; empty: the files alone.
    """

    rules: Mapping[str, RegistryRule] = field(default_factory=dict)
    names: ShortNames = field(default_factory=ShortNames)
    credential_helpers: tuple[str, ...] = ()

    def expand(self, text: str) -> str:
        """A reference with its host, if it is a short name that needs one. Raises UsageError."""
        return self.names.expand(text)

    def problems(self) -> list[str]:
        """The messages about invalid entries."""
        rules = [rule.problem for rule in self.rules.values() if rule.problem]
        return [*rules, *self.names.problems.values()]

    def rule_for(self, name: str) -> RegistryRule | None:
        """The rule for `host[/repository][:tag|@digest]`."""
        rules = self.rules.values()
        matching = [rule for rule in rules if matched_length(rule.prefix, name) is not None]
        return max(matching, key=lambda rule: len(rule.prefix), default=None)

    def has_mirrors(self, host: str) -> bool:
        """Whether a mirror may serve any part of a registry."""
        return any(rule.mirrors and _is_about(rule.prefix, host) for rule in self.rules.values())


def parse(text: str, file: str) -> RegistriesConf:
    """Parse one file. Raises UsageError for a file that is unusable as a whole."""
    top = TomlTable.parse(text, file)
    rules: dict[str, RegistryRule] = {}
    for table in top.tables("registry"):
        rule = _rule(table)
        rules.setdefault(rule.prefix, rule)  # of two tables with one prefix podman takes the first
    names = read_short_names(top)
    version_1 = _version_1(top)
    # podman rejects such a file as well.
    if version_1 and (rules or names.search):
        raise UsageError(f"{file}: version 1 (registries) and version 2 are mixed")
    return RegistriesConf({**version_1, **rules}, names, top.texts("credential-helpers"))


def merge(first: RegistriesConf, second: RegistriesConf) -> RegistriesConf:
    """Two files, read one after the other.

    The second replaces rules with the same prefix and aliases with the same name.
    """
    helpers = second.credential_helpers or first.credential_helpers
    return RegistriesConf(
        {**first.rules, **second.rules}, merge_short_names(first.names, second.names), helpers
    )


def files(environ: Mapping[str, str], named: Path | None = None) -> tuple[Path, tuple[Path, ...]]:
    """The main file, and the directories whose `*.conf` are read after it.

    `named`: the file of the command line, which excludes all others.
    """
    if named is not None:
        return named, ()
    own = config_home(environ) / "containers/registries.conf"
    system = Path("/etc/containers/registries.conf")
    variable = environ.get("CONTAINERS_REGISTRIES_CONF")
    # As in podman: a user's own file replaces that of the system, with its drop-ins.
    if not variable and own.exists():
        return own, (_drop_ins(own),)
    return Path(variable) if variable else system, (_drop_ins(system), _drop_ins(own))


def load(environ: Mapping[str, str], named: Path | None = None) -> RegistriesConf:
    """Read this machine's files. A missing file is empty, unless the user named it.

    Raises UsageError. Blocks on disk.
    """
    main, directories = files(environ, named)
    conf = RegistriesConf()
    try:
        conf = merge(conf, parse(read_text(main), str(main)))
    except FileNotFoundError:
        if named is not None or environ.get("CONTAINERS_REGISTRIES_CONF"):
            raise UsageError(f"no such file: {main}") from None
    for directory in directories:
        for path in sorted(path for path in directory.glob("*.conf") if path.is_file()):
            conf = merge(conf, _drop_in(path))
    if named is None:
        with contextlib.suppress(FileNotFoundError):
            path = own_aliases(environ)
            own = read_short_names(TomlTable.parse(read_text(path), str(path)))
            # podman reads this file first, and only the aliases in it.
            own = replace(own, search=(), location="", mode="")
            conf = replace(conf, names=merge_short_names(conf.names, own))
    return conf


def expand(text: str, environ: Mapping[str, str], named: Path | None = None) -> str:
    """A source with its host, if it is a short name. Other sources need no files.

    Raises UsageError. Blocks on disk.
    """
    if is_local(text) or ("/" in text and not is_short_name(text)):
        return text
    return load(environ, named).expand(text)


def own_aliases(environ: Mapping[str, str]) -> Path:
    """The file in which podman stores the user's choices for short names."""
    base = Path("/var/cache") if os.getuid() == 0 else cache_home(environ)
    return base / "containers" / "short-name-aliases.conf"


def _drop_in(path: Path) -> RegistriesConf:
    conf = parse(read_text(path), str(path))
    # podman accepts only version 2 in drop-in files as well.
    if any(rule.version_1 for rule in conf.rules.values()):
        raise UsageError(f"{path}: version 1 (registries) in a drop-in file; use version 2")
    return conf


def routes_for(
    conf: RegistriesConf, host: str, repository: str, version: str = ""
) -> tuple[Route, ...]:
    """The routes for a repository, in the order of use, the registry itself last.

    `version`: `:tag` or `@digest`, if known. An empty repository means the catalog: then the
    repository of a route is the namespace there that represents the registry.

    Raises AccessDenied for a blocked registry, UsageError for an invalid rule.
    """
    name = f"{host}/{repository}{version}" if repository else host
    rule = conf.rule_for(name)
    if rule is None:
        return (Route(Endpoint(host), repository),)
    if rule.problem:
        hint = "correct the file, or name another with --registries-conf"
        raise UsageError(rule.problem, hint=hint)
    if rule.blocked:
        raise AccessDenied(f"{name} is blocked by {rule.file} (prefix {rule.prefix})")
    end = matched_length(rule.prefix, name)
    assert end is not None
    rest = name[end : len(name) - len(version)]
    routes = []
    # An incomplete mirror would hide entries of a list (docs/decisions/0070).
    for mirror in rule.mirrors if repository else ():
        for endpoint, path in _endpoints(mirror.location + rest, mirror.insecure, mirror.proxy):
            routes.append(Route(endpoint, path, mirror.by_tag, mirror.by_digest, own=False))
    location = rule.location + rest if rule.location else name[: len(name) - len(version)]
    own = _endpoints(location, rule.insecure, rule.proxy)
    return (*routes, *(Route(endpoint, path) for endpoint, path in own))


def matched_length(prefix: str, name: str) -> int | None:
    """The length of the part of a name that a prefix matches; None without a match."""
    if prefix.startswith("*."):
        host = name.partition("/")[0].partition(":")[0]
        matches = host.endswith(prefix[1:]) and len(host) > len(prefix) - 1
        return len(host) if matches else None
    if not name.startswith(prefix):
        return None
    following = name[len(prefix) : len(prefix) + 1]
    # `example.com` does not match `example.com:5000`, which is another registry.
    return len(prefix) if following in ("", "/") or (following in ":@" and "/" in prefix) else None


def _is_about(prefix: str, host: str) -> bool:
    """Whether a prefix matches names of a host."""
    return matched_length(prefix, host) is not None or prefix.partition("/")[0] == host


def _drop_ins(main: Path) -> Path:
    return main.with_name(f"{main.name}.d")


def _endpoints(location: str, insecure: bool, proxy: str) -> Iterator[tuple[Endpoint, str]]:
    host, _, repository = location.partition("/")
    endpoint = Endpoint(normal_host(host), proxy=proxy)
    for candidate in with_plain_fallback(endpoint) if insecure else (endpoint,):
        yield candidate, repository


def _rule(table: TomlTable) -> RegistryRule:
    """The rule in one table. An invalid value becomes the `problem` of the rule.

    Raises UsageError if the prefix is unknown, since then so are the names that it matches.
    """
    location = table.text("location").rstrip("/")
    prefix = table.text("prefix").rstrip("/") or location
    if not prefix:
        raise table.error("location", "is missing, and so is prefix")
    key = "prefix" if table.text("prefix") else "location"
    invalid = table.error(key, f"({redacted(prefix)}) is not a host with a namespace")
    wildcard = prefix.startswith("*.") and is_host(prefix[2:]) and ":" not in prefix
    if "://" in prefix or ("*" in prefix and not wildcard):
        raise invalid
    try:
        if not wildcard and not _is_location(prefix, version=True):
            raise invalid
        return _valid_rule(table, prefix, location or ("" if wildcard else prefix))
    except UsageError as error:
        return RegistryRule(prefix, file=table.file, problem=str(error))


def _valid_rule(table: TomlTable, prefix: str, location: str) -> RegistryRule:
    if location and not _is_location(location, version=True):
        raise table.error("location", f"({redacted(location)}) is not a host with a namespace")
    version = _version_of(location)
    if version != _version_of(prefix) and version:
        raise table.error(
            "location", f"({redacted(location)}) has another tag or digest than prefix"
        )
    by_digest_only = table.flag("mirror-by-digest-only")
    mirrors = tuple(_mirror(mirror, by_digest_only) for mirror in table.tables("mirror"))
    return RegistryRule(
        prefix,
        location.removesuffix(version),
        table.flag("insecure"),
        table.flag("blocked"),
        mirrors,
        table.file,
        table.proxy(),
    )


def _mirror(table: TomlTable, by_digest_only: bool) -> MirrorRule:
    location = table.text("location").rstrip("/")
    if not _is_location(location):
        raise table.error("location", f"({redacted(location)}) is not a host with a namespace")
    key = "pull-from-mirror"
    kind = table.text(key)
    if kind not in _FROM_MIRROR:
        raise table.error(key, f"({kind}) is not one of all, digest-only, tag-only")
    # podman rejects this combination as well.
    if kind and by_digest_only:
        raise table.error(key, "cannot be combined with mirror-by-digest-only")
    by_tag, by_digest = (False, True) if by_digest_only else _FROM_MIRROR[kind]
    return MirrorRule(location, table.flag("insecure"), by_tag, by_digest, table.proxy())


def _is_location(text: str, *, version: bool = False) -> bool:
    """Whether a text is `host[:port][/namespace…]`; with `version` a tag or digest may follow."""
    host, slash, path = text.partition("/")
    if version and slash:
        path = path[: len(path) - len(_version_of(text))]
    return is_host(host) and (is_repository(path) if slash else True)


def _version_of(text: str) -> str:
    """The tag and digest at the end of a name with a repository."""
    last = text[text.find("/") + 1 :] if "/" in text else ""
    positions = (last.find(":"), last.find("@"))
    cut = min((position for position in positions if position >= 0), default=len(last))
    return last[cut:] if _VERSION.fullmatch(last[cut:]) else ""


def _version_1(top: TomlTable) -> dict[str, RegistryRule]:
    table = top.table("registries")
    hosts = {key: table.table(key).texts("registries") for key in ("insecure", "block", "search")}
    rules = {}
    for host in dict.fromkeys((*hosts["insecure"], *hosts["block"])):
        if not _is_location(host):
            key = "insecure" if host in hosts["insecure"] else "block"
            raise table.error(key, f"has {host!r}, which is not a host")
        rules[host] = RegistryRule(
            host,
            host,
            insecure=host in hosts["insecure"],
            blocked=host in hosts["block"],
            file=top.file,
            version_1=True,
        )
    return rules
