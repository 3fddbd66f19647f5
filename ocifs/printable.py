"""The one function that cleans text for a person.

Names, annotations, error texts and command lines come from registries, publishers and other users
of the machine. Raw control characters in them would act on a terminal: move the cursor, set the
title, answer for the keyboard, or turn the direction of the text.

Rules that hold here: pure and linear; every character that is not printable is replaced by its
escape in Python's notation, also line ends, so that a text stays one line; printable text is
unchanged.
"""

from __future__ import annotations

_SHORT = (("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"))


def printable(text: str) -> str:
    """A text as one line that does nothing but appear: `x\\x1b[2J`.

    Bytes that are not UTF-8 (surrogates) are `\\xNN`.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else _escaped(character) for character in text
    )


def printable_lines(text: str) -> str:
    """The same for a text of several lines of our own, line by line."""
    return "\n".join(map(printable, text.split("\n")))


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte, as os.fsdecode shows it
        code -= 0xDC00
    for written, short in _SHORT:
        if character == written:
            return short
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )
