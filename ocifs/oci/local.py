"""The syntax of local sources: image layouts, archives and directories (containers-transports(5)).

    oci:DIR[:REF][@DIGEST]            OCI image layout; `:@N` is the Nth entry of index.json
    oci-archive:FILE[:REF][@DIGEST]   the same in a tar, compressed or not
    docker-archive:FILE[:NAME[:TAG]]  archive of `docker save`; `:@N` as in manifest.json
    dir:DIR                           directory of `skopeo copy … dir:DIR`; it has no references
    ./PATH  ../PATH  /PATH            any of these, detected from the content

Rules that hold here:

- Pure: the paths are not opened. `ocifs.layout` does that.
- The path ends at the first colon, as in skopeo. Only `dir:` allows colons in paths.
- A transport that only other tools support is an error. It is never parsed as a host or a
  repository.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from enum import Enum

from ocifs.errors import InvalidReference
from ocifs.oci.digest import Digest
from ocifs.printable import printable


class LocalTransport(Enum):
    """The format of a local source; the value is its prefix in containers-transports(5)."""

    ANY = ""
    OCI = "oci"
    OCI_ARCHIVE = "oci-archive"
    DOCKER_ARCHIVE = "docker-archive"
    DIR = "dir"

    @property
    def is_file(self) -> bool:
        """Whether the path names an archive."""
        return self in (LocalTransport.OCI_ARCHIVE, LocalTransport.DOCKER_ARCHIVE)


@dataclass(frozen=True, slots=True)
class LayoutSource:
    """A local source.

    `ref` selects one of its manifests: a name, `@N`, a digest, or a name with a digest.
    """

    path: str
    transport: LocalTransport = LocalTransport.OCI
    ref: str = ""

    def __str__(self) -> str:
        prefix = f"{self.transport.value}:" if self.transport is not LocalTransport.ANY else ""
        separator = "@" if _DIGEST.fullmatch(self.ref) else ":"
        return prefix + self.path + (f"{separator}{self.ref}" if self.ref else "")

    @property
    def whole(self) -> LayoutSource:
        """The same source without a reference."""
        return LayoutSource(self.path, self.transport)


PREFIXES = tuple(f"{transport.value}:" for transport in LocalTransport if transport.value)
"""The prefixes of the supported transports."""

_DIGEST = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")
_PATHS = ("/", "./", "../")
_INDEX = re.compile(r"@(0|[1-9][0-9]{0,5})")
# Transports of other tools, and the command that makes a copy in a supported format. `{}` is the
# text after the colon.
_REFUSED = {
    "docker-daemon": "docker save -o image.tar {}; then name ./image.tar",
    "containers-storage": "podman save --format oci-archive -o image.tar {}; then name ./image.tar",
    "ostree": "skopeo copy ostree:{} oci:./layout; then name oci:./layout",
    "sif": "skopeo copy sif:{} oci:./layout; then name oci:./layout",
    "tarball": "skopeo copy tarball:{} oci:./layout; then name oci:./layout",
    "atomic": "name the registry itself: HOST/REPOSITORY:TAG",
    "oci-layout": "name it as oci:{}",
    "ocidir": "name it as oci:{}",
}


def is_local(text: str) -> bool:
    """Whether a source is local, or has the prefix of an unsupported local transport."""
    prefix, colon, rest = text.partition(":")
    # oci://HOST is a reference with a scheme, as Helm writes it.
    if colon and f"{prefix}:" in PREFIXES:
        return not rest.startswith("//") or prefix != "oci"
    return (bool(colon) and prefix in _REFUSED) or is_path(text)


def is_path(text: str) -> bool:
    """Whether a source is a path: it begins with `/`, `./` or `../`."""
    return text.startswith(_PATHS) or text in (".", "..")


def index_of(ref: str) -> int | None:
    """The N of a reference `@N`."""
    match = _INDEX.fullmatch(ref)
    return int(match[1]) if match else None


def split_digest(ref: str) -> tuple[str, Digest | None]:
    """The name and the digest of a reference; either may be missing."""
    name, at, text = ref.rpartition("@")
    if at and _DIGEST.fullmatch(text):
        return name, Digest.parse(text)
    return ("", Digest.parse(ref)) if _DIGEST.fullmatch(ref) else (ref, None)


def parse_local(text: str) -> LayoutSource:
    """Parse a source for which `is_local` is true. Raises InvalidReference."""
    prefix, colon, rest = text.partition(":")
    if colon and prefix in _REFUSED and not is_path(text):
        raise _refusal(prefix, rest)
    transport = LocalTransport.ANY if is_path(text) else LocalTransport(prefix)
    rest = text if transport is LocalTransport.ANY else rest
    path, ref = _split(text, rest, transport)
    if not path:
        what, text = "file" if transport.is_file else "directory", printable(text)
        raise InvalidReference(
            f"invalid source: the path of the {what} is missing\n    {text}\n    {'^' * len(text)}"
        )
    return LayoutSource(path, transport, ref)


def _split(text: str, rest: str, transport: LocalTransport) -> tuple[str, str]:
    """The path and the reference."""
    if transport is LocalTransport.DIR:
        return rest, ""
    # The digest first: it contains a colon.
    name, at, digest = rest.rpartition("@")
    if at and _DIGEST.fullmatch(digest):
        path, colon, ref = name.partition(":")
        if colon and not ref:
            raise _wrong(text, f":@{digest}", "nothing follows the colon")
        return path, f"{ref}@{digest}" if ref else digest
    path, colon, ref = rest.partition(":")
    if colon and not ref:
        raise _wrong(text, ":", "nothing follows the colon")
    if path.endswith(("@sha256", "@sha512")):
        hint = "sha256 has 64 hexadecimal digits, sha512 has 128"
        raise _wrong(text, path.rpartition("@")[2] + f":{ref}", "not a digest", hint=hint)
    return path, ref


def _refusal(prefix: str, rest: str) -> InvalidReference:
    # regctl writes ocidir://DIR.
    target = rest.removeprefix("//") if prefix in ("oci-layout", "ocidir") else rest
    command = _REFUSED[prefix].format(shlex.quote(target) if target else "NAME")
    return InvalidReference(f"unsupported transport: {prefix}:", hint=command)


def _wrong(text: str, part: str, why: str, *, hint: str = "") -> InvalidReference:
    """The error, with carets below the invalid part. Its own line ends are the only ones."""
    text, part = printable(text), printable(part)
    start = max(text.rfind(part), 0)
    return InvalidReference(
        f"invalid source: {why}\n    {text}\n    {' ' * start}{'^' * max(len(part), 1)}", hint=hint
    )
