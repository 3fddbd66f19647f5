"""The images that the kernel can mount (layers/erofs), and their place in the cache."""

from __future__ import annotations

import io

import pytest

from ocifs.errors import LimitExceeded
from ocifs.layers.erofs.data_map import DataMap
from ocifs.layers.erofs.head import verify_file
from ocifs.layers.erofs.writer import ImageOptions, empty_image, write_image
from ocifs.layers.merge.apply import merge
from ocifs.settings import Limits
from tests.layers.stacks import file, layer


def test_an_image_is_the_same_each_time() -> None:
    tree = merge([layer(file("a/b"), file("c"))], Limits())
    first, second = io.BytesIO(), io.BytesIO()
    write_image(tree, ImageOptions(), first)
    write_image(tree, ImageOptions(), second)
    assert first.getvalue() == second.getvalue()


def test_an_image_has_at_most_the_size_of_its_bound() -> None:
    tree = merge([layer(*(file(f"{number}") for number in range(1000)))], Limits())
    size = write_image(tree, ImageOptions(), io.BytesIO()).size
    write_image(tree, ImageOptions(), io.BytesIO(), limit=size)
    with pytest.raises(LimitExceeded, match=r"limits\.erofs_bytes"):
        write_image(tree, ImageOptions(), io.BytesIO(), limit=size - 4096)


def test_the_empty_image_has_one_block_and_no_data() -> None:
    image = io.BytesIO(empty_image())
    _, head = verify_file(image)
    assert (head.blocks, DataMap.decode(head.columns, image.getvalue()[head.size :]).size) == (1, 0)
