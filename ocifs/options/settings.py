"""From the values of options to settings.

Pure, except for the current directory, to which relative paths refer. Called from any thread.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ocifs.errors import UsageError
from ocifs.options.declaration import DeclaredOption, ValueKind, declared
from ocifs.options.declared import CacheOptions, Options
from ocifs.options.mount_declared import MountOptions
from ocifs.settings import CacheSettings, MountFlags, NetworkSettings, Settings, Timing


def settings_of(
    hosts: Iterable[str], options: Mapping[str, object], known: type = Options
) -> Settings:
    """The settings for a source on these hosts; an option that is absent has its default.

    `known` declares the options. Raises UsageError for an unknown option or an invalid value,
    InvalidReference for an invalid platform.
    """
    declarations = declared(known)
    unknown = sorted(options.keys() - {item.name for item in declarations})
    if unknown:
        available = ", ".join(item.name for item in declarations)
        raise UsageError(f"unknown option: {', '.join(unknown)}", hint=f"available: {available}")
    named = frozenset(hosts)
    values = _values(declarations, options, named)
    defaults = Settings()
    network = NetworkSettings(named_host=next(iter(named)) if len(named) == 1 else "")
    return Settings(
        timing=Timing.within(**values["timing"]),
        cache=replace(defaults.cache, **values["cache"]),
        network=replace(network, **values["network"]),
        view=replace(defaults.view, **values["view"]),
    )


def mount_flags(options: MountOptions) -> MountFlags:
    """The flags of the kernel's mount."""
    values = _values(declared(MountOptions), options, frozenset())
    flags = replace(MountFlags(), **values["flags"])
    # FUSE can do neither.
    needs_kernel = flags.overlay or flags.prefetch
    return replace(flags, kernel="always") if needs_kernel else flags


def cache_settings(options: CacheOptions) -> CacheSettings:
    """The directory and the limits of the cache."""
    values = _values(declared(CacheOptions), options, frozenset())
    return replace(CacheSettings(), **values["cache"])


def _values(
    declarations: Iterable[DeclaredOption], options: Mapping[str, object], hosts: frozenset[str]
) -> dict[str, dict[str, Any]]:
    """The values of fields, by section of the settings."""
    values: dict[str, dict[str, Any]] = defaultdict(dict)
    for item in declarations:
        section, _, field = item.option.setting.partition(".")
        value = options.get(item.name, item.default)
        if item.choices and value not in item.choices:
            allowed = ", ".join(item.choices)
            raise UsageError(f"invalid value for {item.name}: {value}", hint=f"use {allowed}")
        if item.option.convert is not None:
            value = item.option.convert(value, hosts)
        elif item.kind in _PATHS:
            value = path_of(value)
        elif item.kind is ValueKind.SECONDS:
            value = float(str(value))
        elif item.kind is ValueKind.TEXTS and isinstance(value, Collection):
            value = tuple(value)
        # None keeps the default of the field, which may be computed.
        if field and value is not None:
            values[section][field] = value
    return values


_PATHS = (ValueKind.EXISTING, ValueKind.DIRECTORY, ValueKind.PATH, ValueKind.NEW_FILE)


def path_of(value: object) -> Path | None:
    """The absolute path of an option's value, or None."""
    return (
        Path(os.fspath(value)).absolute()
        if isinstance(value, str | os.PathLike) and value
        else None
    )
