"""Tables of TOML read with care: every value is of the kind that it should be, or the error says
which file and which key.

Rules that hold here: a file is bounded; keys that nobody asks for are passed over, as the container
tools do, since each knows some that others do not; nothing but UsageError is raised.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ocifs.errors import UsageError
from ocifs.userfiles import read_user_file

_FILE_BYTES = 4 << 20

_PROXIES = ("http", "https", "socks5", "socks5h")


def read_text(path: Path) -> str:
    """A configuration file.

    Raises UsageError for what cannot be read, but FileNotFoundError where there is none. Blocks on
    disk.
    """
    try:
        content = read_user_file(path, _FILE_BYTES + 1)
        if len(content) > _FILE_BYTES:
            raise UsageError(f"{path} has more than {_FILE_BYTES} bytes")
        return content.decode()
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(str(path)) from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no UTF-8") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def shown(text: str) -> str:
    """A value for an error: cut, and without the name and password that an address may have."""
    return re.sub(r"//[^/]*@", "//…@", text)[:100]


@dataclass(frozen=True, slots=True)
class TomlTable:
    """A table and where it stands: the file, and the path of keys within it (empty at the top)."""

    values: Mapping[str, object]
    file: str
    path: str = ""

    @classmethod
    def parse(cls, text: str, file: str) -> TomlTable:
        """A whole file."""
        try:
            return cls(tomllib.loads(text), file)
        except (ValueError, RecursionError) as error:  # tomllib.TOMLDecodeError is a ValueError
            raise UsageError(f"{file}: {error}") from None

    def place(self, key: str) -> str:
        """How a key is named to a person."""
        return f"{self.file}: {self.path}.{key}" if self.path else f"{self.file}: {key}"

    def wrong(self, key: str, why: str) -> UsageError:
        """The error about the value of a key."""
        return UsageError(f"{self.place(key)} {why}")

    def text(self, key: str) -> str:
        """A string; empty where there is none."""
        value = self.values.get(key, "")
        if not isinstance(value, str):
            raise self.wrong(key, "is no string")
        return value

    def proxy(self) -> str:
        """The address of a proxy under `proxy`; empty where there is none."""
        text = self.text("proxy")
        try:
            parts = urlsplit(text)
            fits = not text or (
                parts.scheme in _PROXIES and parts.hostname and parts.path in ("", "/")
            )
        except ValueError:
            fits = False
        if not fits:
            raise self.wrong(
                "proxy", f"({shown(text)}) is no address of a proxy: http://, https:// or socks5://"
            )
        return text

    def flag(self, key: str) -> bool:
        """A boolean; false where there is none."""
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, "is neither true nor false")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings, or one string for a list of one."""
        value = self.values.get(key, [])
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
            raise self.wrong(key, "is no list of strings")
        return tuple(listed)

    def table(self, key: str) -> TomlTable:
        """A table; an empty one where there is none."""
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key, "is no table")
        return TomlTable(value, self.file, f"{self.path}.{key}" if self.path else key)

    def tables(self, key: str) -> Iterator[TomlTable]:
        """The tables of an array of them, each named by its number from 1 on."""
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise self.wrong(key, f"is no array of tables (write [[{key}]])")
        for number, each in enumerate(value, 1):
            yield TomlTable(
                each, self.file, f"{self.path + '.' if self.path else ''}{key}[{number}]"
            )
