"""containers-registries.conf(5), version 2: where the images of a registry really are, mirrors of
them, and names for short.

    [[registry]]           prefix, location, insecure, blocked, proxy, mirror-by-digest-only
    [[registry.mirror]]    location, insecure, proxy, pull-from-mirror
    credential-helpers = ["containers-auth.json", "secretservice"]
    [aliases]              "short" = "registry.example.com/namespace/image"

Called from worker threads (`load`) and from the event loop (everything else, which is pure).

- Of several prefixes that fit a name the longest decides; of two equal ones in a file the first.
- An entry that is wrong fails the names that it is about. The message names file and key.
- Mirrors are for manifests and blobs, never for lists.
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
from ocifs.registry.config.endpoint import Endpoint, Route, with_a_fallback
from ocifs.registry.config.short_names import ShortNames, merge_short_names, read_short_names
from ocifs.registry.config.toml import TomlTable, read_text, shown

_VERSION = re.compile(r"(?::[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127})?(?:@[a-z0-9+._-]+:[0-9a-fA-F]+)?")
_FROM_MIRROR = {
    "": (True, True),
    "all": (True, True),
    "digest-only": (False, True),
    "tag-only": (True, False),
}


@dataclass(frozen=True, slots=True)
class MirrorRule:
    """Another place for what is below a prefix."""

    location: str
    insecure: bool = False
    by_tag: bool = True
    by_digest: bool = True
    proxy: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class RegistryRule:
    """One `[[registry]]`: what holds for names that begin with `prefix`.

    `location` is empty where it is the name itself.
    """

    prefix: str
    location: str = ""
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[MirrorRule, ...] = ()
    file: str = ""
    proxy: str = field(default="", repr=False)
    wrong: str = ""  # why the table cannot be used: an error for each name that it is about
    version_1: bool = False


@dataclass(frozen=True, slots=True)
class RegistriesConf:
    """All files together."""

    rules: Mapping[str, RegistryRule] = field(default_factory=dict)
    names: ShortNames = field(default_factory=ShortNames)
    credential_helpers: tuple[
        str, ...
    ] = ()  # where credentials are looked for, in order; empty: in the files

    def expand(self, text: str) -> str:
        """A reference with its host, if it is a short name that needs one. Raises UsageError."""
        return self.names.expand(text)

    def problems(self) -> list[str]:
        """The messages about entries that cannot be used."""
        rules = [rule.wrong for rule in self.rules.values() if rule.wrong]
        return [*rules, *self.names.wrong.values()]

    def rule_for(self, name: str) -> RegistryRule | None:
        """The rule for `host[/repository][:tag|@digest]`."""
        fitting = [rule for rule in self.rules.values() if covered(rule.prefix, name) is not None]
        return max(fitting, key=lambda rule: len(rule.prefix), default=None)

    def has_mirrors(self, host: str) -> bool:
        """Whether anything of a registry may be answered by another one."""
        return any(rule.mirrors and _is_about(rule.prefix, host) for rule in self.rules.values())


def parse(text: str, file: str) -> RegistriesConf:
    """Read one file. Raises UsageError for a file that nothing can be taken from."""
    top = TomlTable.parse(text, file)
    rules: dict[str, RegistryRule] = {}
    for table in top.tables("registry"):
        rule = _rule(table)
        rules.setdefault(rule.prefix, rule)  # of two tables with one prefix podman takes the first
    names = read_short_names(top)
    old = _version_1(top)
    if old and (rules or names.search):
        raise UsageError(
            f"{file}: registries is of version 1, and the file has version 2 beside it"
        )
    return RegistriesConf({**old, **rules}, names, top.texts("credential-helpers"))


def merge(first: RegistriesConf, second: RegistriesConf) -> RegistriesConf:
    """Both files, read one after the other: rules of the same prefix and aliases of the same name
    are replaced.
    """
    helpers = second.credential_helpers or first.credential_helpers
    return RegistriesConf(
        {**first.rules, **second.rules}, merge_short_names(first.names, second.names), helpers
    )


def files(environ: Mapping[str, str], given: Path | None = None) -> tuple[Path, tuple[Path, ...]]:
    """The main file, and the directories whose `*.conf` are read after it.

    `given`: that file and nothing else.
    """
    if given is not None:
        return given, ()
    own = config_home(environ) / "containers/registries.conf"
    system = Path("/etc/containers/registries.conf")
    named = environ.get("CONTAINERS_REGISTRIES_CONF")
    if not named and own.exists():
        return own, (_drop_ins(own),)
    return Path(named) if named else system, (_drop_ins(system), _drop_ins(own))


def load(environ: Mapping[str, str], given: Path | None = None) -> RegistriesConf:
    """Read this machine's files; a file that does not exist is empty, unless it was named.

    Raises UsageError. Blocks on disk.
    """
    main, directories = files(environ, given)
    found = RegistriesConf()
    try:
        found = merge(found, parse(read_text(main), str(main)))
    except FileNotFoundError:
        if given is not None or environ.get("CONTAINERS_REGISTRIES_CONF"):
            raise UsageError(f"{main} is not there") from None
    for directory in directories:
        for path in sorted(path for path in directory.glob("*.conf") if path.is_file()):
            found = merge(found, _drop_in(path))
    if given is None:
        with contextlib.suppress(FileNotFoundError):
            path = own_aliases(environ)
            own = read_short_names(TomlTable.parse(read_text(path), str(path)))
            # podman asks this file first, and takes nothing but aliases from it.
            own = replace(own, search=(), place="", mode="")
            found = replace(found, names=merge_short_names(found.names, own))
    return found


def expand(text: str, environ: Mapping[str, str], given: Path | None = None) -> str:
    """A source with its host, if it is a short name. Reads files only for names that may be one.

    Raises UsageError. Blocks on disk.
    """
    if is_local(text) or ("/" in text and not is_short_name(text)):
        return text
    return load(environ, given).expand(text)


def own_aliases(environ: Mapping[str, str]) -> Path:
    """Where podman writes the answers to its own questions about short names."""
    base = Path("/var/cache") if os.getuid() == 0 else cache_home(environ)
    return base / "containers" / "short-name-aliases.conf"


def _drop_in(path: Path) -> RegistriesConf:
    found = parse(read_text(path), str(path))
    if any(rule.version_1 for rule in found.rules.values()):
        raise UsageError(
            f"{path}: registries is of version 1, and a drop-in file has version 2 only"
        )
    return found


def routes_for(
    conf: RegistriesConf, host: str, repository: str, version: str = ""
) -> tuple[Route, ...]:
    """Whom to ask about a repository, in order, the registry itself last.

    `version`: `:tag` or `@digest`, where it is known.

    Raises AccessDenied for what is blocked. With an empty repository: whom to ask for the catalog,
    `repository` of the endpoint being the namespace there that stands for the registry.
    """
    name = f"{host}/{repository}{version}" if repository else host
    rule = conf.rule_for(name)
    if rule is None:
        return (Route(Endpoint(host), repository),)
    if rule.wrong:
        raise UsageError(
            rule.wrong, hint="correct the file, or name another with --registries-conf"
        )
    if rule.blocked:
        raise AccessDenied(f"{name} is blocked by {rule.file} (prefix {rule.prefix})")
    end = covered(rule.prefix, name)
    assert end is not None
    rest = name[end : len(name) - len(version)]
    found = []
    for mirror in rule.mirrors if repository else ():
        for site, there in _sites(mirror.location + rest, mirror.insecure, mirror.proxy):
            found.append(Route(site, there, mirror.by_tag, mirror.by_digest, own=False))
    location = rule.location + rest if rule.location else name[: len(name) - len(version)]
    return (
        *found,
        *(Route(site, there) for site, there in _sites(location, rule.insecure, rule.proxy)),
    )


def covered(prefix: str, name: str) -> int | None:
    """How much of a name a prefix stands for; None where it does not fit."""
    if prefix.startswith("*."):
        host = name.partition("/")[0].partition(":")[0]
        fits = host.endswith(prefix[1:]) and len(host) > len(prefix) - 1
        return len(host) if fits else None
    if not name.startswith(prefix):
        return None
    following = name[len(prefix) : len(prefix) + 1]
    # `example.com` is no prefix of `example.com:5000`, which is another registry.
    return len(prefix) if following in ("", "/") or (following in ":@" and "/" in prefix) else None


def _is_about(prefix: str, host: str) -> bool:
    """Whether a prefix fits names of a host."""
    return covered(prefix, host) is not None or prefix.partition("/")[0] == host


def _drop_ins(main: Path) -> Path:
    return main.with_name(f"{main.name}.d")


def _sites(location: str, insecure: bool, proxy: str) -> Iterator[tuple[Endpoint, str]]:
    host, _, repository = location.partition("/")
    site = Endpoint(normal_host(host), proxy=proxy)
    for each in with_a_fallback(site) if insecure else (site,):
        yield each, repository


def _rule(table: TomlTable) -> RegistryRule:
    """One table. A value that is wrong fails the names that the table is about, and no others.

    Raises UsageError if the table does not show which names those are.
    """
    location = table.text("location").rstrip("/")
    prefix = table.text("prefix").rstrip("/") or location
    if not prefix:
        raise table.wrong("location", "is missing, and so is prefix")
    wildcard = prefix.startswith("*.") and is_host(prefix[2:]) and ":" not in prefix
    if "://" in prefix or ("*" in prefix and not wildcard):
        key = "prefix" if table.text("prefix") else "location"
        raise table.wrong(key, f"({shown(prefix)}) is not a host with a namespace")
    try:
        if not wildcard and not _is_place(prefix, version=True):
            key = "prefix" if table.text("prefix") else "location"
            raise table.wrong(key, f"({shown(prefix)}) is not a host with a namespace")
        return _sound_rule(table, prefix, location or ("" if wildcard else prefix))
    except UsageError as error:
        return RegistryRule(prefix, file=table.file, wrong=str(error))


def _sound_rule(table: TomlTable, prefix: str, location: str) -> RegistryRule:
    if location and not _is_place(location, version=True):
        raise table.wrong("location", f"({shown(location)}) is not a host with a namespace")
    version = _version_of(location)
    if version != _version_of(prefix) and version:
        raise table.wrong("location", f"({shown(location)}) has another tag or digest than prefix")
    by_digest_only = table.flag("mirror-by-digest-only")
    mirrors = tuple(_mirror(each, by_digest_only) for each in table.tables("mirror"))
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
    if not _is_place(location):
        raise table.wrong("location", f"({shown(location)}) is no host with a namespace")
    kind = table.text("pull-from-mirror")
    if kind not in _FROM_MIRROR:
        raise table.wrong("pull-from-mirror", f"({kind}) is none of all, digest-only, tag-only")
    if kind and by_digest_only:
        raise table.wrong(
            "pull-from-mirror", "stands beside mirror-by-digest-only, which says so already"
        )
    by_tag, by_digest = (False, True) if by_digest_only else _FROM_MIRROR[kind]
    return MirrorRule(location, table.flag("insecure"), by_tag, by_digest, table.proxy())


def _is_place(text: str, *, version: bool = False) -> bool:
    """Whether it is `host[:port][/namespace…]`, and with `version` perhaps a tag or a digest at its
    end.
    """
    host, slash, path = text.partition("/")
    if version and slash:
        path = path[: len(path) - len(_version_of(text))]
    return is_host(host) and (is_repository(path) if slash else True)


def _version_of(text: str) -> str:
    """The tag and digest at the end of a name that has a repository."""
    last = text[text.find("/") + 1 :] if "/" in text else ""
    cut = min((at for at in (last.find(":"), last.find("@")) if at >= 0), default=len(last))
    return last[cut:] if _VERSION.fullmatch(last[cut:]) else ""


def _version_1(top: TomlTable) -> dict[str, RegistryRule]:
    old = top.table("registries")
    listed = {key: old.table(key).texts("registries") for key in ("insecure", "block", "search")}
    rules = {}
    for host in dict.fromkeys((*listed["insecure"], *listed["block"])):
        if not _is_place(host):
            raise old.wrong(
                "insecure" if host in listed["insecure"] else "block",
                f"has {host!r}, which is no host",
            )
        rules[host] = RegistryRule(
            host,
            host,
            insecure=host in listed["insecure"],
            blocked=host in listed["block"],
            file=top.file,
            version_1=True,
        )
    return rules
