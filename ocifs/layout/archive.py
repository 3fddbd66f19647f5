"""The members of an uncompressed tar: their positions, and the targets of links.

Everything blocks: callers are worker threads. The archive is opened and listed once, and is then
read through the same descriptor.

Rules that hold here:

- The archive is untrusted. The number of members, the length of their names and of extended headers
  are bounded, and the time is linear in their sum.
- A name cannot leave the archive: it is made relative, and names with too many `..` are not listed.
  Links are resolved among the members.
- The descriptor remains open, so that the archive can be renamed or replaced. Changed content is an
  error.
- Of several members with one name the last one is used, as when a tar is extracted.
- Headers are decoded like those of layers (`layers/tar/header.py`, `layers/tar/pax.py`). The
  content between them is not read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ocifs.errors import LimitExceeded, Malformed, NotFound, RegistryFailed
from ocifs.layers.tar.header import BLOCK, TarHeader, parse_header
from ocifs.layers.tar.magic import describe
from ocifs.layers.tar.pax import decoded, number_of, parse_records
from ocifs.layout.file_range import FileRange, Version, read_exactly, translate_errors, version_of
from ocifs.settings import Limits

_OLD_FILE, _HARD, _SYMBOLIC, _SPARSE, _LONG_NAME, _LONG_LINK, _GLOBAL = (
    b"\0",
    b"1",
    b"2",
    b"S",
    b"L",
    b"K",
    b"g",
)
_FILES = frozenset((b"\0", b"0", b"7", _SPARSE))
_PAX = frozenset((b"x", b"X"))
# Members of these types have no content, even if their header has a size.
_NO_DATA = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))
# The first parts of a version change with the content. A rename changes only the others.
_CONTENT = 4
_LINKS = 40  # links that are followed in one lookup
# The offsets of the flag of GNU sparse files that another block of the map follows.
_MORE_IN_HEADER, _MORE_IN_MAP = 482, 504


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """A regular member (`link` is None), or a hard or symbolic link.

    `symbolic`: the target is relative to the link's directory.
    `problem`: why the content cannot be read, or "".
    """

    offset: int
    size: int
    link: str | None = None
    symbolic: bool = False
    problem: str = ""


class ArchiveFiles:
    """The files of an archive, by their paths in it."""

    def __init__(
        self,
        descriptor: int,
        shown: str,
        limits: Limits,
        advance: Callable[[], None],
        version: Version | None = None,
    ) -> None:
        """List an open regular file, and close it at the end. Raises Malformed, LimitExceeded.

        `advance`: called during the listing.
        `version`: the version of the compressed file, if this is its decompressed copy in the
        cache. No process writes to such a copy.
        """
        self.shown = shown
        self._descriptor = descriptor
        self._changes = version is None
        with translate_errors(shown):
            self.version: Version = version or version_of(os.fstat(descriptor))
        self._members = list_members(descriptor, shown, limits, advance)
        self._strip_top_directory()

    def __del__(self) -> None:
        # The `read_at` of every FileRange refers to this object: the descriptor outlives them.
        os.close(self._descriptor)

    def find(self, name: str) -> FileRange:
        """The content of a member; links are followed. Raises NotFound, Malformed."""
        member = self._resolved(name)
        if member.problem:
            raise Malformed(f"cannot read {name} in {self.shown}: {member.problem}")
        # The offset distinguishes members of the same archive.
        begin, version = member.offset, self._checked_version()

        def read_at(offset: int, length: int) -> bytes:
            self._checked_version()
            return read_exactly(self._descriptor, begin + offset, length, self.shown)

        return FileRange(member.size, (*version, begin), read_at)

    def _checked_version(self) -> Version:
        """The current version of the file.

        Raises RegistryFailed if its content has changed since it was listed.
        """
        if not self._changes:
            return self.version
        with translate_errors(self.shown):
            version = version_of(os.fstat(self._descriptor))
        if version[:_CONTENT] != self.version[:_CONTENT]:
            raise RegistryFailed(f"{self.shown} changed after it was opened", hint="mount it again")
        return version

    def has(self, name: str) -> bool:
        """Whether there is a member of this name, or below it."""
        return name in self._members or any(path.startswith(f"{name}/") for path in self._members)

    def _resolved(self, name: str) -> ArchiveMember:
        path = name
        # Each iteration follows one link, so that a loop of links ends.
        for _ in range(_LINKS):
            member = self._members.get(path)
            if member is None:
                path, passed = self._through_directories(path)
                if not passed:
                    raise NotFound(f"no member {name} in {self.shown}")
                continue
            if member.link is None:
                return member
            path = _resolve_name(path.rpartition("/")[0] if member.symbolic else "", member.link)
            # `_resolve_name` returns "" for a target outside the archive.
            if not path:
                raise Malformed(f"the link {name} in {self.shown} leads out of the archive")
        raise Malformed(f"too many levels of links: {name} in {self.shown}")

    def _through_directories(self, path: str) -> tuple[str, bool]:
        """The path with its first symbolic link replaced by the target, and whether it has one."""
        parts = path.split("/")
        for number in range(1, len(parts)):
            member = self._members.get("/".join(parts[:number]))
            if member is not None and member.symbolic and member.link is not None:
                target = _resolve_name("/".join(parts[: number - 1]), member.link)
                return "/".join([target, *parts[number:]]), bool(target)
        return path, False

    def _strip_top_directory(self) -> None:
        """Strip the directory that contains all members, if the layout's files are in it."""
        # `tar c layout` puts the directory's name before all names, `tar c -C layout .` does not.
        tops = {name.partition("/")[0] for name in self._members}
        if len(tops) != 1 or not tops:
            return
        [top] = tops
        if (
            top in self._members
            or not {f"{top}/index.json", f"{top}/manifest.json"} & self._members.keys()
        ):
            return
        self._members = {
            name[len(top) + 1 :]: _without_top(member, top)
            for name, member in self._members.items()
        }


