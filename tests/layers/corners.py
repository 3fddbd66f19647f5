"""Unusual tars and stacks of tars: byte for byte as tools write them, or deliberately invalid.

Rules:

- The name of a corner describes what is unusual.
- The lowest layer of a stack of several layers is BELOW.
"""

from __future__ import annotations

import base64
import tarfile

from tests.layers.tars import DIRECTORY, FILE, HARDLINK, SYMLINK, tar
from tests.layers.tars import entry as bare_entry

TIME = 1_500_000_000
END = bytes(1024)
V7 = bytes(8)
GNU = b"ustar  \0"
POSIX = b"ustar\x0000"
Number = int | bytes


def base256(value: int, width: int) -> bytes:
    """A number in GNU's base 256, for values that do not fit into octal digits."""
    first = 0x80 << (8 * (width - 1)) if value >= 0 else 0
    return (value & ((1 << (8 * width)) - 1) | first).to_bytes(width, "big")


def block(name: bytes, kind: bytes = b"0", content: bytes = b"", **fields: Number) -> bytes:
    """A header and its padded content.

    Fields are numbers, or bytes that are written unchanged. `tail`: everything from the prefix on.
    """
    header = bytearray(512)

    def put(place: int, width: int, default: Number, field: str) -> None:
        value = fields.get(field, default)
        raw = b"%0*o\0" % (width - 1, value) if isinstance(value, int) else value
        assert len(raw) <= width, field
        header[place : place + len(raw)] = raw

    magic = fields.get("magic", POSIX)
    put(0, 100, name, "name")
    put(100, 8, 0o755 if kind == b"5" else 0o644, "mode")
    put(108, 8, 0, "uid")
    put(116, 8, 0, "gid")
    put(124, 12, len(content), "size")
    put(136, 12, TIME, "mtime")
    header[156:157] = kind
    put(157, 100, b"", "link")
    put(257, 8, POSIX, "magic")
    put(329, 8, b"" if magic == V7 else 0, "major")
    put(337, 8, b"" if magic == V7 else 0, "minor")
    put(345, 155, b"", "prefix")
    put(345, 167, b"", "tail")
    header[148:156] = b" " * 8
    checksum = fields.get("checksum", sum(header))
    assert isinstance(checksum, int)
    header[148:156] = b"%06o\0 " % checksum
    return bytes(header) + content + bytes(-len(content) % 512)


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """A header of PAX records for the next entry, or a global one (`g`)."""
    written = b""
    for key, value in records:
        body = b" " + key + b"=" + value + b"\n"
        size = len(body)
        while size != len(body) + len(str(size)):
            size = len(body) + len(str(size))
        written += str(size).encode() + body
    return block(b"PaxHeaders/x", kind, written)


def entry(
    name: str, kind: bytes = FILE, content: bytes = b"", **facts: object
) -> tuple[tarfile.TarInfo, bytes]:
    """An entry for `tar`, with the modification time of all corners."""
    return bare_entry(name, kind, content, **{"mtime": TIME, **facts})


def sparse(
    *records: tuple[bytes, bytes], name: bytes = b"x", pieces: bytes = b"2\n1000\n3\n2000\n0\n"
) -> bytes:
    """A sparse file of 2,000 bytes in PAX form 1.0, with `abc` at 1,000, and a file after it."""
    stored = pieces.ljust(512, b"\0") + b"abc".ljust(512, b"\0")
    said = (
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.realsize", b"2000"),
    )
    return pax(*records, *said) + block(name, size=515)[:512] + stored + block(b"after") + END


def sparse_map(offset: int, length: int, *, size: int) -> bytes:
    """The end of a header of GNU's type `S`, from the prefix on, with one piece of data."""
    pieces = b"%011o\0%011o\0" % (offset, length) + b"%011o\0%011o\0" % (size, 0)
    return bytes(41) + pieces.ljust(97, b"\0") + b"%011o\0" % size


