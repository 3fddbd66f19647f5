"""The options of ocifs.

Each option is declared once, in one of three dictionaries (the last is in mount_declared.py):

- CacheOptions: the cache, for the commands about it.
- Options: everything about a source. Shared by the commands that read one, and by the Python API.
- MountOptions: the options that `ocifs mount` has in addition (mount_declared.py).

A new option is a new key here. If it has a `setting`, the field of that name in ocifs/settings.py
takes the value, and nothing else needs to change (docs/decisions/0215-declaration-of-options.md).
"""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from ocifs.oci.platform import Platform
from ocifs.options.declaration import (
    AnyPath,
    DirectoryPath,
    ExistingPath,
    Flag,
    Option,
    Seconds,
    Size,
    Tables,
    Text,
    Texts,
)
from ocifs.options.own_kinds import kinds_of
from ocifs.settings import Timing

_TIMING = Timing()


def _hosts(value: object, hosts: frozenset[str]) -> frozenset[str]:
    """A flag that applies to the hosts of the source."""
    return hosts if value else frozenset()


def _platform(value: object, _: frozenset[str]) -> Platform | None:
    return Platform.parse(str(value)) if value else None


def _is_full(value: object, _: frozenset[str]) -> bool:
    return value == "full"


class CacheOptions(TypedDict, total=False):
    """Options of commands about the cache."""

    cache_dir: Annotated[
        AnyPath,
        Option(
            group="Cache",
            help="Cache directory.",
            default_text="$XDG_CACHE_HOME/ocifs",
            doc="cache directory; without `XDG_CACHE_HOME`, `~/.cache/ocifs`",
            setting="cache.directory",
        ),
    ]
    cache_size: Annotated[
        Size,
        Option(
            group="Cache",
            help="Maximum size of the cache, such as 20G.",
            doc="maximum size of the [cache](cache.md): `500M`, `20GiB`; K, M, G, T are powers of"
            " 1,024",
            default_text="10G, or 10 % of the disk if that is less",
            setting="cache.size",
        ),
    ]
    cache_free: Annotated[
        Size,
        Option(
            group="Cache",
            help="Space to leave free on the disk of the cache.",
            default_text="1G, or 5 % of the disk if that is less",
            setting="cache.free_space",
        ),
    ]


class Options(CacheOptions, total=False):
    """Options about a source, with the names and meanings of docs/reference/cli.md."""

    platform: Annotated[
        Text,
        Option(
            group="Content",
            help="Platform to select from an index.",
            doc="[platform](#platforms) of the child of an index",
            default_text="this machine's",
            metavar="OS/ARCH[/VARIANT]",
            setting="view.platform",
            convert=_platform,
        ),
    ]
    owner: Annotated[
        Literal["user", "keep"],
        Option(
            group="Content",
            help="Owner of files in images: the mounting user, or the owner in the image.",
            default="user",
            setting="view.owner",
        ),
    ]
    links: Annotated[
        Literal["inside", "raw"],
        Option(
            group="Content",
            help="Symbolic links that lead out of an image: kept inside, or unchanged.",
            default="inside",
            setting="view.links",
        ),
    ]
    soci: Annotated[
        Flag,
        Option(
            group="Content",
            help="Trust SOCI indexes of images, to read layers without fetching them whole.",
            doc="trust SOCI indexes of images: list layers by their tables and fetch spans, without"
            " reading the layers first"
            " ([why this is opt-in](../decisions/0116-soci-indexes-are-opt-in.md))",
            setting="view.soci",
        ),
    ]
    own_kinds: Annotated[
        Tables,
        Option(
            group="Content",
            help="Your own kinds of artifact, as tables of the configuration file.",
            setting="view.kinds",
            convert=kinds_of,
            everywhere=False,
        ),
    ]
    plain_http: Annotated[
        Flag,
        Option(
            group="Network",
            help="Use plain HTTP (the default for loopback addresses).",
            doc="use plain HTTP for the hosts of the source. The default for loopback addresses and"
            " `localhost`, unless they turn out to have TLS ([trust](trust.md))",
            setting="network.plain_http",
            convert=_hosts,
        ),
    ]
    insecure_tls: Annotated[
        Flag,
        Option(
            group="Network",
            help="Do not verify the registry's certificate.",
            doc="do not verify the certificates of the hosts of the source",
            setting="network.insecure_tls",
            convert=_hosts,
        ),
    ]
    ca_file: Annotated[
        ExistingPath,
        Option(
            group="Network",
            help="Additional CA certificates (PEM file).",
            setting="network.ca_file",
        ),
    ]
    authfile: Annotated[
        ExistingPath,
        Option(
            group="Network",
            help="Credentials file, tried before the default locations.",
            setting="network.authfile",
        ),
    ]
    hosts_dir: Annotated[
        DirectoryPath,
        Option(
            group="Network",
            help="Directory with containerd's hosts.toml files.",
            doc="directory with containerd's `hosts.toml` files ([mirrors](mirrors.md))",
            default_text="/etc/containerd/certs.d",
            setting="network.hosts_directory",
        ),
    ]
    registries_conf: Annotated[
        ExistingPath,
        Option(
            group="Network",
            help="Read only this containers-registries.conf(5); /dev/null for none.",
            doc="read only this [containers-registries.conf](mirrors.md); `/dev/null` for none",
            default_text="the usual locations",
            setting="network.registries_conf",
        ),
    ]
    repo: Annotated[
        Texts,
        Option(
            group="Content",
            help="List this repository if the registry lists none. May be repeated.",
            doc="list this repository if the registry lists none; may be repeated. With several"
            " hosts, add HOST (`ghcr.io/homebrew/core/jq`)",
            metavar="[HOST/]NAME",
            setting="view.repositories",
        ),
    ]
    offline: Annotated[
        Flag,
        Option(
            group="Network",
            help="Do not use the network; show the cached content.",
            doc="do not use the network: names show their last known state, and content outside"
            " the cache is EHOSTUNREACH",
            setting="cache.offline",
        ),
    ]
    verify: Annotated[
        Literal["end", "full"],
        Option(
            group="Cache",
            help="Verify a blob before its last byte is served, or before its first byte.",
            default="end",
            setting="cache.verify_full",
            convert=_is_full,
        ),
    ]
    timeout: Annotated[
        Seconds,
        Option(
            group="Network",
            help="Give up after SECONDS without progress.",
            default=_TIMING.timeout,
            setting="timing.timeout",
        ),
    ]
    max_wait: Annotated[
        Seconds,
        Option(
            group="Network",
            help="Give up after SECONDS in total.",
            default=_TIMING.max_wait,
            setting="timing.max_wait",
        ),
    ]
    tag_ttl: Annotated[
        Seconds,
        Option(
            group="Cache",
            help="Use cached tags, tag lists and catalogs for SECONDS.",
            default=_TIMING.tag_ttl,
            setting="timing.tag_ttl",
        ),
    ]