def _without_top(member: ArchiveMember, top: str) -> ArchiveMember:
    """A member after the top directory was stripped. Targets of hard links begin with it."""
    if member.link is None or member.symbolic or not member.link.startswith(f"{top}/"):
        return member
    return ArchiveMember(member.offset, member.size, member.link[len(top) + 1 :])


def list_members(
    descriptor: int, shown: str, limits: Limits, advance: Callable[[], None]
) -> dict[str, ArchiveMember]:
    """The files and links of a tar by name. Raises Malformed, LimitExceeded."""
    members: dict[str, ArchiveMember] = {}
    # The length of all names. Their number alone does not bound the memory.
    weight = 0
    for number, (name, member) in enumerate(
        _HeaderReader(descriptor, shown, limits, advance).members()
    ):
        weight += len(name) + len(member.link or "")
        if number >= limits.archive_members:
            raise LimitExceeded(
                f"{shown} has more members than limits.archive_members ({limits.archive_members})"
            )
        if weight > limits.layer_index_bytes:
            raise LimitExceeded(
                f"the names in {shown} exceed limits.layer_index_bytes ({limits.layer_index_bytes})"
            )
        path = _resolve_name("", name)
        if path:
            members[path] = member
    return members


def _resolve_name(directory: str, name: str) -> str:
    """A name, relative to a directory, as a path from the archive's root; "" if it leads out."""
    parts: list[str] = []
    for part in (directory if not name.startswith("/") else "").split("/") + name.split("/"):
        if part == "..":
            if not parts:
                return ""
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


