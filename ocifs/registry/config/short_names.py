"""Short names: references without a host, such as `alpine:3.19` (containers-registries.conf(5)).

Pure. Called from any thread, when a command reads its arguments.

- A short name means the image that podman takes for it, or it is an error. It never means another.
- An alias decides first. Then `unqualified-search-registries`: without a list the name is on Docker
  Hub, as in docker; with one registry it is there; with several podman asks the user, and ocifs,
  which cannot ask, fails with the full names to choose from. In the modes `permissive` and
  `disabled` podman tries the registries in order, so the first one is taken.
- An alias or a registry that is wrong fails only the names that need it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ocifs.errors import UsageError
from ocifs.oci.reference import DOCKER_HUB, is_component, is_host, is_repository, is_short_name
from ocifs.registry.config.toml import TomlTable

MODES = ("enforcing", "permissive", "disabled")


@dataclass(frozen=True, slots=True)
class ShortNames:
    """The parts of registries.conf that decide what a short name means.

    `aliases`: full names by short names; an empty one is an alias removed. `wrong`: messages about
    aliases that cannot be used. `search`: `unqualified-search-registries`, and `place` its file and
    key. `mode`: `short-name-mode`, empty if unset.
    """

    aliases: Mapping[str, str] = field(default_factory=dict)
    wrong: Mapping[str, str] = field(default_factory=dict)
    search: tuple[str, ...] = ()
    place: str = ""
    mode: str = ""

    def expand(self, text: str) -> str:
        """A reference with its host, unless it has one or is on Docker Hub. Raises UsageError."""
        name = text.partition("@")[0]
        head, slash, last = name.rpartition("/")
        name = head + slash + last.partition(":")[0]
        if self.aliases.get(name):  # a name such as `rhel6.5` may be one
            return self.aliases[name] + text[len(name) :]
        return self._searched(text, name) if is_short_name(text) else text

    def _searched(self, text: str, name: str) -> str:
        if name in self.wrong:
            raise UsageError(self.wrong[name])
        if not self.search:
            return text
        if len(self.search) > 1 and self.mode in ("", "enforcing"):
            full = " or ".join(f"{host}/{text}" for host in self.search)
            message = f"ambiguous short name: {text} ({self.place} lists several registries)"
            raise UsageError(message, hint=f"write {full}")
        host = self.search[0]
        if not is_host(host):
            raise UsageError(f"{self.place} has {host!r}, which is not a host")
        return text if host == DOCKER_HUB else f"{host}/{text}"


def read_short_names(top: TomlTable) -> ShortNames:
    """The short names of one file. Raises UsageError for values of a wrong TOML type."""
    aliases, wrong = {}, {}
    table = top.table("aliases")
    for name in table.values:
        value = table.text(name)
        if not _is_alias(name):
            wrong[name] = str(table.wrong(name, "is not a short name: it has a host or a tag"))
        elif value and not _is_full(value):
            wrong[name] = str(
                table.wrong(name, f"({value}) is not a name with a host and without a tag")
            )
        else:
            aliases[name] = value
    mode = top.text("short-name-mode")
    if mode and mode not in MODES:
        raise top.wrong("short-name-mode", f"({mode}) is not one of {', '.join(MODES)}")
    search = tuple(host.rstrip("/") for host in top.texts("unqualified-search-registries"))
    return ShortNames(aliases, wrong, search, top.place("unqualified-search-registries"), mode)


def merge_short_names(first: ShortNames, second: ShortNames) -> ShortNames:
    """Both files, read one after the other: an alias replaces one of the same name."""
    mine = {name: value for name, value in first.aliases.items() if name not in second.wrong}
    wrong = {name: text for name, text in first.wrong.items() if name not in second.aliases}
    last = second if second.search else first
    return ShortNames(
        {**mine, **second.aliases},
        {**wrong, **second.wrong},
        last.search,
        last.place,
        second.mode or first.mode,
    )


def _is_alias(name: str) -> bool:
    first, slash, _ = name.partition("/")
    return all(map(is_component, name.split("/"))) and not (
        slash and ("." in first or first == "localhost")
    )


def _is_full(text: str) -> bool:
    host, slash, path = text.partition("/")
    return bool(slash) and is_host(host) and is_repository(path)
