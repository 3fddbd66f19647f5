"""Untrusted JSON: I-JSON (image-spec, considerations.md) of bounded depth and size.

All JSON from registries, publishers and layouts is decoded by `load_json`: small texts on the event
loop, large ones in a worker thread (`concurrency.off_loop`).

Rules that hold here:

- Pure, and linear in the length of the text. The bounds are checked before the text is decoded.
- The number of values is bounded as well as the bytes: two bytes can decode to 180 bytes of memory.
- Duplicate members of an object are an error.
"""

from __future__ import annotations

import json
import re
from itertools import chain

from ocifs.errors import Malformed

JSON_DEPTH = 100
"""How deep JSON may be nested. Schemas in configs, the deepest in practice, stay below 30."""

JSON_VALUES = 1 << 20
"""How many values a text may have: as many as a list may have names (limits.names).

An index with 10,000 manifests has 110,000.
"""

JSON_CONTAINERS = 200_000
"""How many of them may be arrays and objects, which take up to 180 bytes each."""

# A string without a closing quote ends with the text.
# Possessive quantifiers cannot backtrack, so that the search is linear.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)


def load_json(body: bytes, what: str) -> object:
    """Decode a text in UTF-8, the only encoding of I-JSON. Raises Malformed."""
    _check_size(body, what)
    try:
        value = json.loads(
            body.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{what} is not valid JSON: {error or 'nested too deep'}") from None
    # Most texts have fewer brackets than levels are allowed, and need no walk.
    if body.count(b"{") + body.count(b"[") > JSON_DEPTH and _depth_passes(value, JSON_DEPTH):
        raise Malformed(f"{what} is nested more than {JSON_DEPTH} deep")
    return value


def _check_size(body: bytes, what: str) -> None:
    """Count the values by brackets and commas.

    The first count includes strings, and is a cheap upper bound.
    """
    containers, values = _count(body, 0, len(body))
    if containers > JSON_CONTAINERS or values > JSON_VALUES:
        containers, values = _count_outside_strings(body)
    if values > JSON_VALUES:
        raise Malformed(f"{what} has more than {JSON_VALUES} values")
    if containers > JSON_CONTAINERS:
        raise Malformed(f"{what} has more than {JSON_CONTAINERS} arrays and objects")


def _count_outside_strings(body: bytes) -> tuple[int, int]:
    """The exact counts, or the first ones that exceed a bound."""
    containers = values = at = 0
    for start, stop in chain(
        (string.span() for string in _STRING.finditer(body)), [(len(body), 0)]
    ):
        more_containers, more_values = _count(body, at, start)
        containers, values, at = containers + more_containers, values + more_values, stop
        if containers > JSON_CONTAINERS or values > JSON_VALUES:
            break
    return containers, values


def _count(body: bytes, start: int, stop: int) -> tuple[int, int]:
    """The number of arrays and objects, and of all values."""
    # Each value in a container follows its bracket or a comma: their number is a bound.
    containers = body.count(b"[", start, stop) + body.count(b"{", start, stop)
    return containers, containers + body.count(b",", start, stop)


def _depth_passes(value: object, most: int) -> bool:
    """Whether lists and objects are nested more than `most` levels deep.

    Iterates over the levels, since a recursion could exhaust the stack.
    """
    level = [value]
    for _ in range(most):
        level = [
            inner
            for container in level
            if isinstance(container, (dict, list))
            for inner in (container.values() if isinstance(container, dict) else container)
        ]
        if not level:
            return False
    return any(isinstance(inner, (dict, list)) for inner in level)


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is not a JSON number")


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    # Parsers choose different duplicates: one digest would have two readings (RFC 7493, 2.3).
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members