class _HeaderReader:
    """Reads the headers of a tar, and skips the content between them."""

    def __init__(
        self, descriptor: int, shown: str, limits: Limits, advance: Callable[[], None]
    ) -> None:
        self._descriptor = descriptor
        self._shown = shown
        self._limits = limits
        self._size = os.fstat(descriptor).st_size
        self._advance = advance
        self._position = 0

    def members(self) -> Iterator[tuple[str, ArchiveMember]]:
        """The names and members of files and links, in order."""
        name, link = b"", b""
        # Of several PAX headers before one member the last one is used.
        records: dict[str, str] = {}
        while (header := self._next()) is not None:
            self._advance()
            if header.kind == _LONG_NAME:
                name = self._extension(header).partition(b"\0")[0]
            elif header.kind == _LONG_LINK:
                link = self._extension(header).partition(b"\0")[0]
            elif header.kind in _PAX:
                records = parse_records(self._extension(header))
            elif header.kind == _GLOBAL:
                self._extension(header)
            else:
                path = decoded(name) or records.get("path") or decoded(header.name)
                member = self._member(
                    header,
                    records,
                    decoded(link) or records.get("linkpath") or decoded(header.link),
                )
                # Before POSIX, a directory was a file with a slash at the end of its name.
                if member is not None and not (header.kind == _OLD_FILE and path.endswith("/")):
                    # GNU tar gives a sparse file a substitute path, and records the real one here.
                    yield records.get("GNU.sparse.name") or path, member
                # Extended headers apply to one member only.
                name, link, records = b"", b"", {}

    def _next(self) -> TarHeader | None:
        """The next header, None at the end."""
        block = self._read(BLOCK)
        if not block or not any(block):
            return None
        start = self._position - len(block)
        try:
            return parse_header(block)
        except Malformed as error:
            problem = (
                f"it is {describe(block)}" if start == 0 else f"damaged header at byte {start}"
            )
            raise Malformed(f"cannot read {self._shown}: {problem} ({error})") from None

    def _member(
        self, header: TarHeader, records: dict[str, str], link: str
    ) -> ArchiveMember | None:
        """The member of a header; its content is skipped. None for directories and devices."""
        if header.kind in (_SYMBOLIC, _HARD):
            return ArchiveMember(0, 0, link, header.kind == _SYMBOLIC)
        sparse = header.kind == _SPARSE or any(key.startswith("GNU.sparse.") for key in records)
        if header.kind == _SPARSE:
            self._skip_sparse_map(header)
        size = 0
        if header.kind not in _NO_DATA:
            # The octal field of the header ends at 8 GiB: a PAX record replaces it.
            size = number_of(records, "size") or header.size
        begin = self._position
        # Checked here, since a position beyond the end would look like the end of the archive.
        if size < 0 or begin + size > self._size:
            raise Malformed(f"{self._shown} is truncated, or damaged before byte {begin}")
        # Content is padded to whole blocks.
        self._position += size + -size % BLOCK
        if header.kind not in _FILES:
            return None
        return ArchiveMember(begin, size, problem="it is stored as a sparse file" if sparse else "")

    def _skip_sparse_map(self, header: TarHeader) -> None:
        """Skip the blocks that continue the map of an old GNU sparse file."""
        more = header.raw[_MORE_IN_HEADER]
        while more:
            block = self._read(BLOCK)
            self._advance()
            more = block[_MORE_IN_MAP] if block else 0

    def _extension(self, header: TarHeader) -> bytes:
        """The content of an extended header, which describes the next member."""
        most = self._limits.layer_header_bytes
        # A size in GNU's base 256 can be negative.
        if not 0 <= header.size <= most:
            raise LimitExceeded(
                f"an extended header in {self._shown} exceeds limits.layer_header_bytes ({most})"
            )
        body = self._read(header.size)
        self._position += -header.size % BLOCK
        return body

    def _read(self, length: int) -> bytes:
        """The next `length` bytes, or none at the end of the file."""
        with translate_errors(self._shown):
            body = os.pread(self._descriptor, length, self._position)
        self._position += len(body)
        if body and len(body) < length:
            raise Malformed(f"{self._shown} is truncated at byte {self._position}")
        return body