CORNERS: dict[str, list[bytes]] = {}
CORNERS["ustar prefix"] = [
    block(b"n" * 100, prefix=b"p" * 155, content=b"x") + block(b"short", prefix=b"a/b") + END
]
CORNERS["v7"] = [
    block(b"d/", b"\0", magic=V7)
    + block(b"d/f", b"\0", b"hello", magic=V7)
    + block(b"d/s", b"2", magic=V7, link=b"f")
    + block(b"d/h", b"1", magic=V7, link=b"d/f")
    + END
]
CORNERS["v7 name of 100"] = [block(b"n" * 100, b"\0", b"x", magic=V7) + END]
CORNERS["slash on a file of type 0"] = [block(b"d/", b"0") + END]
CORNERS["slash on a file with content"] = [block(b"d/", b"0", b"abc") + block(b"z") + END]
CORNERS["pax path linkpath"] = [
    pax((b"path", b"long/" * 60 + b"p"), (b"linkpath", b"t" * 300))
    + block(b"s", b"2", link=b"s")
    + END
]
CORNERS["pax size"] = [
    pax((b"size", b"5"))
    + block(b"f", content=b"hello", size=0)[:512]
    + b"hello"
    + bytes(507)
    + block(b"after")
    + END
]
CORNERS["pax times"] = [
    pax((b"mtime", b"1500000000.123456789123"))
    + block(b"f")
    + pax((b"mtime", b"-1.5"))
    + block(b"g")
    + pax((b"mtime", b"-0.000000001"))
    + block(b"h")
    + pax((b"mtime", b"1500000000.5"), (b"atime", b"3.5"), (b"ctime", b"4"))
    + block(b"i")
    + END
]
CORNERS["pax ids"] = [pax((b"uid", b"2097152"), (b"gid", b"4000000000")) + block(b"f") + END]
CORNERS["base-256"] = [
    block(
        b"f",
        uid=base256(3_000_000, 8),
        gid=base256(4_000_000_000, 8),
        mtime=base256(-5, 12),
        magic=GNU,
    )
    + block(b"g", size=base256(3, 12), content=b"abc", magic=GNU, mtime=base256(5_000_000_000, 12))
    + END
]
CORNERS["base-256 uid beyond"] = [block(b"f", uid=base256(1 << 40, 8), magic=GNU) + END]
CORNERS["base-256 uid negative"] = [block(b"f", uid=base256(-2, 8), magic=GNU) + END]
CORNERS["numbers with spaces"] = [
    block(
        b"f",
        mode=b"   644 \0",
        uid=b"    12 \0",
        size=b"          3 ",
        mtime=b" 13132027400",
        content=b"abc",
    )
    + block(b"e", mode=b"644", uid=b"", gid=b"       ", mtime=b"")
    + END
]
CORNERS["gnu long both"] = [
    block(b"././@LongLink", b"L", b"n" * 150 + b"/" + b"m" * 150 + b"\0", magic=GNU)
    + block(b"././@LongLink", b"K", b"t" * 200 + b"\0", magic=GNU)
    + block(b"x", b"2", magic=GNU, link=b"x")
    + END
]
CORNERS["gnu link then name"] = [
    block(b"././@LongLink", b"K", b"t" * 200 + b"\0", magic=GNU)
    + block(b"././@LongLink", b"L", b"n" * 150 + b"\0", magic=GNU)
    + block(b"x", b"2", magic=GNU, link=b"x")
    + END
]
CORNERS["gnu long without nul"] = [
    block(b"././@LongLink", b"L", b"n" * 150, magic=GNU) + block(b"x", magic=GNU) + END
]
CORNERS["gnu long then pax"] = [
    block(b"././@LongLink", b"L", b"gnu" * 50 + b"\0", magic=GNU)
    + pax((b"path", b"pax"))
    + block(b"x", magic=GNU)
    + END
]
CORNERS["pax then gnu long"] = [
    pax((b"path", b"pax"))
    + block(b"././@LongLink", b"L", b"gnu" * 50 + b"\0", magic=GNU)
    + block(b"x", magic=GNU)
    + END
]
X99, Y120 = b"x" * 99, b"y" * 120
for _magic, _form in ((GNU, "gnu"), (POSIX, "posix"), (V7, "v7")):
    CORNERS[f"old type, long name cut at a slash, {_form}"] = [
        block(b"././@LongLink", b"L", X99 + b"/file\0", magic=GNU)
        + block(X99 + b"/", b"\0", b"content", magic=_magic)
        + block(b"after", content=b"2")
        + END
    ]
    CORNERS[f"old type, long name of a directory, {_form}"] = [
        block(b"././@LongLink", b"L", Y120 + b"/\0", magic=GNU)
        + block(Y120[:100], b"\0", magic=_magic)
        + block(b"after", content=b"2")
        + END
    ]
    CORNERS[f"old type, pax path cut at a slash, {_form}"] = [
        pax((b"path", X99 + b"/file"))
        + block(X99 + b"/", b"\0", b"content", magic=_magic)
        + block(b"after", content=b"2")
        + END
    ]
    CORNERS[f"old type, pax path of a directory, {_form}"] = [
        pax((b"path", Y120 + b"/"))
        + block(Y120[:100], b"\0", magic=_magic)
        + block(b"after", content=b"2")
        + END
    ]
