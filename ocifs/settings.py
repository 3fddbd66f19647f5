"""Every knob of ocifs, as frozen dataclasses with one commented field each; parsed once, at the
command line's edge.

Rules that hold here: a setting that is a time is in seconds, one that is a size in bytes; defaults
are those of the documentation; no secret is ever a setting, only where to find it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from ocifs.directories import cache_home
from ocifs.oci.platform import Platform

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def default_cache_directory() -> Path:
    """`$XDG_CACHE_HOME/ocifs`, else `~/.cache/ocifs` (XDG Base Directory Specification)."""
    return cache_home(os.environ) / "ocifs"


@dataclass(frozen=True, slots=True)
class Timing:
    """How long anything may take."""

    timeout: float = 30.0  # an operation without progress
    max_wait: float = 300.0  # an operation in all
    connect_timeout: float = 10.0  # one connection to one address
    stall_timeout: float = 20.0  # silence in the middle of an answer
    helper_timeout: float = 10.0  # a credential helper
    mirror_timeout: float = (
        3.0  # a mirror that has to show that it is there, while others could be asked
    )
    # before a mirror that failed is tried again; twice as long each time, up to 60 times that
    mirror_pause: float = 5.0
    outage_pause: float = (
        60.0  # the longest pause between questions to a registry that could not be reached
    )
    tag_ttl: float = 60.0  # how long a tag, a tag list or a catalog is believed
    stale_after: float = 10.0  # silence after which a name is as it last was, where that is known
    negative_ttl: float = 5.0  # how long "there is no such thing" is believed

    @classmethod
    def within(
        cls, timeout: float = 30.0, max_wait: float = 300.0, tag_ttl: float = 60.0
    ) -> Timing:
        """The times of operations that wait `timeout`: what they wait for fails earlier, so that it
        can be tried again meanwhile.
        """
        usual = cls()
        return cls(
            timeout=timeout,
            max_wait=max_wait,
            tag_ttl=tag_ttl,
            connect_timeout=min(usual.connect_timeout, timeout / 3),
            stall_timeout=min(usual.stall_timeout, timeout * 2 / 3),
            outage_pause=min(usual.outage_pause, timeout * 2),
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on everything that comes from outside.

    Passing one is LimitExceeded, which names the field.
    """

    manifest_bytes: int = 8 * MIB  # a manifest or index (registries accept at least 4 MiB)
    answer_bytes: int = 32 * MIB  # one page of tags, catalog or referrers; a token
    validated_bytes: int = (
        16 * MIB
    )  # of a registry's lists with an ETag, kept to ask whether they have changed
    error_bytes: int = 64 * KIB  # what is read of an error's body
    pages: int = 10_000  # pages of one list
    names: int = 1_000_000  # tags of a repository, repositories of a catalog
    referrers: int = 10_000  # referrers of one digest
    layers: int = 4_096  # layers of one manifest
    index_depth: int = 8  # indices within indices
    config_bytes: int = 4 * MIB  # a config that is interpreted (as much as containers/image takes)
    hosts: int = 1_000  # hosts of one mount
    retries: int = 4  # attempts of one request, the first one included
    redirects: int = 5  # hops of one request
    layer_bytes: int = 64 * GIB  # what one layer unpacks to
    layer_ratio: int = (
        1_100  # times its own size that a layer unpacks to (gzip cannot do more than 1,032)
    )
    layer_window: int = (
        128 * MIB
    )  # memory that a zstd frame may ask for, as the zstd command allows; twice that for xz
    layer_members: int = 2_000_000  # entries of one layer
    # directories of one image that no entry makes: 350 bytes each, of which a path asks for
    # thousands
    implied_directories: int = 500_000
    layer_link_bytes: int = (
        4_095  # the target of a symbolic link (PATH_MAX: Linux makes and shows no longer one)
    )
    layer_link_steps: int = (
        4_000_000  # names in links' targets that are walked while the layers of an image are merged
    )
    layer_file_bytes: int = 16 * 1024 * GIB  # one file, its holes included (what ext4 can hold)
    layer_streams: int = 4_000_000  # gzip members, zstd frames and their like in one layer
    layer_empty_streams: int = 1_000  # of these that are empty, besides one for each that is not
    layer_header_bytes: int = (
        1 * MIB
    )  # headers of one entry: long names, PAX records, maps of holes
    layer_index_bytes: int = 256 * MIB  # names, links and extended attributes of one layer together
    toc_bytes: int = (
        64 * MIB
    )  # a table of contents that comes with a layer (eStargz, zstd:chunked), as plain JSON
    archive_members: int = (
        100_000  # members of an archive of an image on disk (oci-archive, docker-archive)
    )
    prefetch_bytes: int = (
        64 * MIB
    )  # what is fetched of a layer because its maker found it to be read first
    chunk_bytes: int = 32 * MIB  # one chunk of a file in such a layer, which is verified as a whole


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Where bytes are kept, and how many."""

    directory: Path = field(default_factory=default_cache_directory)
    size: int | None = None  # None: 10 GiB or 10 % of the disk, whichever is less
    free_space: int | None = (
        None  # what is left free on the disk. None: 1 GiB or 5 % of it, whichever is less
    )
    memory_bytes: int = 256 * MIB  # of blobs that are read while the disk is full
    verify_full: bool = False  # serve nothing of a blob before all of it is verified
    offline: bool = False  # touch no network
    believe_names: float = (
        0.0  # seconds for which a name on disk is believed without asking (completion)
    )


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """How registries are reached."""

    plain_http: frozenset[str] = frozenset()  # hosts spoken to without TLS; loopback is always
    all_plain_http: bool = False  # --plain-http without a host: every host of the command line
    insecure_tls: frozenset[str] = frozenset()  # hosts whose certificate is not checked
    ca_file: Path | None = None  # further certificate authorities
    authfile: Path | None = None  # credentials, before every other place
    named_host: str = ""  # the one host that the user named, which OCIFS_USERNAME is for
    hosts_directory: Path | None = None  # containerd's hosts.toml directories
    credential_helpers: tuple[
        str, ...
    ] = ()  # of registries.conf: where credentials are looked for; empty: in the files
    registries_conf: Path | None = None  # instead of the usual containers-registries.conf places
    connections: int = 16  # connections to one host at a time
    foreign_urls: bool = False  # follow the `urls` of descriptors


@dataclass(frozen=True, slots=True)
class ViewSettings:
    """How things are shown."""

    platform: Platform | None = None  # None: the machine's own
    view: str = "manifest"  # of a mount of one manifest: manifest, rootfs or files
    owner: str = "user"  # owners of files in images: the mounting `user`, or `keep`
    # whether SOCI's tables of contents are believed, which anybody who may push can attach to an
    # image
    soci: bool = False
    links: str = "inside"  # links in images that lead outside: kept `inside`, or `raw`
    repositories: tuple[
        str, ...
        # repositories to list where the registry lists none, with a host where there are several
    ] = ()


@dataclass(frozen=True, slots=True)
class MountFlags:
    """How the kernel's mount is made; always with ro, nosuid and nodev (mount(8))."""

    allow_other: bool = False  # users other than the mounting one may enter
    auto_unmount: bool = False  # a helper of FUSE unmounts when the daemon dies
    noexec: bool = False  # no program may be run from the mount
    nosymfollow: bool = False  # the kernel follows no symbolic link in the mount
    fsname: str = ""  # the source in the mount table; empty: the source in normal form


@dataclass(frozen=True, slots=True)
class Settings:
    """All of them."""

    timing: Timing = Timing()
    limits: Limits = Limits()
    cache: CacheSettings = field(default_factory=CacheSettings)
    network: NetworkSettings = NetworkSettings()
    view: ViewSettings = ViewSettings()
