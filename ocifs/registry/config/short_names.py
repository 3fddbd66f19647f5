"""Short names: references without a host, such as `alpine:3.19` (containers-registries.conf(5)).

Pure. Called from any thread, when a command reads its arguments.

- A short name means the same image as in podman, or it is an error.
- An alias decides first, then `unqualified-search-registries`.
- Without a list the name is on Docker Hub, as in docker. With one registry it is in that registry.
- With several registries podman prompts. ocifs cannot, and fails with the full names to choose
  from. In the modes `permissive` and `disabled` podman tries the registries in order, so the first
  one is used.
- An invalid alias or registry fails only the names that need it.
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
    """The parts of registries.conf about short names.

    - `aliases`: full names by short names; an empty full name removes an alias.
    - `problems`: messages about invalid aliases, by short name.
    - `search`: `unqualified-search-registries`, and `location` its file and key.
    - `mode`: `short-name-mode`, empty if unset.
    """

    aliases: Mapping[str, str] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    search: tuple[str, ...] = ()
    location: str = ""
    mode: str = ""

    def expand(self, text: str) -> str:
        """A reference with its host, unless it has one or is on Docker Hub. Raises UsageError."""
        name = text.partition("@")[0]
        head, slash, last = name.rpartition("/")
        # Only the last component can have a tag: an earlier colon belongs to a port.
        name = head + slash + last.partition(":")[0]
        if self.aliases.get(name):  # an alias may contain a dot, such as `rhel6.5`
            return self.aliases[name] + text[len(name) :]
        return self._searched(text, name) if is_short_name(text) else text

    def _searched(self, text: str, name: str) -> str:
        if name in self.problems:
            raise UsageError(self.problems[name])
        if not self.search:
            return text
        if len(self.search) > 1 and self.mode in ("", "enforcing"):
            full = " or ".join(f"{host}/{text}" for host in self.search)
            message = f"ambiguous short name: {text} ({self.location} lists several registries)"
            raise UsageError(message, hint=f"write {full}")
        host = self.search[0]
        if not is_host(host):
            raise UsageError(f"{self.location}: not a host: {host!r}")
        return text if host == DOCKER_HUB else f"{host}/{text}"


def read_short_names(top: TomlTable) -> ShortNames:
    """The short names of one file. Raises UsageError for values of a wrong TOML type."""
    aliases, problems = {}, {}
    table = top.table("aliases")
    for name in table.values:
        value = table.text(name)
        if not _is_alias(name):
            problems[name] = str(table.error(name, "is not a short name: it has a host or a tag"))
        elif value and not _is_full(value):
            problems[name] = str(
                table.error(name, f"({value}) is not a name with a host and without a tag")
            )
        else:
            aliases[name] = value
    mode = top.text("short-name-mode")
    if mode and mode not in MODES:
        raise top.error("short-name-mode", f"({mode}) is not one of {', '.join(MODES)}")
    search = tuple(host.rstrip("/") for host in top.texts("unqualified-search-registries"))
    return ShortNames(
        aliases, problems, search, top.location("unqualified-search-registries"), mode
    )


def merge_short_names(first: ShortNames, second: ShortNames) -> ShortNames:
    """Two files, read one after the other: the second replaces aliases with the same name."""
    # The later file decides about a name, even if its own alias is invalid.
    aliases = {name: value for name, value in first.aliases.items() if name not in second.problems}
    problems = {name: text for name, text in first.problems.items() if name not in second.aliases}
    last = second if second.search else first
    return ShortNames(
        {**aliases, **second.aliases},
        {**problems, **second.problems},
        last.search,
        last.location,
        second.mode or first.mode,
    )


def _is_alias(name: str) -> bool:
    first, slash, _ = name.partition("/")
    # A first component with a dot, or localhost, would be a host if a path follows.
    return all(map(is_component, name.split("/"))) and not (
        slash and ("." in first or first == "localhost")
    )


def _is_full(text: str) -> bool:
    host, slash, path = text.partition("/")
    return bool(slash) and is_host(host) and is_repository(path)