CORNERS["old type, a prefix and a slash"] = [
    block(b"d/", b"\0", prefix=b"p") + block(b"f", b"\0", prefix=b"p/d/") + END
]
CORNERS["old type, a slash and a pax path without"] = [
    pax((b"path", b"f")) + block(b"d/", b"\0", b"1") + END
]
CORNERS["old type of a hard link's target"] = [
    block(b"f", b"\0", b"1")
    + block(b"././@LongLink", b"K", b"f\0", magic=GNU)
    + block(b"h", b"1", link=b"x/")
    + END
]
CORNERS["two gnu long names"] = [
    block(b"././@LongLink", b"L", b"first\0", magic=GNU)
    + block(b"././@LongLink", b"L", b"second\0", magic=GNU)
    + block(b"x", content=b"1", magic=GNU)
    + block(b"after", content=b"2")
    + END
]
CORNERS["two gnu long links"] = [
    block(b"././@LongLink", b"K", b"first\0", magic=GNU)
    + block(b"././@LongLink", b"K", b"second\0", magic=GNU)
    + block(b"x", b"2", magic=GNU, link=b"x")
    + END
]
CORNERS["gnu long names about a link between"] = [
    block(b"././@LongLink", b"L", b"first\0", magic=GNU)
    + block(b"././@LongLink", b"K", b"target\0", magic=GNU)
    + block(b"././@LongLink", b"L", b"second\0", magic=GNU)
    + block(b"x", b"2", magic=GNU, link=b"x")
    + END
]
CORNERS["gnu long name of nothing"] = [
    block(b"././@LongLink", b"L", b"\0", magic=GNU) + block(b"x", magic=GNU) + END
]
CORNERS["gnu long name and a sparse name"] = [
    block(b"././@LongLink", b"L", b"gnu\0", magic=GNU) + sparse((b"GNU.sparse.name", b"sp"))
]
CORNERS["two pax headers"] = [
    pax((b"path", b"first"), (b"uid", b"5")) + pax((b"path", b"second")) + block(b"x") + END
]
CORNERS["pax path twice"] = [pax((b"path", b"first"), (b"path", b"second")) + block(b"x") + END]
CORNERS["pax empty value"] = [
    pax((b"path", b""), (b"uid", b""), (b"mtime", b"")) + block(b"x", uid=7) + END
]
CORNERS["gnu incremental times"] = [
    block(b"f", magic=GNU, tail=b"14721352313\x0014721352313\0", content=b"inc") + END
]
CORNERS["gnu dumpdir"] = [
    block(b"d/", b"D", b"Yf\0\0", magic=GNU) + block(b"d/f", magic=GNU, content=b"1") + END
]
CORNERS["hard pax"] = [
    tar(entry("a/" * 80 + "f", content=b"x"), entry("h" * 130, HARDLINK, linkname="a/" * 80 + "f"))
]
CORNERS["hard to symlink"] = [
    tar(
        entry("s", SYMLINK, linkname="nowhere"),
        entry("t", HARDLINK, linkname="s"),
        entry("f", content=b"1"),
        entry("s2", SYMLINK, linkname="f"),
        entry("t2", HARDLINK, linkname="./s2"),
    )
]
CORNERS["hard chain"] = [
    tar(
        entry("a", content=b"1"),
        entry("b", HARDLINK, linkname="a"),
        entry("c", HARDLINK, linkname="b"),
        entry("a", content=b"2"),
        entry("d", HARDLINK, linkname="a"),
    )
]
CORNERS["hard to itself"] = [tar(entry("a", content=b"1"), entry("a", HARDLINK, linkname="a"))]
CORNERS["hard forward"] = [tar(entry("b", HARDLINK, linkname="a"), entry("a", content=b"1"))]
CORNERS["hard to directory"] = [tar(entry("a", DIRECTORY), entry("b", HARDLINK, linkname="a"))]
CORNERS["hard with size"] = [
    block(b"a", content=b"123") + block(b"b", b"1", link=b"a", size=3) + block(b"c") + END
]
CORNERS["hard with data"] = [
    block(b"a", content=b"123") + block(b"b", b"1", link=b"a", content=b"123") + block(b"c") + END
]
CORNERS["hard to device"] = [
    tar(
        entry("n", tarfile.CHRTYPE, devmajor=1, devminor=3),
        entry("m", HARDLINK, linkname="n"),
        entry("p", tarfile.FIFOTYPE),
        entry("q", HARDLINK, linkname="p"),
    )
]
CORNERS["hard abs"] = [
    tar(
        entry("x/f", content=b"1"),
        entry("g", HARDLINK, linkname="/x/f"),
        entry("h", HARDLINK, linkname="../../x/f"),
    )
]
CORNERS["hard through symlink"] = [
    tar(
        entry("d/f", content=b"1"),
        entry("l", SYMLINK, linkname="d"),
        entry("h", HARDLINK, linkname="l/f"),
    )
]
CORNERS["symlink with size"] = [block(b"s", b"2", link=b"t", size=1) + block(b"c") + END]
CORNERS["directory with size"] = [block(b"d", b"5", size=512) + block(b"c") + END]
CORNERS["devices"] = [
    block(b"c", b"3", major=1, minor=3)
    + block(b"b", b"4", major=259, minor=70000)
    + block(b"max", b"3", major=4095, minor=1048575)
    + END
]
CORNERS["device beyond major"] = [
    block(b"c", b"3", major=4096, minor=3) + block(b"d", b"3", major=5000, minor=3) + END
]
CORNERS["device beyond minor"] = [
    block(b"c", b"3", major=1, minor=1048576) + block(b"d", b"3", major=1, minor=2000000) + END
]
CORNERS["device most"] = [block(b"c", b"3", major=0o7777777, minor=0o7777777) + END]
CORNERS["device base-256"] = [
    block(b"c", b"3", major=base256(1 << 33, 8), minor=base256(1 << 31, 8), magic=GNU) + END
]
CORNERS["device negative"] = [
    block(b"c", b"3", major=base256(-1, 8), minor=base256(-1, 8), magic=GNU) + END
]
CORNERS["file with device numbers"] = [block(b"f", major=9999, minor=2000000) + END]
CORNERS["fifo"] = [block(b"p", b"6", mode=0o600) + END]
CORNERS["fifo with size"] = [block(b"p", b"6", size=5) + block(b"c") + END]
CORNERS["implied"] = [tar(entry("a/b/c", content=b"1"), entry("x/y", SYMLINK, linkname="z"))]
CORNERS["implied then given"] = [
    tar(
        entry("a/b/c", content=b"1"),
        entry("a", DIRECTORY, mode=0o700),
        entry("a/b", DIRECTORY, mode=0o711, uid=3),
    )
]
CORNERS["repeated dir"] = [
    tar(
        entry("a", DIRECTORY, mode=0o700),
        entry("a/f", content=b"1"),
        entry("a", DIRECTORY, mode=0o711, mtime=TIME + 5),
    )
]
CORNERS["file over file"] = [tar(entry("a", content=b"1", mode=0o600), entry("a", content=b"22"))]
CORNERS["dir over file"] = [tar(entry("a", content=b"1"), entry("a", DIRECTORY), entry("a/b"))]
CORNERS["file over dir"] = [tar(entry("a", DIRECTORY), entry("a/b"), entry("a", content=b"1"))]
CORNERS["file over empty dir"] = [tar(entry("a", DIRECTORY), entry("a", content=b"1"))]
CORNERS["symlink over dir"] = [
    tar(
        entry("b", DIRECTORY),
        entry("a", DIRECTORY),
        entry("a/x"),
        entry("a", SYMLINK, linkname="b"),
        entry("a/y"),
    )
]
CORNERS["dir over symlink"] = [
    tar(
        entry("b", DIRECTORY),
        entry("a", SYMLINK, linkname="b"),
        entry("a", DIRECTORY, mode=0o700),
        entry("a/y"),
    )
]
CORNERS["dir over dangling symlink"] = [tar(entry("a", SYMLINK, linkname="b"), entry("a/y"))]
CORNERS["file under file"] = [tar(entry("a", content=b"1"), entry("a/b", content=b"2"))]
CORNERS["symlink over symlink"] = [
    tar(entry("a", SYMLINK, linkname="b"), entry("a", SYMLINK, linkname="c"))
]
CORNERS["file over symlink"] = [
    tar(entry("b", content=b"old"), entry("a", SYMLINK, linkname="b"), entry("a", content=b"new"))
]
CORNERS["dev over file"] = [tar(entry("a", content=b"1"), entry("a", tarfile.FIFOTYPE))]
CORNERS["not utf-8"] = [
    block(b"caf\xe9/\xff\xfe", content=b"1")
    + block(b"l", b"2", link=b"caf\xe9")
    + pax((b"path", b"p\xff\xe9"))
    + block(b"x")
    + pax((b"hdrcharset", b"BINARY"), (b"path", b"q\xff\xe9"))
    + block(b"x")
    + END
]
CORNERS["utf-8"] = [tar(entry("caf\u00e9/\u65e5\u672c", content=b"1"), entry("e\u0301"))]
CORNERS["odd names"] = [
    block(b"a\nb")
    + block(b" ")
    + block(b"-rf")
    + block(b"a\\b")
    + block(b"a\tb\x7f\x01")
    + block(b"...")
    + block(b"a.")
    + block(b"%41")
    + END
]
CORNERS["dot prefix"] = [
    block(b"./", b"5", mode=0o711) + block(b"./a/./b") + block(b".//c//d") + END
]
CORNERS["absolute"] = [block(b"/a/b") + block(b"//c", b"5") + END]
CORNERS["dotdot"] = [
    block(b"../../a") + block(b"x/../../b") + block(b"x/../c") + block(b"d/..") + END
]
CORNERS["dotdot dir"] = [block(b"..", b"5", mode=0o700) + block(b"a") + END]
CORNERS["empty name"] = [block(b"", b"5", mode=0o711) + block(b"a") + END]
CORNERS["empty file name"] = [block(b"", b"0") + block(b"a") + END]
CORNERS["root is file"] = [block(b"./", b"0", b"") + block(b".", b"0", b"x") + block(b"a") + END]
CORNERS["root is link"] = [block(b".", b"2", link=b"/etc") + block(b"a") + END]
CORNERS["no end"] = [block(b"a", content=b"1")]
CORNERS["one end block"] = [block(b"a", content=b"1") + bytes(512)]
CORNERS["lone zero block"] = [block(b"a", content=b"1") + bytes(512) + block(b"b") + END]
CORNERS["concatenated"] = [block(b"a", content=b"1") + END + block(b"b") + END]
CORNERS["content not padded"] = [block(b"a", content=b"1")[:513]]
CORNERS["trailing zeros"] = [block(b"a") + bytes(20000)]
CORNERS["trailing short"] = [block(b"a") + END + b"x"]
CORNERS["trailing half block of zeros"] = [block(b"a") + bytes(1024 + 100)]
CORNERS["empty"] = [b""]
CORNERS["empty tar"] = [END]
CORNERS["zeros half"] = [bytes(100)]
CORNERS["global"] = [
    pax((b"path", b"evil"), (b"uid", b"77"), (b"comment", b"abc"), kind=b"g")
    + block(b"a", uid=5)
    + pax((b"mtime", b"1.5"))
    + block(b"b")
    + END
]
CORNERS["global only"] = [pax((b"comment", b"0123456789abcdef"), kind=b"g") + END]
ALL_BYTES = bytes(range(256))
CORNERS["xattr schily"] = [
    pax(
        (b"SCHILY.xattr.user.bin", ALL_BYTES),
        (b"SCHILY.xattr.user.empty", b""),
        (b"SCHILY.xattr.user.nl", b"a\nb\n"),
        (b"SCHILY.xattr.trusted.x", b"t"),
    )
    + block(b"f")
    + pax((b"SCHILY.xattr.user.dir", b"d"))
    + block(b"d", b"5")
    + pax((b"SCHILY.xattr.trusted.l", b"l"))
    + block(b"l", b"2", link=b"f")
    + END
]
CORNERS["xattr libarchive"] = [
    pax((b"LIBARCHIVE.xattr.user.bin", base64.b64encode(ALL_BYTES).rstrip(b"=")))
    + block(b"f")
    + pax((b"LIBARCHIVE.xattr.user.%20a", base64.b64encode(b"v")))
    + block(b"g")
    + END
]
CORNERS["xattr both"] = [
    pax((b"LIBARCHIVE.xattr.user.a", base64.b64encode(b"lib")), (b"SCHILY.xattr.user.a", b"sch"))
    + block(b"f")
    + pax((b"SCHILY.xattr.user.a", b"sch"), (b"LIBARCHIVE.xattr.user.a", base64.b64encode(b"lib")))
    + block(b"g")
    + END
]
CORNERS["xattr libarchive bad"] = [pax((b"LIBARCHIVE.xattr.user.a", b"!!!")) + block(b"f") + END]
CORNERS["xattr equals in name"] = [pax((b"SCHILY.xattr.user.a=b", b"c=d")) + block(b"f") + END]
CORNERS["xattr capability"] = [
    pax(
        (
            b"SCHILY.xattr.security.capability",
            bytes.fromhex("0100000200200000000000000000000000000000"),
        )
    )
    + block(b"f")
    + END
]
CORNERS["xattr unknown namespace"] = [
    pax((b"SCHILY.xattr.foo.bar", b"x"), (b"SCHILY.xattr.user.ok", b"x")) + block(b"f") + END
]
CORNERS["xattr on hard link"] = [
    pax((b"SCHILY.xattr.user.a", b"1"))
    + block(b"f")
    + pax((b"SCHILY.xattr.user.b", b"2"))
    + block(b"h", b"1", link=b"f")
    + END
]
CORNERS["hard link with other attributes"] = [
    block(b"f", content=b"1", mode=0o600)
    + block(b"h", b"1", link=b"f", mode=0o755, mtime=TIME + 9, uid=4)
    + END
]
CORNERS["acl"] = [
    pax((b"SCHILY.acl.access", b"user::rw-,user:1000:rw-,group::r--,mask::rw-,other::r--"))
    + block(b"f")
    + END
]
for letter in b"ZMVNXAE89":
    CORNERS[f"type {chr(letter)}"] = [
        block(b"a") + block(b"u", bytes([letter]), b"content") + block(b"b") + END
    ]
