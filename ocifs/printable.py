"""Escapes untrusted text before it is displayed.

Names, annotations, error texts and command lines come from registries, publishers and other users
of the machine. Control characters in them would act on a terminal: move the cursor, set the title,
simulate keyboard input, or change the direction of the text.

Rules that hold here:

- Pure and linear.
- Every unprintable character, including line ends, is replaced by its escape in Python's notation:
  the result is one line.
- Printable text is unchanged.
"""

from __future__ import annotations

_SHORT = (("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"))


def printable(text: str) -> str:
    """Escape a text as one line: `x\\x1b[2J`.

    Bytes that are not UTF-8 (surrogates) become `\\xNN`.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else _escaped(character) for character in text
    )


def printable_lines(text: str) -> str:
    """Escape each line of a text whose line ends are trusted."""
    return "\n".join(map(printable, text.split("\n")))


def _escaped(character: str) -> str:
    code = ord(character)
    # os.fsdecode represents a byte that is not UTF-8 by one of these.
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    for original, short in _SHORT:
        if character == original:
            return short
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )
