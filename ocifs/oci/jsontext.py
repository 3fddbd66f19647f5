"""JSON of strangers: I-JSON (image-spec, considerations.md) within bounds on depth and on the
number of values.

Everything that decodes a registry's, a publisher's or a layout's JSON calls `load_json`, on the
event loop for small texts and in a worker thread for large ones (`concurrency.off_loop`).

Rules that hold here:

- Pure, and linear in the length of the text. The bounds are checked before a value is made of it.
- Two bytes of text can become 180 bytes of memory, so bytes alone bound nothing.
- No member of an object stands twice.
"""

from __future__ import annotations

import json
import re
from itertools import chain

from ocifs.errors import Malformed

JSON_DEPTH = 100
"""How deep JSON may be nested. Schemas, the deepest of what is seen in configs, stay below 30."""

JSON_VALUES = 1 << 20
"""How many values a text may have: as many as names in a list (limits.names). An index with 10,000 manifests has 110,000."""

JSON_CONTAINERS = 200_000
"""How many of them may be arrays and objects, which take up to 180 bytes each."""

_STRING = re.compile(
    rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL
)  # one that is not closed ends with the text


def load_json(body: bytes, what: str) -> object:
    """Decode a text in UTF-8, which is the only encoding of I-JSON. Raises Malformed."""
    _check_size(body, what)
    try:
        value = json.loads(
            body.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{what} is no JSON: {error or 'nested too deep'}") from None
    if body.count(b"{") + body.count(b"[") > JSON_DEPTH and _depth_passes(value, JSON_DEPTH):
        raise Malformed(f"{what} is nested more than {JSON_DEPTH} deep")
    return value


def _check_size(body: bytes, what: str) -> None:
    """Count the values by their brackets and commas: at first all of them, then those outside
    strings.
    """
    containers, values = _count(body, 0, len(body))
    if containers > JSON_CONTAINERS or values > JSON_VALUES:
        containers, values = _count_outside_strings(body)
    if values > JSON_VALUES:
        raise Malformed(f"{what} has more than {JSON_VALUES} values")
    if containers > JSON_CONTAINERS:
        raise Malformed(f"{what} has more than {JSON_CONTAINERS} arrays and objects")


def _count_outside_strings(body: bytes) -> tuple[int, int]:
    """The same counts as `_count`, or the first ones that pass a bound."""
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
    """Arrays and objects, and values of all kinds."""
    containers = body.count(b"[", start, stop) + body.count(b"{", start, stop)
    return containers, containers + body.count(b",", start, stop)


def _depth_passes(value: object, most: int) -> bool:
    """Whether lists and objects stand in more than `most` others.

    Level by level, since a stack has an end.
    """
    level = [value]
    for _ in range(most):
        level = [
            inner
            for each in level
            if isinstance(each, (dict, list))
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return any(isinstance(each, (dict, list)) for each in level)


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is not a number of JSON")


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice")
    return members
