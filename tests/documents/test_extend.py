"""The steps of docs/how-to/extend.md, followed with the code on the page."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
import tarfile
from io import BytesIO
from pathlib import Path
from types import ModuleType

import pytest
import trio

from ocifs.layers.service import LayerService
from ocifs.layers.toc.formats import FORMATS
from ocifs.layers.toc.protocol import TocFormat
from ocifs.oci import mediatype
from ocifs.oci.digest import Digest
from ocifs.oci.platform import Platform
from ocifs.registry.auth.source import CredentialSource
from ocifs.registry.client import open_registry
from ocifs.settings import Limits, Settings, ViewSettings
from ocifs.tree.manifest.context import Context
from ocifs.tree.node import Directory, File
from ocifs.tree.registry.namespace import RepositoryDirectory
from ocifs.tree.walk import walk
from tests.support.faults import Reply, Request, fault_server, http
from tests.support.secrets import keep_secret
from tests.tree.memory import MemoryRegistry, MemoryShelf

PAGE = Path(__file__).parents[2] / "docs/how-to/extend.md"
CONTENT = {"d/first": b"first" * 100_000, "d/second": b"second" * 100_000}
MACHINE = {"os": "linux", "architecture": "amd64"}


def module_on_page(heading: str) -> ModuleType:
    """The first block of Python below a heading of the page, as a module."""
    section = PAGE.read_text().split(f"## {heading}\n")[1]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert code is not None
    module = ModuleType("example")
    exec(compile(code[1], str(PAGE), "exec"), module.__dict__)
    return module


def example_format() -> TocFormat:
    found: TocFormat = module_on_page("Add a lazy layer format").Example()
    return found


def lazy_layer() -> tuple[bytes, bytes]:
    """A tar, and the list of its files."""
    file, table = BytesIO(), []
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in CONTENT.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, BytesIO(content))
            start = tar.offset - len(content) - -len(content) % 512
            table.append([name, start, len(content), hashlib.sha256(content).hexdigest()])
    return file.getvalue(), json.dumps(table).encode()


def push(registry: MemoryRegistry, blob: bytes, table: bytes, digest: Digest) -> None:
    """An image as app:v1, with the annotations of the example."""
    annotations = {"com.example.toc.digest": str(digest), "com.example.toc.size": str(len(table))}
    layer = registry.put_blob(blob + table, mediatype.OCI_LAYER, annotations=annotations)
    config = registry.put_blob(json.dumps(MACHINE).encode(), mediatype.OCI_CONFIG)
    registry.put_manifest("app", "v1", {"config": config, "layers": [layer]})


async def read(registry: MemoryRegistry, formats: tuple[TocFormat, ...]) -> bytes:
    """List app:v1/rootfs/d, and read one file in it."""
    async with trio.open_nursery() as nursery:
        service = LayerService(registry, MemoryShelf(), nursery, Limits(), formats=formats)
        view = ViewSettings(platform=Platform("linux", "amd64"))
        context = Context(registry.origin, view, Limits(), lambda: service)
        root = RepositoryDirectory(context, "", "root", repository=False)
        directory = await walk(root, b"app:v1/rootfs/d")
        assert isinstance(directory, Directory)
        assert sorted(entry.name for entry in await directory.entries()) == [b"first", b"second"]
        file = await walk(directory, b"second")
        assert isinstance(file, File)
        content = await file.read(0, 1 << 20)
        nursery.cancel_scope.cancel()
    return content


def test_the_example_has_the_members_of_a_format() -> None:
    example = example_format()
    assert (example.name, example.tar_positions, example.opt_in) == ("example", True, False)
    assert example.ref({}) is None


async def test_a_layer_of_the_example_is_read_by_its_table(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry, (tar, table) = MemoryRegistry(), lazy_layer()
    # The headers of the tar are destroyed, so that only the table can list the files.
    start = json.loads(table)[0][1]
    push(registry, bytes(start) + tar[start:], table, Digest.of(table))
    with caplog.at_level(logging.WARNING):
        assert await read(registry, (*FORMATS, example_format())) == CONTENT["d/second"]
    assert not caplog.records


@pytest.mark.parametrize("table", [b"[]", b"[[1]]", b"{", b'[["d/first", -5, 9, "00"]]'])
async def test_a_false_table_is_rejected_and_the_layer_is_an_ordinary_tar(
    caplog: pytest.LogCaptureFixture, table: bytes
) -> None:
    registry, (tar, _) = MemoryRegistry(), lazy_layer()
    push(registry, tar, table, Digest.of(b"another" if table == b"[]" else table))
    with caplog.at_level(logging.WARNING):
        assert await read(registry, (*FORMATS, example_format())) == CONTENT["d/second"]
    assert "is read as an ordinary tar" in caplog.text


async def test_a_span_with_a_false_checksum_is_read_from_the_tar(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry, (tar, table) = MemoryRegistry(), lazy_layer()
    rows = json.loads(table)
    rows[1][3] = "0" * 64
    false = json.dumps(rows).encode()
    push(registry, tar, false, Digest.of(false))
    with caplog.at_level(logging.WARNING):
        assert await read(registry, (example_format(),)) == CONTENT["d/second"]
    assert "is indexed again" in caplog.text


OLD = keep_secret("the-old-password-of-the-page")
NEW = keep_secret("the-new-password-of-the-page")


def example_source(directory: Path) -> CredentialSource:
    source: CredentialSource = module_on_page("Add a credential source").DirectorySource(directory)
    return source


async def test_a_registry_gets_the_credential_of_the_example(tmp_path: Path) -> None:
    accepted = [OLD]

    def reply(request: Request) -> Reply:
        login = base64.b64encode(f"me:{accepted[0]}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {login}":
            return http(401, www_authenticate='Basic realm="test"')
        body = json.dumps({"name": "team/app", "tags": ["v1"]}).encode()
        return http(200, body, content_type="application/json")

    with fault_server(reply) as server:
        source = example_source(tmp_path)
        (tmp_path / server.host).write_text(f"me:{OLD}\n")
        async with open_registry(server.host, Settings(), [source]) as client:
            assert await client.tags("team/app") == ("v1",)
            # The registry rejects the old password, and the file has the new one.
            accepted[0] = NEW
            (tmp_path / server.host).write_text(f"me:{NEW}\n")
            assert await client.tags("team/app") == ("v1",)


@pytest.mark.parametrize("content", [b"", b"name", b"\xff:x"])
async def test_a_file_of_the_example_without_a_credential_is_none(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "r.example").write_bytes(content)
    source = example_source(tmp_path)
    assert await source.find("r.example", "", refresh=False) is None
    assert await source.find("other.example", "", refresh=False) is None
    assert source.describe() == f"the files in {tmp_path}"
