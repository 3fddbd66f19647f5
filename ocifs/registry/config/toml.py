"""Typed access to TOML tables: a value of the wrong type is an error that names file and key.

Called by the readers of registries.conf and hosts.toml, in worker threads.

- The size of a file is bounded.
- Unknown keys are ignored, as by the container tools: each tool has keys that others lack.
- Only UsageError is raised, except that `read_text` raises FileNotFoundError.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ocifs.errors import UsageError
from ocifs.userfiles import read_user_file

_FILE_BYTES = 4 << 20

_PROXIES = ("http", "https", "socks5", "socks5h")


def read_text(path: Path) -> str:
    """The text of a configuration file.

    Raises UsageError for an unreadable file, FileNotFoundError for a missing one. Blocks on disk.
    """
    try:
        # One byte more than the limit shows that a file is larger.
        content = read_user_file(path, _FILE_BYTES + 1)
        if len(content) > _FILE_BYTES:
            raise UsageError(f"{path} is larger than {_FILE_BYTES} bytes")
        return content.decode()
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(str(path)) from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: invalid UTF-8") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None


def redacted(text: str) -> str:
    """A value for a message: truncated, and without the user and password of a URL."""
    return re.sub(r"//[^/]*@", "//…@", text)[:100]


@dataclass(frozen=True, slots=True)
class TomlTable:
    """A table with its location: the file, and the path of keys in it (empty for the top)."""

    values: Mapping[str, object]
    file: str
    path: str = ""

    @classmethod
    def parse(cls, text: str, file: str) -> TomlTable:
        """Parse a whole file."""
        # Imported here: most machines have no such file, and every command imports this module.
        import tomllib

        try:
            return cls(tomllib.loads(text), file)
        # Deeply nested arrays exceed the recursion limit in tomllib.
        except (ValueError, RecursionError) as error:  # tomllib.TOMLDecodeError is a ValueError
            raise UsageError(f"{file}: {error}") from None

    def location(self, key: str) -> str:
        """The name of a key in messages."""
        return f"{self.file}: {self.path}.{key}" if self.path else f"{self.file}: {key}"

    def error(self, key: str, problem: str) -> UsageError:
        """The error for an invalid value."""
        return UsageError(f"{self.location(key)} {problem}")

    def text(self, key: str) -> str:
        """A string; empty if it is missing."""
        value = self.values.get(key, "")
        if not isinstance(value, str):
            raise self.error(key, "is not a string")
        return value

    def proxy(self) -> str:
        """The address of a proxy in the key `proxy`; empty if it is missing."""
        text = self.text("proxy")
        try:
            parts = urlsplit(text)
            valid = not text or (
                parts.scheme in _PROXIES and parts.hostname and parts.path in ("", "/")
            )
        except ValueError:
            valid = False
        if not valid:
            raise self.error(
                "proxy",
                f"({redacted(text)}) is not a proxy address: write http://, https:// or socks5://",
            )
        return text

    def flag(self, key: str) -> bool:
        """A boolean; false if it is missing."""
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            raise self.error(key, "is neither true nor false")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings, or one string as a list of one."""
        value = self.values.get(key, [])
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise self.error(key, "is not a list of strings")
        return tuple(texts)

    def table(self, key: str) -> TomlTable:
        """A table; empty if it is missing."""
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            raise self.error(key, "is not a table")
        return TomlTable(value, self.file, f"{self.path}.{key}" if self.path else key)

    def tables(self, key: str) -> Iterator[TomlTable]:
        """The tables of an array, each named by its number from 1."""
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
            raise self.error(key, f"is not an array of tables (write [[{key}]])")
        prefix = f"{self.path}." if self.path else ""
        for number, table in enumerate(value, 1):
            yield TomlTable(table, self.file, f"{prefix}{key}[{number}]")
