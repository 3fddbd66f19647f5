"""The extension of a file without a title.

Rules that hold here: pure; the media type decides, then the first bytes; the default is `.bin`.
"""

from __future__ import annotations

import re

from ocifs.oci import mediatype

HEAD_SIZE = 512
"""How many bytes `extension_of` can use: the magic number of a tar is at offset 257."""


def extension_of(media_type: str, head: bytes = b"") -> str:
    """The extension, with its dot, by media type, else by the first bytes, else `.bin`."""
    return extension_of_type(media_type) or next(
        (
            extension
            for offset, magic, extension in _MAGIC
            if head[offset : offset + len(magic)] == magic
        ),
        ".bin",
    )


def extension_of_type(media_type: str) -> str:
    """The extension that the media type implies, with its dot, or ""."""
    plain = mediatype.essence(media_type)
    for ending, extension in _ENDINGS:
        # Whole words only: `application/gzip` is not a zip file.
        if f"/{plain}".endswith(tuple(f"{separator}{ending}" for separator in "/.+-")):
            return extension
    *words, last = _WORDS.split(plain)
    compression = _COMPRESSIONS.get(last, "")
    if compression:
        return f"{_FORMATS.get(words[-1], '') if words else ''}{compression}"
    return _FORMATS.get(last, "")


_WORDS = re.compile(r"[/.+-]")

# The first match decides: `tar+gzip` also ends with `gzip`.
_ENDINGS = (
    ("tar+gzip", ".tar.gz"),
    ("tar.gzip", ".tar.gz"),
    ("tar+gz", ".tar.gz"),
    ("tar.gz", ".tar.gz"),
    ("tgz", ".tar.gz"),
    ("tar+zstd", ".tar.zst"),
    ("tar.zstd", ".tar.zst"),
    ("tar+bzip2", ".tar.bz2"),
    ("tar+xz", ".tar.xz"),
    ("tar", ".tar"),
    ("squashfs", ".squashfs"),
    ("sarif+json", ".sarif.json"),
    ("svg+xml", ".svg"),
    ("x-ipynb+json", ".ipynb"),
    ("x-qemu-disk", ".qcow2"),
    ("x-iso9660-image", ".iso"),
    ("java-archive", ".jar"),
    ("debian.binary-package", ".deb"),
    ("x-pem-file", ".pem"),
    ("pgp-signature", ".asc"),
    ("x-python", ".py"),
    ("x-sh", ".sh"),
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
_COMPRESSIONS = {
    "gzip": ".gz",
    "gz": ".gz",
    "zstd": ".zst",
    "zst": ".zst",
    "xz": ".xz",
    "bzip2": ".bz2",
    "lz4": ".lz4",
}
# The last word of a media type, or the word before its compression.
_FORMATS = {
    "csv": ".csv",
    "dduf": ".dduf",
    "deb": ".deb",
    "efi": ".efi",
    "uki": ".efi",
    "erofs": ".erofs",
    "ext4": ".ext4",
    "gguf": ".gguf",
    "iso": ".iso",
    "jar": ".jar",
    "javascript": ".js",
    "jpeg": ".jpg",
    "jsonl": ".jsonl",
    "ndjson": ".ndjson",
    "onnx": ".onnx",
    "parquet": ".parquet",
    "pem": ".pem",
    "pkcs7": ".p7s",
    "png": ".png",
    "p7s": ".p7s",
    "qcow2": ".qcow2",
    "raw": ".raw",
    "rego": ".rego",
    "rpm": ".rpm",
    "safetensors": ".safetensors",
    "sql": ".sql",
    "sqlite": ".sqlite",
    "sqlite3": ".sqlite",
    "vhd": ".vhd",
    "vhdx": ".vhdx",
    "vmdk": ".vmdk",
}

_MAGIC = (
    (0, b"\x1f\x8b", ".gz"),
    (0, b"\x28\xb5\x2f\xfd", ".zst"),
    (0, b"PK\x03\x04", ".zip"),
    (0, b"\0asm", ".wasm"),
    (0, b"GGUF", ".gguf"),
    (0, b"\x7fELF", ".elf"),
    (0, b"hsqs", ".squashfs"),
    (0, b"QFI\xfb", ".qcow2"),
    (0, b"SQLite format 3\0", ".sqlite"),
    (257, b"ustar", ".tar"),
    (0, b"{", ".json"),
)
