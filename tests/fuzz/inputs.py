"""Inputs as attackers, faulty programs and failing disks make them: valid data with damage.

Rules that hold here:
- Inputs come from Hypothesis' strategies only, so every failure is minimized and stored.
- The data is valid before the damage. A parser rejects random bytes at its first check, and the
  code behind it would never run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from hypothesis import strategies as st

NASTY_BYTES = [
    b"",
    b"\0",
    b"\xff\xfe",
    b"..",
    b"/",
    b"\r\n",
    b"%00",
    b"-1",
    b"\x7f" * 8,
    b"9" * 25,
    b'"',
    b"[",
    b"{" * 40,
]
NASTY_VALUES = st.one_of(
    st.sampled_from(
        [
            *(
                None,
                True,
                False,
                0,
                -1,
                1 << 31,
                1 << 53,
                1 << 63,
                1 << 70,
                1e308,
                0.5,
                "",
                ".",
                "..",
                "/",
                "../../etc",
            ),
            *(
                "\0",
                "\ud800",
                "a" * 300,
                "é" * 200,
                "\u202e",
                "sha256:",
                "sha256:" + "0" * 64,
                "sha512:" + "f" * 128,
            ),
            *(
                "application/vnd.oci.image.index.v1+json",
                "0001-01-01T00:00:00Z",
                "9999-12-31T23:59:59.999999999+23:59",
            ),
            *([], {}, [[]], [{}], {"": ""}, [None] * 3, ["linux", 3]),
        ]
    ),
    st.integers(),
    st.text(max_size=12),
)


@st.composite
def damaged_bytes(draw: st.DrawFn, seeds: Sequence[bytes], tokens: Sequence[bytes] = ()) -> bytes:
    """One of the seeds, with up to six parts overwritten, removed, repeated or inserted."""
    data = bytearray(draw(st.sampled_from(list(seeds))))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 40))
        what = draw(st.integers(0, 4))
        piece = draw(st.binary(max_size=12) | st.sampled_from([*NASTY_BYTES, *tokens]))
        if what == 0:
            data[place : place + len(piece)] = piece
        elif what == 1:
            data[place:place] = piece
        elif what == 2:
            del data[place : place + length]
        elif what == 3:
            data[place:place] = data[place : place + length]
        else:
            del data[place:]
    return bytes(data)


def damaged_text(seeds: Sequence[str], tokens: Sequence[str] = ()) -> st.SearchStrategy[str]:
    """One of the seeds with damage. Invalid UTF-8 is replaced."""
    raw = damaged_bytes([seed.encode() for seed in seeds], [token.encode() for token in tokens])
    return raw.map(lambda data: data.decode(errors="replace"))


@st.composite
def damaged_json(draw: st.DrawFn, seeds: Sequence[object]) -> object:
    """One of the seeds, with up to four values replaced, removed, renamed or repeated."""
    value = json.loads(json.dumps(draw(st.sampled_from(list(seeds)))))
    for _ in range(draw(st.integers(0, 4))):
        value = _change(draw, value)
    return value


def _change(draw: st.DrawFn, value: object) -> object:
    """The value with one change, at a path that is drawn step by step."""
    if isinstance(value, dict) and value and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(sorted(value)))
        what = draw(st.integers(0, 6))
        if what == 0:
            return {name: each for name, each in value.items() if name != key}
        if what == 1:
            return {**value, draw(st.text(max_size=8) | st.sampled_from(sorted(value))): value[key]}
        return {**value, key: _change(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 9)):
        place = draw(st.integers(0, len(value) - 1))
        what = draw(st.integers(0, 6))
        if what == 0:
            return value[:place] + value[place + 1 :]
        if what == 1:
            return value[:place] + [value[place]] * 2 + value[place:]
        return [*value[:place], _change(draw, value[place]), *value[place + 1 :]]
    return draw(NASTY_VALUES)


def as_bytes(value: object) -> bytes:
    """JSON as a registry would send it. Surrogates are escaped."""
    return json.dumps(value).encode()


def as_json_bytes(seeds: Sequence[object]) -> st.SearchStrategy[bytes]:
    """JSON with damage in its values or in its bytes."""
    pack: Callable[[object], bytes] = as_bytes
    return damaged_json(seeds).map(pack) | damaged_bytes([as_bytes(seed) for seed in seeds])
