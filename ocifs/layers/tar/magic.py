"""Identifies data that is not a tar, or has an unsupported compression, for error messages.

Pure. A guess by the first bytes: only messages depend on it.
"""

from __future__ import annotations

_MAGIC = (
    (b"\x1f\x8b", "gzip data, compressed twice"),
    (b"\x28\xb5\x2f\xfd", "zstd data, compressed twice"),
    (b"\xfd7zXZ\0", "xz data, compressed twice"),
    (b"BZh", "bzip2 data, compressed twice"),
    (b"\x04\x22\x4d\x18", "lz4 data"),
    (b"\x02\x21\x4c\x18", "lz4 data"),
    (b"\x5d\0\0", "lzma data"),
    (b"LZIP", "lzip data"),
    (b"\x1f\x9d", "compress (.Z) data"),
    (b"\x89LZO\0\r\n\x1a\n", "lzop data"),
    (b"\xff\x06\0\0sNaPpY", "snappy data"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "a zip archive"),
    (b"hsqs", "a squashfs image"),
    (b"sqsh", "a squashfs image"),
    (b"070701", "a cpio archive"),
    (b"070702", "a cpio archive"),
    (b"070707", "a cpio archive"),
    (b"\x7fELF", "an ELF program"),
    (b"!<arch>\n", "an ar archive"),
    (b"QFI\xfb", "a qcow2 image"),
    (b"\0asm", "a WebAssembly module"),
    (b"age-encryption.org/", "encrypted (age)"),
    (b"Salted__", "encrypted (OpenSSL)"),
    (b"-----BEGIN PGP MESSAGE", "encrypted (PGP)"),
    (b"LUKS\xba\xbe", "encrypted (LUKS)"),
)
# Images of file systems that start with 1,024 zeros, like an empty tar: the offset and the value of
# the magic number in the third block.
_IMAGES = ((0, b"\xe2\xe1\xf5\xe0", "an EROFS image"), (56, b"\x53\xef", "an ext image"))


def image_after_zeros(third: bytes) -> str:
    """Identify a layer that starts with two blocks of zeros; empty if it is an empty tar."""
    return next((name for offset, magic, name in _IMAGES if third[offset:].startswith(magic)), "")


def describe(head: bytes) -> str:
    """Identify the first bytes of an uncompressed layer, to complete the sentence "it is …"."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return f"{name}, not a tar"
    text = head.lstrip()[:64].lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "an HTML or XML page, not a tar"
    if text.startswith((b"{", b"[")):
        return "JSON, not a tar"
    return "not a tar"
