"""Every setting of ocifs, as frozen dataclasses with a comment for each field.

Made once, by `ocifs.options`, and handed down to everything that needs it. Pure; any thread.

- Times are in seconds, sizes in bytes.
- The defaults are those of the documentation.
- A setting is never a secret, only the place of one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from ocifs.directories import cache_home
from ocifs.oci.kinds.kind import ArtifactKind
from ocifs.oci.platform import Platform

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def default_cache_directory() -> Path:
    """`$XDG_CACHE_HOME/ocifs`, else `~/.cache/ocifs` (XDG Base Directory Specification)."""
    return cache_home(os.environ) / "ocifs"


@dataclass(frozen=True, slots=True)
class Timing:
    """Deadlines and lifetimes."""

    timeout: float = 30.0  # an operation without progress
    max_wait: float = 300.0  # an operation in total
    connect_timeout: float = 10.0  # one connection to one address
    stall_timeout: float = 20.0  # silence within a response
    helper_timeout: float = 10.0  # a credential helper
    # The first sign of life of a mirror, while other endpoints could be tried.
    mirror_timeout: float = 3.0
    # The pause of a mirror after a failure. It doubles each time, up to 60 times the first one.
    mirror_pause: float = 5.0
    # The longest pause between requests to a registry during an outage.
    outage_pause: float = 60.0
    tag_ttl: float = 60.0  # lifetime of a tag, tag list or catalog
    # Silence of a registry after which the last known state of a name is used.
    stale_after: float = 10.0
    negative_ttl: float = 5.0  # lifetime of the absence of a name

    @classmethod
    def within(
        cls, timeout: float = 30.0, max_wait: float = 300.0, tag_ttl: float = 60.0
    ) -> Timing:
        """The times for operations with this timeout.

        The inner deadlines are shorter than `timeout`, so that an operation can retry within it.
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
    """Bounds on all input.

    Exceeding one raises LimitExceeded, with the name of the field.
    """

    manifest_bytes: int = 8 * MIB  # a manifest or index (registries accept at least 4 MiB)
    answer_bytes: int = 32 * MIB  # one page of tags, catalog or referrers; a token
    validated_bytes: int = 16 * MIB  # a registry's lists that are cached with their ETag
    error_bytes: int = 64 * KIB  # the body of an error
    pages: int = 10_000  # pages of one list
    names: int = 1_000_000  # tags of a repository, repositories of a catalog
    referrers: int = 10_000  # referrers of one digest
    layers: int = 4_096  # layers of one manifest
    index_depth: int = 8  # indexes within indexes
    config_bytes: int = 4 * MIB  # a config that is parsed (the limit of containers/image)
    hosts: int = 1_000  # hosts of one mount
    retries: int = 4  # attempts of one request, including the first
    redirects: int = 5  # hops of one request
    layer_bytes: int = 64 * GIB  # uncompressed size of one layer
    layer_ratio: int = 1_100  # uncompressed to compressed size (gzip reaches at most 1,032)
    # Window of a zstd frame (the limit of the zstd command); twice that for xz.
    layer_window: int = 128 * MIB
    layer_members: int = 2_000_000  # entries of one layer
    # Directories of one image without an entry. They take 350 bytes each, and one path can imply
    # thousands.
    implied_directories: int = 500_000
    layer_link_bytes: int = 4_095  # target of a symbolic link (PATH_MAX of Linux)
    # Names in link targets that are walked while the layers of an image are merged.
    layer_link_steps: int = 4_000_000
    layer_file_bytes: int = 16 * 1024 * GIB  # one file, with its holes (the limit of ext4)
    layer_streams: int = 4_000_000  # gzip members, zstd frames and the like in one layer
    layer_empty_streams: int = 1_000  # empty ones, in addition to one for each that is not
    layer_header_bytes: int = 1 * MIB  # headers of one entry: long names, PAX records, sparse maps
    layer_index_bytes: int = 256 * MIB  # names, links and extended attributes of one layer
    erofs_bytes: int = 4 * GIB  # the EROFS image of a root filesystem, without the files' content
    toc_bytes: int = 64 * MIB  # a layer's table of contents (eStargz, zstd:chunked), as JSON
    archive_members: int = 100_000  # members of an image archive (oci-archive, docker-archive)
    prefetch_bytes: int = 64 * MIB  # prefetched bytes of a layer with a prefetch landmark
    chunk_bytes: int = 32 * MIB  # one chunk of a file in such a layer, verified as a whole


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """The cache: its place, its limits and its use."""

    directory: Path = field(default_factory=default_cache_directory)
    size: int | None = None  # None: 10 GiB or 10 % of the disk, whichever is less
    # Space to leave free on the disk. None: 1 GiB or 5 % of the disk, whichever is less.
    free_space: int | None = None
    memory_bytes: int = 256 * MIB  # blobs that are read while the disk is full
    verify_full: bool = False  # verify a whole blob before its first byte is served
    offline: bool = False  # do not use the network
    # Age up to which a cached name is used without a request (for shell completion).
    believe_names: float = 0.0


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """The connections to registries."""

    plain_http: frozenset[str] = frozenset()  # hosts without TLS, in addition to loopback
    all_plain_http: bool = False  # --plain-http without a host: every host of the command line
    insecure_tls: frozenset[str] = frozenset()  # hosts whose certificate is not verified
    ca_file: Path | None = None  # additional CA certificates
    authfile: Path | None = None  # credentials file, tried before all others
    named_host: str = ""  # the only host of the source, to which OCIFS_USERNAME applies
    hosts_directory: Path | None = None  # containerd's hosts.toml directories
    registries_conf: Path | None = None  # in place of the default containers-registries.conf
    connections: int = 16  # concurrent connections to one host
    foreign_urls: bool = False  # follow the `urls` of descriptors


