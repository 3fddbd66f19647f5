"""Parsers of structured header fields: Link, WWW-Authenticate, Content-Range and Warning.

The fields are untrusted and are parsed on the event loop: a parser of quadratic time would stop
every mount of the process. `responses`, `challenge` and `codings` call this module.

Rules that hold here:

- Pure, and linear in the length of the field. Every pattern is one character class, so that it
  cannot backtrack, and a `Cursor` only moves forward.
- A field longer than HEADER_BYTES is rejected before it is parsed. All lines of a field count
  together.
- Lenient: violations of the RFCs that other clients accept are accepted. Unparseable parts are
  skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ocifs.errors import Malformed

HEADER_BYTES = 8192
"""The longest field that is parsed. Signed URLs, the longest fields in use, stay below 4 KiB."""

_SPACE = re.compile(r"[ \t\r\n\f\v]*")
_SEPARATORS = re.compile(r"[ \t\r\n\f\v,;]*")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]*")
_BARE_VALUE = re.compile(r"[^ \t\r\n\f\v,]*")
_BARE_PARAMETER = re.compile(r"[^ \t\r\n\f\v,;]*")
_BARE_TARGET = re.compile(r"[^ \t\r\n\f\v;>]*")
_IN_BRACKETS = re.compile(r"[^>]*")
_UNQUOTED = {'"': re.compile(r'[^"\\]*'), "'": re.compile(r"[^'\\]*")}
# 18 digits always fit into a signed 64-bit integer, the type of sizes in descriptors.
_LONGEST_NUMBER = 18  # digits


@dataclass(frozen=True, slots=True)
class LinkValue:
    """One link (RFC 8288). `relations`: in lower case; empty if the link has no `rel`."""

    target: str
    relations: frozenset[str]


@dataclass(frozen=True, slots=True)
class ContentRange:
    """A Content-Range (RFC 9110, 14.4).

    `first` and `last` are None for an unsatisfied range, `total` if unknown.
    """

    first: int | None
    last: int | None
    total: int | None


class Cursor:
    """A position in a text. It only moves forward."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    @property
    def position(self) -> int:
        return self._at

    @property
    def done(self) -> bool:
        return self._at >= len(self._text)

    def peek(self) -> str:
        """The next character, or "" at the end."""
        return self._text[self._at : self._at + 1]

    def take(self, pattern: re.Pattern[str]) -> str:
        """Consume the characters that a pattern of one character class matches, possibly none."""
        match = pattern.match(self._text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        return match[0]

    def accept(self, characters: str) -> bool:
        """Consume one character if it is one of these."""
        accepted = not self.done and self.peek() in characters
        self._at += accepted
        return accepted

    def quoted(self) -> str:
        """Consume a quoted string and return it without quotes and escapes.

        The next character is the opening quote. A missing closing quote is allowed at the end.
        """
        quote = self.peek()
        self._at += 1
        parts = []
        while not self.done:
            parts.append(self.take(_UNQUOTED[quote]))
            if self.accept(quote):
                break
            if self.accept("\\"):
                parts.append(self.peek())
                # After a backslash at the end, this is beyond the text: see `done`.
                self._at += 1
        return "".join(parts)

    def value(self, bare: re.Pattern[str]) -> str:
        """Consume a parameter's value, quoted or not."""
        self.take(_SPACE)
        return self.quoted() if self.peek() and self.peek() in _UNQUOTED else self.take(bare)


def field(headers: Mapping[str, str], name: str) -> str:
    """A field's value without surrounding space, "" if it is missing.

    Raises Malformed if it is too long.
    """
    value = headers.get(name, "")
    if len(value) > HEADER_BYTES:
        raise Malformed(f"the {name} header is longer than {HEADER_BYTES} bytes")
    return value.strip()


def optional_field(headers: Mapping[str, str], name: str) -> str:
    """The same for an optional field: a value that is too long counts as missing."""
    return headers.get(name, "").strip() if len(headers.get(name, "")) <= HEADER_BYTES else ""


def parse_links(text: str) -> list[LinkValue]:
    """The links of a Link field, in order.

    Brackets may be missing or not closed, and quotes may be single ones.
    """
    # The position of the last bracket, so that an unclosed "<" does not consume all other links.
    cursor, last_bracket = Cursor(text), text.rfind(">")
    links: list[LinkValue] = []
    while True:
        cursor.take(_SEPARATORS)
        if cursor.done:
            return links
        target = _link_target(cursor, closed=cursor.position < last_bracket)
        relations: list[str] = []
        # `take` never returns None: this only consumes the space before a semicolon.
        while cursor.take(_SPACE) is not None and cursor.accept(";"):
            name, value = _parameter(cursor)
            # Only the first `rel` counts (RFC 8288, 3.3).
            if name == "rel" and not relations:
                relations = value.lower().split()
        if target:
            links.append(LinkValue(target, frozenset(relations)))


def _link_target(cursor: Cursor, *, closed: bool) -> str:
    bracketed = cursor.accept("<") and closed
    # A URL may contain commas: without brackets, only a final one separates links.
    target = cursor.take(_IN_BRACKETS) if bracketed else cursor.take(_BARE_TARGET).rstrip(",")
    cursor.accept(">")
    return target.strip()


def _parameter(cursor: Cursor) -> tuple[str, str]:
    """The name of a parameter, in lower case, and its value.

    Text that is not a parameter is skipped, and returned as ("", "").
    """
    cursor.take(_SPACE)
    name = cursor.take(_TOKEN).lower()
    cursor.take(_SPACE)
    if not cursor.accept("="):
        cursor.take(_BARE_PARAMETER)
        return name, ""
    return name, cursor.value(_BARE_PARAMETER)


def parse_challenge_list(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The schemes of a WWW-Authenticate field with their parameters, names in lower case."""
    cursor = Cursor(text)
    scheme, parameters = "", dict[str, str]()
    while True:
        cursor.take(_SEPARATORS)
        if cursor.done:
            break
        name = cursor.take(_TOKEN).lower()
        # Space may precede the "=" of a parameter (RFC 9110, 11.2): it does not yet mark a scheme.
        ended = cursor.done or cursor.peek() == "," or bool(cursor.take(_SPACE))
        if name and cursor.accept("="):
            parameters[name] = cursor.value(_BARE_VALUE)
        elif name and ended:
            if scheme:
                yield scheme, parameters
            scheme, parameters = name, {}
        else:
            # A token68, or text that is not a challenge.
            cursor.take(_BARE_VALUE)
    if scheme:
        yield scheme, parameters


def parse_content_range(text: str) -> ContentRange | None:
    """A Content-Range, or None if the text is not one.

    Registries and storage servers leave out the unit or the size, or put ":" or "=" after the unit.
    """
    span, _, size = text.strip().lower().removeprefix("bytes").lstrip(" \t:=").partition("/")
    first, dash, last = span.partition("-")
    total = parse_number(size.strip())
    if span.strip() == "*":
        return ContentRange(None, None, total)
    start, end = parse_number(first.strip()), parse_number(last.strip())
    if (
        not dash
        or start is None
        or end is None
        or (total is None and size.strip() not in ("", "*"))
    ):
        return None
    return ContentRange(start, end, total)


def parse_number(text: str) -> int | None:
    """A number of at most 18 ASCII digits, or None.

    (str.isdigit also accepts digits that int() does not.)
    """
    return int(text) if len(text) <= _LONGEST_NUMBER and text.isascii() and text.isdigit() else None


def parse_warnings(text: str) -> Iterator[str]:
    """The texts of the warnings with code 299 in a Warning field (distribution-spec "Warnings")."""
    cursor = Cursor(text)
    while not cursor.done:
        cursor.take(_SEPARATORS)
        code = cursor.take(_BARE_VALUE)
        cursor.take(_SPACE)
        agent = cursor.take(_BARE_VALUE)
        cursor.take(_SPACE)
        if cursor.peek() == '"':
            warning = cursor.quoted()
            if code == "299" and agent:
                yield warning
