"""Which errno each error has."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from ocifs import errors
from ocifs.fuse.errno import ERRNO, errno_of, name_of


def kinds(root: type[errors.OcifsError] = errors.OcifsError) -> Iterator[type[errors.OcifsError]]:
    yield root
    for below in root.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from kinds(below)


@pytest.mark.parametrize("kind", list(kinds()))
def test_every_error_has_its_own_row(kind: type[errors.OcifsError]) -> None:
    assert kind in ERRNO
    assert errno_of(kind("x")) == ERRNO[kind]
    assert ERRNO[kind] in errno.errorcode


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    assert [kind.__name__ for kind in kinds() if kind.__name__ not in errors.__doc__] == []


def test_errors_have_the_names_of_the_manual_pages() -> None:
    assert [name_of(number) for number in (errno.EOPNOTSUPP, errno.EAGAIN, errno.EIO, 4000)] == [
        "EOPNOTSUPP",
        "EAGAIN",
        "EIO",
        "4000",
    ]


def test_only_absence_is_absence() -> None:
    absent = {kind for kind, number in ERRNO.items() if number == errno.ENOENT}
    assert absent == {errors.NotFound, errors.InvalidReference}


@pytest.mark.parametrize(
    "error", [RuntimeError("x"), KeyError("x"), MemoryError(), OSError(errno.ENOENT, "x")]
)
def test_what_nobody_thought_of_is_eio(error: BaseException) -> None:
    assert errno_of(error) == errno.EIO


def test_a_class_below_one_of_the_tree_has_its_errno() -> None:
    class Special(errors.ConnectionRefused):
        pass

    assert errno_of(Special("x")) == errno.ECONNREFUSED