@dataclass(frozen=True, slots=True)
class ViewSettings:
    """The presentation of content."""

    platform: Platform | None = None  # None: the platform of this machine
    view: str = "manifest"  # root of a mount of one manifest: manifest, rootfs or files
    owner: str = "user"  # owners of files in images: the mounting `user`, or `keep`
    # Trust SOCI's tables of contents, which every user with push access can attach to an image.
    soci: bool = False
    links: str = "inside"  # links that lead out of an image: kept `inside`, or `raw`
    # The kinds of artifact that the user declared.
    kinds: tuple[ArtifactKind, ...] = ()
    # Repositories to list if the registry lists none; with a host if there are several hosts.
    repositories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MountFlags:
    """Options of the kernel's mount, in addition to ro, nosuid and nodev (mount(8))."""

    foreground: bool = False  # the process that was started stays, and serves the mount
    allow_other: bool = False  # users other than the mounting one have access
    auto_unmount: bool = False  # a helper of FUSE unmounts when the daemon dies
    noexec: bool = False  # programs cannot be executed from the mount
    nosymfollow: bool = False  # the kernel follows no symbolic link in the mount
    no_xattrs: bool = False  # the kernel sends no request for extended attributes
    fsname: str = ""  # the source in the mount table; empty: the source in normal form
    uid: int | None = None  # owner and group of files without an owner of their own
    gid: int | None = None
    umask: int = 0  # permissions that no file has
    # Whether the kernel serves a root filesystem as EROFS: `auto` if it can, `always`, `never`.
    kernel: str = "never"
    # The directory for changes, or `tmpfs`; empty: read-only. And the work directory of overlayfs.
    overlay: str = ""
    overlay_work: Path | None = None
    prefetch: bool = False  # fetch the whole image first, and serve it without a daemon


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings."""

    timing: Timing = Timing()
    limits: Limits = Limits()
    cache: CacheSettings = field(default_factory=CacheSettings)
    network: NetworkSettings = NetworkSettings()
    view: ViewSettings = ViewSettings()
