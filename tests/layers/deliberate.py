"""Corners of `corners.py` for which ocifs differs from an unpacker, each with the reason.

Each difference lists its paths: `+` is only in ocifs, `-` only in the unpacker.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.layers.corners import CORNERS

Case = tuple[str, str]
_UMOCI, _TAR, _BSDTAR = ("umoci",), ("tar",), ("bsdtar",)
_TARS, _ALL = ("tar", "bsdtar"), ("umoci", "tar", "bsdtar")

DANGEROUS: set[Case] = {
    (name, "umoci") for name in ("whiteout root-ish", "whiteout prefix only", "wh name")
}
"""Layers that are not tried: umoci 0.4.7 removes the parent for whiteouts of `.` and `..`."""

TAKES: dict[Case, str] = {
    (
        "hard with data",
        "bsdtar",
    ): (
        "POSIX lets a hard link carry the file's data again; image tools write none, and umoci"
        " reads none"
    ),
}
TAKES |= dict.fromkeys(
    (("wh name", "tar"), ("wh name", "bsdtar")),
    "a whiteout without a name is an error (image-spec); tars have none",
)
"""Corners that ocifs rejects and an unpacker accepts."""


def _listed(*groups: tuple[str, Iterable[str], Iterable[str]]) -> dict[Case, str]:
    return {
        (name, unpacker): why
        for why, unpackers, names in groups
        for name in names
        for unpacker in unpackers
    }


REFUSES = _listed(
    (
        "an entry of a type that the image specification does not name is a file"
        " (POSIX), or none where it is about the archive",
        _UMOCI,
        [
            "gnu dumpdir",
            "sparse of GNU's older form",
            "sparse and nothing but a hole",
            "type 7",
            "type X pax",
        ]
        + ["sparse of GNU's older form, binary numbers"]
        + [f"type {letter}" for letter in "ZMVNAE89"],
    ),
    (
        "a rest of a file from another volume, a volume's label with data, Solaris' ACLs"
        " are passed over",
        _TAR,
        ["type M"],
    ),
    ("a volume's label with data, Solaris' ACLs are passed over", _BSDTAR, ["type V", "type A"]),
    (
        "global PAX headers are passed over wherever they stand: Go's library hands them"
        " out as entries, which this umoci does not know",
        _UMOCI,
        ["global", "global only", "pax x then global"],
    ),
    (
        "the nearest of two PAX headers holds; bsdtar says so too, and calls it an error",
        _BSDTAR,
        ["two pax headers", "two pax"],
    ),
    ("a record without a value is as if it were not there (POSIX)", _TAR, ["pax empty value"]),
    (
        "a long name of nothing is as if it were not there, as Go has it",
        _TARS,
        ["gnu long name of nothing"],
    ),
    (
        "a type that says file is believed, whatever its name ends with; its content is"
        " not skipped",
        _TAR,
        ["slash on a file with content"],
    ),
    (
        "numbers of owners beyond 32 bits are cut as Go cuts them",
        _TAR,
        ["base-256 uid beyond", "base-256 uid negative"],
    ),
    (
        "device numbers beyond Linux' lose bits as in mknod(2) from umoci; a whole image"
        " does not fail for one",
        _TARS,
        [
            f"device {which}"
            for which in ("beyond major", "beyond minor", "most", "base-256", "negative")
        ],
    ),
    (
        "a hard link to itself changes nothing",
        ("umoci", "bsdtar"),
        ["hard to itself", "root as a hard link"],
    ),
    (
        "headers about an entry that does not come mean nothing, as Go and GNU tar have it",
        _BSDTAR,
        ["stray pax header at the end", "stray long names at the end"],
    ),
    (
        "a size record of a sparse file that is that of the whole gives way to the header's",
        _UMOCI,
        ["sparse size of the whole file"],
    ),
    (
        "names never lead out of the root, so `..` and links in them can be followed",
        _BSDTAR,
        ["hard abs", "hard through symlink"],
    ),
    (
        "names never lead out of the root, so `..` in them can be followed",
        _TARS,
        ["dotdot", "dotdot dir"],
    ),
    ("names never lead out of the root; umoci refuses a file called `d/..`", _UMOCI, ["dotdot"]),
    (
        "a later entry of the same layer replaces what is there, a directory with its content too",
        _TARS,
        ["file over dir", "symlink over dir"],
    ),
    (
        "a link that leads to nothing makes the directory that it names, in the root",
        _TARS,
        ["dir over dangling symlink"],
    ),
    ("something below a file makes a directory of it", _ALL, ["file under file"]),
    (
        "something below a file of a lower layer makes a directory of it",
        _UMOCI,
        ["implied over file"],
    ),
    ("names are bytes", _BSDTAR, ["not utf-8", "sparse name not utf-8"]),
    (
        "an entry without a name is the root; what is no directory is passed over there",
        _ALL,
        ["empty file name", "root is file", "root is link"],
    ),
    ("an entry without a name is the root", _BSDTAR, ["empty name"]),
    ("one block of zeros is no end, as GNU tar and bsdtar have it", _UMOCI, ["lone zero block"]),
    (
        "a tar may end without what fills its last block, as Go has it",
        _TARS,
        ["content not padded", "no padding of a lone file"],
    ),
    ("no bytes are an empty layer", _TAR, ["empty"]),
    ("extended attributes of any namespace are shown", _BSDTAR, ["xattr unknown namespace"]),
    (
        "a link without a target can be shown, though no file system makes one",
        ("umoci", "tar"),
        ["symlink empty"],
    ),
    (
        "names that no file system has are cut with a hash by those who show them",
        _ALL,
        ["name of 256"],
    ),
    (
        "whiteouts hide what is below their layer, wherever they stand in it; a hard"
        " link leads to what its layer was made on",
        _UMOCI,
        ["hard to deleted same layer, wh first", "opaque then hard link to hidden"],
    ),
)
"""Corners that an unpacker rejects and ocifs shows."""


def _what(*groups: tuple[str, Iterable[str], str, Iterable[str]]) -> dict[Case, frozenset[str]]:
    return {
        (name, unpacker): frozenset(what)
        for _, unpackers, name, what in groups
        for unpacker in unpackers
    }


_LONG_GNU = "gnu" * 50
_STAR = "p" * 131
_KEPT_BY_AUFS = ["- .wh..wh.aufs", "- .wh..wh.plnk", "- .wh..wh.plnk/1.2", "f names", "f nlink"]

DIFFERENCES = _what(
    (
        "a type that says file is believed",
        _TARS,
        "slash on a file of type 0",
        ["d content", "d mode", "d names", "d nlink"],
    ),
    (
        "a type that says file is believed",
        _BSDTAR,
        "slash on a file with content",
        ["d content", "d mode", "d names", "d nlink", "d size"],
    ),
    (
        "times before 1970 are rounded down, as Go and GNU tar do",
        _BSDTAR,
        "pax times",
        ["g mtime_ns", "h mtime_ns"],
    ),
    (
        "GNU's header of a name holds before a PAX path, as Go has it",
        _TAR,
        "gnu long then pax",
        [f"+ {_LONG_GNU}", "- pax"],
    ),
    (
        "GNU's header of a name holds before a PAX path, as Go has it",
        _TARS,
        "pax then gnu long",
        [f"+ {_LONG_GNU}", "- pax"],
    ),
    (
        "a size record of a sparse file that is that of the whole gives way to the header's",
        _TARS,
        "sparse size of the whole file",
        ["+ after"],
    ),
    (
        "the name of a sparse file holds before all others, as Go and GNU tar have it",
        _BSDTAR,
        "gnu long name and a sparse name",
        ["+ sp", "- gnu"],
    ),
    (
        "a record without a value is as if it were not there (POSIX)",
        _BSDTAR,
        "pax empty value",
        ["x mtime_ns", "x owner"],
    ),
    (
        "the last of several entries gives a directory's time",
        _BSDTAR,
        "repeated dir",
        ["a mtime_ns"],
    ),
    ("names are bytes, not normalized", _BSDTAR, "utf-8", ["+ e\u0301", "- \u00e9"]),
    ("global PAX headers mean nothing, as Go has it", _TAR, "global", ["+ a", "+ b", "- evil"]),
    ("an empty value is a value; umoci leaves it out", _UMOCI, "xattr schily", ["f xattrs"]),
    (
        "libarchive's form of attributes is read too, as bsdtar does",
        ("umoci", "tar"),
        "xattr libarchive",
        ["f xattrs", "g xattrs"],
    ),
    (
        "libarchive's form of attributes is read too, as bsdtar does",
        ("umoci", "tar"),
        "xattr libarchive bad",
        ["f xattrs"],
    ),
    (
        "of an attribute in both forms star's holds, which all others read",
        _BSDTAR,
        "xattr both",
        ["g xattrs"],
    ),
    (
        "attributes of any namespace are shown; a file system may not have it",
        ("umoci", "tar"),
        "xattr unknown namespace",
        ["f xattrs"],
    ),
    (
        "access control lists beside attributes are not read, as umoci and GNU tar do"
        " without --acls",
        _BSDTAR,
        "acl",
        ["f mode", "f xattrs"],
    ),
    (
        "a rest of a file from another volume, and an old long name, are no entries",
        _BSDTAR,
        "type M",
        ["- u"],
    ),
    (
        "a rest of a file from another volume, and an old long name, are no entries",
        _TARS,
        "type N",
        ["- u"],
    ),
    ("Solaris' ACLs are no entries", _TAR, "type A", ["- u"]),
    ("a link is a link", _BSDTAR, "symlink empty", ["s content", "s mode"]),
    (
        "tars have no whiteouts, layers do",
        _TARS,
        "whiteout in first layer",
        ["- a/.wh..wh..opq", "- a/.wh.b"],
    ),
    ("what AUFS kept for itself is hidden", _TARS, "plnk", _KEPT_BY_AUFS),
    ("what AUFS kept for itself is hidden", _UMOCI, "plnk", _KEPT_BY_AUFS[1:]),
    (
        "an attribute is the layer's; umoci leaves out those of overlayfs",
        _UMOCI,
        "overlay opaque xattr",
        ["d xattrs"],
    ),
    (
        "star's headers have a shorter prefix, as Go has it",
        _TAR,
        "star prefix",
        [f"+ {_STAR}", f"+ {_STAR}/f", f"- {_STAR}13132027400", f"- {_STAR}13132027400/f"],
    ),
    (
        "star's headers have a shorter prefix, as Go has it",
        _BSDTAR,
        "star prefix",
        [f"+ {_STAR}", f"+ {_STAR}/f", f"- {_STAR}13132027400", f"- {_STAR}13132027400/f"],
    ),
    (
        "Go before 1.8 wrote prefixes into GNU's headers, and such layers are about",
        _TARS,
        "gnu go1.7 prefix",
        [
            "+ a",
            "+ a/dir",
            "+ a/dir/of",
            "+ a/dir/of/the",
            "+ a/dir/of/the/old",
            "+ a/dir/of/the/old/f",
            "- f",
        ],
    ),
    (
        "a time after 2262 is that time, though 64 bits of nanoseconds have no room for it",
        _UMOCI,
        "mtime far",
        ["a mtime_ns"],
    ),
    (
        "what a directory's size says follows it is skipped only where it is no header",
        _BSDTAR,
        "pax size of directory",
        ["+ after"],
    ),
    (
        "a sparse file has the size that it says, whether or not a last piece ends there",
        _TAR,
        "sparse without a last piece of nothing",
        ["x content", "x size"],
    ),
)
"""Corners that an unpacker unpacks differently."""

assert len(CORNERS) > 160
