"""The extension of a file without a title.

Rules that hold here: pure; the media type decides, then the first bytes; the default is `.bin`.
"""

from __future__ import annotations

from ocifs.oci import mediatype

HEAD_SIZE = 512
"""How many bytes `extension_of` can use: the magic number of a tar is at offset 257."""


def extension_of(media_type: str, head: bytes = b"") -> str:
    """The extension, with its dot, by media type, else by the first bytes, else `.bin`."""
    plain = mediatype.essence(media_type)
    for ending, extension in _ENDINGS:
        if plain.endswith(ending):
            return extension
    for offset, magic, extension in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return extension
    return ".bin"


# The first match decides: `tar+gzip` also ends with `gzip`.
_ENDINGS = (
    ("tar+gzip", ".tar.gz"),
    ("tar.gzip", ".tar.gz"),
    ("tar+gz", ".tar.gz"),
    ("tar.gz", ".tar.gz"),
    ("tar+zstd", ".tar.zst"),
    ("tar.zstd", ".tar.zst"),
    ("tar+bzip2", ".tar.bz2"),
    ("tar+xz", ".tar.xz"),
    ("tar", ".tar"),
    ("squashfs", ".squashfs"),
    ("gzip", ".gz"),
    ("zstd", ".zst"),
    ("zip", ".zip"),
    ("json", ".json"),
    ("yaml", ".yaml"),
    ("xml", ".xml"),
    ("wasm", ".wasm"),
    ("toml", ".toml"),
    ("markdown", ".md"),
    ("html", ".html"),
    ("text/plain", ".txt"),
    ("pdf", ".pdf"),
)

_MAGIC = (
    (0, b"\x1f\x8b", ".gz"),
    (0, b"\x28\xb5\x2f\xfd", ".zst"),
    (0, b"PK\x03\x04", ".zip"),
    (0, b"\0asm", ".wasm"),
    (0, b"GGUF", ".gguf"),
    (0, b"\x7fELF", ".elf"),
    (0, b"hsqs", ".squashfs"),
    (0, b"SQLite format 3\0", ".sqlite"),
    (257, b"ustar", ".tar"),
    (0, b"{", ".json"),
)