CORNERS["type 7"] = [block(b"u", b"7", b"content") + END]
CORNERS["type X pax"] = [block(b"x", b"X", b"12 path=abc\n") + block(b"f") + END]
CORNERS["mode with type bits"] = [
    block(b"f", mode=b"0100644\0")
    + block(b"d", b"5", mode=b"0040755\0")
    + block(b"s", mode=0o7777)
    + END
]
CORNERS["size of 12 digits"] = [block(b"f", size=b"%012o" % 3, content=b"abc") + END]
CORNERS["signed checksum"] = [
    block(
        b"\xff\xfe\xfd",
        checksum=sum(block(b"\xff\xfe\xfd")[:148])
        + 256
        + sum(block(b"\xff\xfe\xfd")[156:512])
        - 256 * 3,
    )
    + END
]
CORNERS["symlink empty"] = [block(b"s", b"2", link=b"") + END]
CORNERS["symlink odd"] = [
    block(b"s", b"2", link=b"//a/../b/")
    + block(b"t", b"2", link=b"\xff")
    + block(b"u", b"2", link=b"t" * 100)
    + END
]
CORNERS["symlink mode"] = [block(b"s", b"2", link=b"a", mode=0o600, uid=3, gid=4) + END]
CORNERS["name of 256"] = [pax((b"path", b"n" * 256)) + block(b"x") + END]
CORNERS["whiteout in first layer"] = [
    block(b"a/.wh.b") + block(b"a/c") + block(b"a/.wh..wh..opq") + END
]
CORNERS["wh name"] = [block(b".wh.", content=b"1") + block(b"a") + END]
CORNERS["plnk"] = [
    block(b".wh..wh.plnk/1.2", content=b"1")
    + block(b"f", b"1", link=b".wh..wh.plnk/1.2")
    + block(b".wh..wh.aufs")
    + END
]
BELOW = tar(
    entry("d", DIRECTORY),
    entry("d/f", content=b"old", mode=0o600),
    entry("d/g", content=b"g"),
    entry("f", content=b"f"),
    entry("l", SYMLINK, linkname="d"),
    entry("x", DIRECTORY),
    entry("x/y", DIRECTORY),
    entry("x/y/z", content=b"z"),
)
CORNERS["hard over layers"] = [
    BELOW,
    tar(entry("h", HARDLINK, linkname="d/f"), entry("h2", HARDLINK, linkname="l/g")),
]
CORNERS["hard then target deleted above"] = [
    BELOW,
    tar(entry("h", HARDLINK, linkname="f")),
    tar(entry(".wh.f")),
]
CORNERS["hard then link deleted above"] = [
    BELOW,
    tar(entry("h", HARDLINK, linkname="f")),
    tar(entry(".wh.h")),
]
CORNERS["hard then target replaced"] = [
    BELOW,
    tar(entry("h", HARDLINK, linkname="f")),
    tar(entry("f", content=b"new")),
]
CORNERS["hard to deleted same layer, link first"] = [
    BELOW,
    tar(entry("h", HARDLINK, linkname="f"), entry(".wh.f")),
]
CORNERS["hard to deleted same layer, wh first"] = [
    BELOW,
    tar(entry(".wh.f"), entry("h", HARDLINK, linkname="f")),
]
CORNERS["hard to symlink below"] = [BELOW, tar(entry("h", HARDLINK, linkname="l"))]
CORNERS["dir over symlink upper"] = [BELOW, tar(entry("l", DIRECTORY, mode=0o700), entry("l/new"))]
CORNERS["through symlink upper"] = [BELOW, tar(entry("l/new", content=b"1"))]
CORNERS["file over dir upper"] = [BELOW, tar(entry("x", content=b"1"))]
CORNERS["symlink over dir upper"] = [BELOW, tar(entry("x", SYMLINK, linkname="d"))]
CORNERS["dir over file upper"] = [BELOW, tar(entry("f", DIRECTORY), entry("f/in"))]
CORNERS["implied dir over existing"] = [BELOW, tar(entry("x/y/new"))]
CORNERS["implied over file"] = [BELOW, tar(entry("f/in"))]
CORNERS["whiteout dir"] = [BELOW, tar(entry("x/.wh.y"))]
CORNERS["whiteout as hard link"] = [BELOW, tar(entry("q"), entry(".wh.f", HARDLINK, linkname="q"))]
CORNERS["whiteout as directory"] = [BELOW, tar(entry(".wh.f", DIRECTORY))]
CORNERS["whiteout as symlink"] = [BELOW, tar(entry(".wh.f", SYMLINK, linkname="zz"))]
CORNERS["whiteout with content"] = [BELOW, tar(entry(".wh.f", content=b"abc"))]
CORNERS["whiteout char 0,0"] = [BELOW, tar(entry("f", tarfile.CHRTYPE, devmajor=0, devminor=0))]
CORNERS["opaque last"] = [BELOW, tar(entry("d/new"), entry("d/.wh..wh..opq"))]
CORNERS["opaque first"] = [BELOW, tar(entry("d/.wh..wh..opq"), entry("d/new"))]
CORNERS["opaque then hard link to hidden"] = [
    BELOW,
    tar(entry("d/.wh..wh..opq"), entry("d/h", HARDLINK, linkname="d/f")),
]
CORNERS["opaque root"] = [BELOW, tar(entry(".wh..wh..opq"), entry("new"))]
CORNERS["opaque of missing"] = [BELOW, tar(entry("nope/.wh..wh..opq"))]
CORNERS["whiteout root-ish"] = [BELOW, tar(entry(".wh..."), entry(".wh.."), entry("d/.wh.."))]
CORNERS["whiteout prefix only"] = [BELOW, tar(entry("d/.wh."))]
CORNERS["whiteout of nested missing"] = [BELOW, tar(entry("nope/.wh.x"))]
CORNERS["whiteout through symlink"] = [BELOW, tar(entry("l/.wh.g"))]
CORNERS["whiteout then new same name"] = [BELOW, tar(entry(".wh.f"), entry("f", content=b"again"))]
CORNERS["new then whiteout same name"] = [BELOW, tar(entry("f", content=b"again"), entry(".wh.f"))]
CORNERS["overlay opaque xattr"] = [
    BELOW,
    tar(
        entry("d", DIRECTORY, pax_headers={"SCHILY.xattr.trusted.overlay.opaque": "y"}),
        entry("d/n"),
    ),
]
CORNERS["dir mtime after children"] = [
    BELOW,
    tar(entry("d", DIRECTORY, mtime=TIME + 9), entry("d/n", mtime=TIME + 7)),
]
CORNERS["child without dir entry"] = [BELOW, tar(entry("d/n", mtime=TIME + 7))]
CORNERS["empty between"] = [BELOW, b"", bytes(1024), tar(entry("n"))]
CORNERS["star prefix"] = [
    block(b"f", tail=b"p" * 131 + b"13132027400\x0013132027400\0" + bytes(8) + b"tar\0") + END
]
CORNERS["two pax"] = [
    pax((b"uid", b"5"), (b"mtime", b"7")) + pax((b"path", b"second")) + block(b"x") + END
]
CORNERS["gnu go1.7 prefix"] = [
    block(b"f", magic=GNU, prefix=b"a/dir/of/the/old", content=b"x") + END
]
CORNERS["v7 garbage prefix"] = [block(b"f", magic=V7, prefix=b"garbage", content=b"x") + END]
CORNERS["pax x then global"] = [
    pax((b"path", b"second")) + pax((b"comment", b"a"), kind=b"g") + block(b"x") + END
]
CORNERS["mtimes"] = [
    pax((b"mtime", b"9000000000"))
    + block(b"a")
    + block(b"b", mtime=base256(9_000_000_000, 12), magic=GNU)
    + END
]
CORNERS["mtime far"] = [
    pax((b"mtime", b"10413792000.000000001")) + block(b"a") + END
]  # the year 2300
CORNERS["pax size of directory"] = [
    pax((b"size", b"5")) + block(b"d/", b"5") + block(b"after") + END
]
CORNERS["no padding of a lone file"] = [block(b"a", content=b"1")[:513]]
CORNERS["cut content"] = [block(b"a", content=b"1234")[:514]]
CORNERS["sparse size"] = [sparse((b"GNU.sparse.name", b"sp"), (b"size", b"515"))]
CORNERS["sparse without a name"] = [sparse()]
CORNERS["sparse name and path"] = [sparse((b"GNU.sparse.name", b"sp"), (b"path", b"other"))]
CORNERS["sparse name after path"] = [sparse((b"path", b"other"), (b"GNU.sparse.name", b"sp"))]
CORNERS["sparse name not utf-8"] = [sparse((b"GNU.sparse.name", b"caf\xe9"))]
CORNERS["sparse name with dots"] = [sparse((b"GNU.sparse.name", b"./d//./sp"))]
CORNERS["sparse long name"] = [sparse((b"GNU.sparse.name", b"long/" * 60 + b"sp"))]
CORNERS["sparse without a last piece of nothing"] = [sparse(pieces=b"1\n1000\n3\n")]
CORNERS["sparse 0.1"] = [
    pax(
        (b"GNU.sparse.name", b"sp"),
        (b"GNU.sparse.size", b"2000"),
        (b"GNU.sparse.numblocks", b"2"),
        (b"GNU.sparse.map", b"1000,3,2000,0"),
    )
    + block(b"GNUSparseFile.0/sp", content=b"abc")
    + block(b"after")
    + END
]
CORNERS["sparse 0.0"] = [
    pax(
        (b"GNU.sparse.size", b"2000"),
        (b"GNU.sparse.numblocks", b"2"),
        (b"GNU.sparse.offset", b"1000"),
        (b"GNU.sparse.numbytes", b"3"),
        (b"GNU.sparse.offset", b"2000"),
        (b"GNU.sparse.numbytes", b"0"),
    )
    + block(b"sp", content=b"abc")
    + block(b"after")
    + END
]
CORNERS["sparse of GNU's older form"] = [
    block(b"sp", b"S", b"abc", magic=GNU, tail=sparse_map(1000, 3, size=2000))
    + block(b"after")
    + END
]
CORNERS["sparse and nothing but a hole"] = [
    block(b"sp", b"S", magic=GNU, tail=sparse_map(0, 0, size=2000)) + block(b"after") + END
]

