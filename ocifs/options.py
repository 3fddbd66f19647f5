"""Options of the Python API and of fsspec, and the settings that they mean.

Pure, but for the current directory, to which relative paths refer. Called from any thread.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import TypedDict

from ocifs.errors import InvalidReference, OcifsError, UsageError
from ocifs.oci.platform import Platform
from ocifs.settings import (
    CacheSettings,
    NetworkSettings,
    Settings,
    Timing,
    ViewSettings,
    default_cache_directory,
)


class Options(TypedDict, total=False):
    """What can be said besides the source; names and meanings are those of the command line
    (docs/reference/cli.md).
    """

    plain_http: bool
    insecure_tls: bool
    ca_file: str | os.PathLike[str]
    authfile: str | os.PathLike[str]
    hosts_dir: str | os.PathLike[str]
    registries_conf: str | os.PathLike[str]
    cache_dir: str | os.PathLike[str]
    cache_size: int
    cache_free: int
    offline: bool
    verify: str
    timeout: float
    max_wait: float
    tag_ttl: float
    platform: str
    owner: str
    links: str
    soci: bool
    repo: tuple[str, ...]


def settings_of(named: Collection[str], options: Options) -> Settings:
    """The settings that options mean for a source on the named hosts. Raises UsageError."""
    unknown = sorted(options.keys() - Options.__annotations__.keys())
    if unknown:
        raise UsageError(
            f"{', '.join(unknown)}: no such option",
            hint=f"there are: {', '.join(Options.__annotations__)}",
        )
    paths = {name: path_of(options.get(name)) for name in _PATHS}
    seconds = {
        name: float(options[name]) for name in ("timeout", "max_wait", "tag_ttl") if name in options
    }
    hosts = frozenset(named)
    try:
        platform = Platform.parse(options["platform"]) if options.get("platform") else None
    except OcifsError as error:
        raise InvalidReference(str(error)) from None
    return Settings(
        timing=Timing.within(**seconds),
        cache=CacheSettings(
            directory=paths["cache_dir"] or default_cache_directory(),
            size=options.get("cache_size"),
            free_space=options.get("cache_free"),
            verify_full=options.get("verify", "end") == "full",
            offline=options.get("offline", False),
        ),
        network=NetworkSettings(
            plain_http=hosts if options.get("plain_http") else frozenset(),
            insecure_tls=hosts if options.get("insecure_tls") else frozenset(),
            ca_file=paths["ca_file"],
            authfile=paths["authfile"],
            hosts_directory=paths["hosts_dir"],
            registries_conf=paths["registries_conf"],
            named_host=next(iter(hosts)) if len(hosts) == 1 else "",
        ),
        view=ViewSettings(
            platform=platform,
            owner=options.get("owner", "user"),
            links=options.get("links", "inside"),
            soci=options.get("soci", False),
            repositories=tuple(options.get("repo", ())),
        ),
    )


_PATHS = ("ca_file", "authfile", "hosts_dir", "registries_conf", "cache_dir")


def path_of(given: object) -> Path | None:
    """An absolute path for an option that names a file or directory."""
    return Path(str(given)).absolute() if given else None
