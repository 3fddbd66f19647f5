"""The members of an uncompressed tar: where each lies, and where its links lead.

Everything blocks: callers are worker threads. The archive is opened and listed once; the open file is read from then on.

Rules that hold here:
- An archive is a stranger's. Members, the length of names and extended headers are bounded, and the time is linear in their sum.
- A name never leaves the archive: it is made relative, and one with `..` is not listed. Links are resolved among the members.
- The file is read through the descriptor that was opened, also after it was renamed or replaced. Content that changed is an error.
- Of two members with one name the later holds, as when a tar is unpacked.
- tarfile decodes each header, and is not asked for more: it reads an extended header of any size, and takes quadratic time for some.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ocifs.errors import LimitExceeded, Malformed, NotFound, RegistryFailed
from ocifs.layout.place import Place, Version, explained, read_exactly, version_of
from ocifs.settings import Limits

_BLOCK = tarfile.BLOCKSIZE
_CONTENT = 4  # parts of a version that change with content; a rename changes the others
_LINKS = 40  # that are followed on the way to one member
_SPARSE_MORE, _SPARSE_FIRST = 504, 482  # where a header of GNU's sparse files records that another block follows


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """A regular member (`link` is None) or one that leads to another: `symbolic` links are relative to their directory."""

    offset: int
    size: int
    link: str | None = None
    symbolic: bool = False
    problem: str = ""


class ArchiveFiles:
    """The files of an archive, by their paths in it."""

    def __init__(
        self, descriptor: int, shown: str, limits: Limits, advance: Callable[[], None], version: Version | None = None
    ) -> None:
        """Takes over an open regular file. `advance` is called while it is listed. Raises Malformed, LimitExceeded.

        `version`: that of the file which this one was unpacked from. No process writes to this one then.
        """
        self.shown = shown
        self._descriptor = descriptor
        self._changes = version is None
        with explained(shown):
            self.version: Version = version or version_of(os.fstat(descriptor))
        self._members = list_members(descriptor, shown, limits, advance)
        self._below_one_directory()

    def __del__(self) -> None:
        os.close(self._descriptor)

    def find(self, name: str) -> Place:
        """Where a member lies; links are followed. Raises NotFound, Malformed."""
        member = self._resolved(name)
        if member.problem:
            raise Malformed(f"{name} in {self.shown} cannot be read: {member.problem}")
        begin, version = member.offset, self._checked_version()

        def read_at(offset: int, length: int) -> bytes:
            self._checked_version()
            return read_exactly(self._descriptor, begin + offset, length, self.shown)

        return Place(member.size, (*version, begin), read_at)

    def _checked_version(self) -> Version:
        """The version of the file now. Raises RegistryFailed when its content is another than that which was listed."""
        if not self._changes:
            return self.version
        with explained(self.shown):
            version = version_of(os.fstat(self._descriptor))
        if version[:_CONTENT] != self.version[:_CONTENT]:
            raise RegistryFailed(f"{self.shown} changed after it was opened", hint="open it again, or mount it again")
        return version

    def has(self, name: str) -> bool:
        """Whether there is a member of this name, or below it."""
        return name in self._members or any(each.startswith(f"{name}/") for each in self._members)

    def _resolved(self, name: str) -> ArchiveMember:
        path = name
        for _ in range(_LINKS):
            member = self._members.get(path)
            if member is None:
                path, passed = self._through_directories(path)
                if not passed:
                    raise NotFound(f"{self.shown} has no {name}")
                continue
            if member.link is None:
                return member
            path = _joined(path.rpartition("/")[0] if member.symbolic else "", member.link)
            if not path:
                raise Malformed(f"{name} in {self.shown} is a link out of the archive")
        raise Malformed(f"{name} in {self.shown} is a link in a circle, or behind too many")

    def _through_directories(self, path: str) -> tuple[str, bool]:
        """The path with its first component that is a link replaced by what that leads to."""
        parts = path.split("/")
        for number in range(1, len(parts)):
            member = self._members.get("/".join(parts[:number]))
            if member is not None and member.symbolic and member.link is not None:
                target = _joined("/".join(parts[: number - 1]), member.link)
                return "/".join([target, *parts[number:]]), bool(target)
        return path, False

    def _below_one_directory(self) -> None:
        """Take away the one directory that all members are in, if what is looked for is in it."""
        tops = {name.partition("/")[0] for name in self._members}
        if len(tops) != 1 or not tops:
            return
        [top] = tops
        if top in self._members or not {f"{top}/index.json", f"{top}/manifest.json"} & self._members.keys():
            return
        self._members = {name[len(top) + 1 :]: _moved(member, top) for name, member in self._members.items()}


def _moved(member: ArchiveMember, top: str) -> ArchiveMember:
    """A member of an archive whose top directory is taken away: names in hard links begin with it."""
    if member.link is None or member.symbolic or not member.link.startswith(f"{top}/"):
        return member
    return ArchiveMember(member.offset, member.size, member.link[len(top) + 1 :])


def list_members(descriptor: int, shown: str, limits: Limits, advance: Callable[[], None]) -> dict[str, ArchiveMember]:
    """The members of a tar that can be found by a name. Raises Malformed, LimitExceeded."""
    members: dict[str, ArchiveMember] = {}
    weight = 0
    for number, (name, member) in enumerate(_Reader(descriptor, shown, limits, advance).members()):
        weight += len(name) + len(member.link or "")
        if number >= limits.archive_members:
            raise LimitExceeded(f"{shown} has more members than limits.archive_members ({limits.archive_members})")
        if weight > limits.layer_index_bytes:
            raise LimitExceeded(f"the names in {shown} pass limits.layer_index_bytes ({limits.layer_index_bytes})")
        path = _joined("", name)
        if path:
            members[path] = member
    return members


def _joined(directory: str, name: str) -> str:
    """A name in a directory of the archive as a path from its top; empty if it leads out of it."""
    parts: list[str] = []
    for part in (directory if not name.startswith("/") else "").split("/") + name.split("/"):
        if part == "..":
            if not parts:
                return ""
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


class _Reader:
    """Reads the headers of a tar, and passes over what is between them."""

    def __init__(self, descriptor: int, shown: str, limits: Limits, advance: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._shown = shown
        self._limits = limits
        self._size = os.fstat(descriptor).st_size
        self._advance = advance
        self._position = 0

    def members(self) -> Iterator[tuple[str, ArchiveMember]]:
        """Names and members in order, also those that are neither files nor links: they are directories to `_resolved`."""
        long: dict[str, str] = {}
        records: dict[str, str] = {}  # of two PAX headers before one member the latter holds
        while (info := self._next()) is not None:
            self._advance()
            if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
                key = "path" if info.type == tarfile.GNUTYPE_LONGNAME else "linkpath"
                long[key] = self._extension(info).partition(b"\0")[0].decode("utf-8", "surrogateescape")
            elif info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                records = pax_records(self._extension(info))
            elif info.type == tarfile.XGLTYPE:
                self._extension(info)
            else:
                found = self._member(info, {**long, **records})
                long, records = {}, {}
                if found is not None:
                    yield found

    def _next(self) -> tarfile.TarInfo | None:
        """The next header, None at the end."""
        block = self._read(_BLOCK)
        if not block or not any(block):
            return None
        where = self._position - len(block)
        try:
            return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            what = "not a tar file" if where == 0 else f"a damaged header at byte {where}"
            raise Malformed(f"{self._shown} cannot be read: {what} ({error})") from None

    def _member(self, info: tarfile.TarInfo, records: dict[str, str]) -> tuple[str, ArchiveMember] | None:
        name, link = records.get("path") or info.name, records.get("linkpath") or info.linkname
        if info.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            return name, ArchiveMember(0, 0, link, info.type == tarfile.SYMTYPE)
        problem = ""
        if info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse.") for key in records):
            problem = "it is stored as a sparse file"
            name = records.get("GNU.sparse.name") or name
        size = self._size_of(info, records)
        begin = self._position
        self._skip(size)
        if info.isdir() or not (info.isreg() or problem):
            return None
        return name, ArchiveMember(begin, size, problem=problem)

    def _size_of(self, info: tarfile.TarInfo, records: dict[str, str]) -> int:
        """The bytes that follow a header. Only files have some; GNU's sparse files have more headers before them."""
        if info.type == tarfile.GNUTYPE_SPARSE:
            more = self._peek(self._position - _BLOCK + _SPARSE_FIRST)
            while more:
                block = self._read(_BLOCK)
                more = block[_SPARSE_MORE] if len(block) == _BLOCK else 0
        if info.isdev() or info.isdir() or info.issym():
            return 0
        text = records.get("size", "")
        size = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else info.size
        if size < 0 or self._position + size > self._size:
            raise Malformed(f"{self._shown} is truncated, or damaged before byte {self._position}")
        return size

    def _extension(self, info: tarfile.TarInfo) -> bytes:
        """The content of a header that is about the next member."""
        most = self._limits.layer_header_bytes
        if not 0 <= info.size <= most:
            raise LimitExceeded(f"an extended header in {self._shown} passes limits.layer_header_bytes ({most})")
        body = self._read(info.size)
        self._skip(-info.size % _BLOCK, padded=False)
        return body

    def _read(self, length: int) -> bytes:
        with explained(self._shown):
            body = os.pread(self._descriptor, length, self._position)
        self._position += len(body)
        if len(body) == length or (not body and length == _BLOCK):
            return body
        raise Malformed(f"{self._shown} is truncated at byte {self._position}")

    def _peek(self, position: int) -> int:
        with explained(self._shown):
            found = os.pread(self._descriptor, 1, position)
        return found[0] if found else 0

    def _skip(self, size: int, *, padded: bool = True) -> None:
        self._position += size + (-size % _BLOCK if padded else 0)


def pax_records(body: bytes) -> dict[str, str]:
    """The records of a PAX header (POSIX pax, "pax Extended Header"): `LENGTH KEY=VALUE\\n`. Raises Malformed."""
    records: dict[str, str] = {}
    start = 0
    while start < len(body) and body[start]:
        space = body.find(b" ", start, start + 20)
        digits = body[start:space] if space > 0 else b""
        stop = start + int(digits) if digits.isdigit() else 0
        equals = body.find(b"=", space, stop) if stop else -1
        if equals < 0 or stop > len(body) or body[stop - 1 : stop] != b"\n":
            raise Malformed("a PAX header in the archive is damaged")
        key, value = body[space + 1 : equals], body[equals + 1 : stop - 1]
        records[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        start = stop
    return records