# After public reports; each is compared with what umoci, GNU tar and bsdtar unpack.
LONGEST = b"w" * 255
CORNERS |= {
    # GoogleContainerTools/kaniko#2308: a directory becomes a link, and its content is whited out
    # before that.
    "whiteout in a directory that becomes a link": [
        tar(
            entry("a", DIRECTORY),
            entry("a/a", content=b"1"),
            entry("b", DIRECTORY),
            entry("b/a", content=b"2"),
        ),
        tar(
            entry("a/.wh.a"),
            entry("/", DIRECTORY),
            entry("a", SYMLINK, linkname="b"),
            entry("b/", DIRECTORY),
        ),
    ],
    # GoogleContainerTools/kaniko#1151: the root as a hard link to itself.
    "root as a hard link": [
        block(b".", b"5")
        + block(b"/", b"1", link=b".")
        + block(b"link", b"2", link=b"nowhere")
        + END
    ],
    # containers/fuse-overlayfs#236: with its prefix the whiteout's own name is longer than a file
    # system allows.
    "whiteout of the longest name": [
        block(b"d/", b"5")
        + pax((b"path", b"d/" + LONGEST))
        + block(b"x", content=b"1")
        + block(b"d/y")
        + END,
        pax((b"path", b"d/.wh." + LONGEST)) + block(b"x") + END,
    ],
    # anchore/stereoscope#670: an installed file is linked into a cache, then replaced by a link to
    # the cache's name.
    "hard link whose other name becomes a link to it": [
        tar(entry("f", content=b"1"), entry("cache/f", HARDLINK, linkname="f")),
        tar(entry("f", SYMLINK, linkname="cache/f")),
    ],
    # A3S-Lab/Box#78: an upper hard link replaces one of the names of the file that it leads to.
    "hard link over a name of the same file": [
        tar(
            entry("perl", content=b"1"),
            entry("perl5", HARDLINK, linkname="perl"),
            entry("other", content=b"2"),
        ),
        tar(
            entry("perl", content=b"3"),
            entry("perl5", HARDLINK, linkname="perl"),
            entry("other", HARDLINK, linkname="perl5"),
        ),
    ],
    # containerd/containerd#6991: an opaque directory whose links have the names of what is below.
    "opaque directory with links of the same names": [
        tar(
            entry("doc/curl", DIRECTORY),
            entry("doc/curl/a", SYMLINK, linkname="../b"),
            entry("doc/curl/c", content=b"1"),
        ),
        tar(
            entry("doc/curl/", DIRECTORY),
            entry("doc/curl/.wh..wh..opq", mode=0o755, mtime=0),
            entry("doc/curl/a", SYMLINK, linkname="../d"),
        ),
    ],
    # apple/container#1797: nothing but a hard link makes its parents.
    "hard link without parents": [
        tar(
            entry("bin/app", content=b"1"), entry("run/main/app_/app", HARDLINK, linkname="bin/app")
        )
    ],
    # smol-machines/smolvm#397: a whiteout that is a hard link to a file below.
    "whiteout as a hard link to what is below": [
        BELOW,
        tar(entry("d/.wh.g", HARDLINK, linkname="d/f")),
    ],
    # libarchive/libarchive#485, #2434: headers about an entry that does not come.
    "stray pax header at the end": [block(b"a", content=b"1") + pax((b"path", b"never")) + END],
    "stray long names at the end": [
        block(b"a", content=b"1")
        + block(b"././@LongLink", b"L", b"n" * 150 + b"\0", magic=GNU) * 3
        + END
    ],
    # aquaproj/aqua#5001, libarchive/libarchive#1653: bsdtar gave the size of the whole file in
    # place of what is stored.
    "sparse size of the whole file": [sparse((b"GNU.sparse.name", b"sp"), (b"size", b"2000"))],
    # alexcrichton/tar-rs#373: offsets and sizes beyond 8 GiB in GNU's older form are binary.
    "sparse of GNU's older form, binary numbers": [
        block(
            b"sp",
            b"S",
            b"abc",
            magic=GNU,
            tail=bytes(41)
            + (base256(1000, 12) + base256(3, 12) + base256(2000, 12) + base256(0, 12)).ljust(
                97, b"\0"
            )
            + base256(2000, 12),
        )
        + block(b"after")
        + END
    ],
    # opencontainers/image-spec#1204: two entries of one path, one of them a hard link to a name of
    # the layer below.
    "hard link to the lower file of its own name": [
        BELOW,
        tar(entry("f", HARDLINK, linkname="d/f"), entry("g", HARDLINK, linkname="f")),
    ],
}
