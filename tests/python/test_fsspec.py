"""`oci-registry://` through fsspec, in a real registry, with fsspec's own functions, duckdb, pandas
and pyarrow.
"""

from __future__ import annotations

import errno
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import fsspec
import pandas
import pyarrow.compute
import pyarrow.dataset
import pyarrow.fs
import pytest
from fsspec.core import get_fs_token_paths
from fsspec.registry import known_implementations

from tests.support.push import push_blob, push_manifest
from tests.support.registry import Registry

pytestmark = pytest.mark.servers
CSV = b"name,size\n" + b"".join(b"n%d,%d\n" % (number, number) for number in range(50_000))


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("parquet") / "t.parquet"
    duckdb.sql(
        f"COPY (SELECT range AS n, range * 2 AS twice FROM range(100000)) "
        f"TO '{path}' (FORMAT parquet)"
    )
    return path.read_bytes()


@pytest.fixture
def url(registry: Registry, parquet: bytes) -> str:
    """A reference with two files, as oras would push them."""
    files = {"table.csv": CSV, "deep/table.parquet": parquet}
    layers = [
        {
            "mediaType": "application/octet-stream",
            "digest": push_blob(registry.url, "python/data", content),
            "size": len(content),
            "annotations": {"org.opencontainers.image.title": name},
        }
        for name, content in files.items()
    ]
    empty = {
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": push_blob(registry.url, "python/data", b"{}"),
        "size": 2,
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example.table",
        "config": empty,
        "layers": layers,
    }
    push_manifest(registry.url, "python/data", manifest, "v1")
    return f"oci-registry://{registry.host}/python/data:v1/files"


@pytest.fixture
def filesystem(tmp_path: Path) -> Iterator[fsspec.AbstractFileSystem]:
    made = fsspec.filesystem(
        "oci-registry", cache_dir=str(tmp_path / "cache"), tag_ttl=5, skip_instance_cache=True
    )
    yield made
    made.close()


def test_the_name_is_ours_alone() -> None:
    assert "oci-registry" not in known_implementations or known_implementations["oci-registry"][
        "class"
    ].startswith("ocifs.")
    assert fsspec.get_filesystem_class("oci-registry").__module__ == "ocifs.filesystem"


def test_what_fsspec_promises_of_reading(filesystem: fsspec.AbstractFileSystem, url: str) -> None:
    csv = f"{url}/table.csv"
    plain = csv.removeprefix("oci-registry://")
    assert filesystem.cat_file(csv) == CSV
    assert filesystem.cat_file(csv, 10, 20) == CSV[10:20]
    assert filesystem.cat_file(csv, -10) == CSV[-10:]
    assert filesystem.cat_file(csv, 5, -5) == CSV[5:-5]
    assert filesystem.head(csv, 4) == CSV[:4] and filesystem.tail(csv, 4) == CSV[-4:]
    info = filesystem.info(csv)
    assert (info["name"], info["size"], info["type"]) == (plain, len(CSV), "file")
    assert filesystem.isfile(csv) and filesystem.isdir(url) and filesystem.exists(csv)
    assert not filesystem.exists(f"{url}/absent")
    assert filesystem.ls(csv, detail=False) == [plain]
    names = [path.rpartition("/files/")[2] for path in filesystem.find(url)]
    assert names == ["deep/table.parquet", "table.csv"]
    assert filesystem.glob(f"{url}/*.csv") == [plain]
    assert [name for _, _, files in filesystem.walk(url) for name in files] == [
        "table.csv",
        "table.parquet",
    ]
    assert filesystem.du(url) == len(CSV) + filesystem.size(f"{url}/deep/table.parquet")
    repository = url.rpartition(":v1")[0]
    assert f"{repository.removeprefix('oci-registry://')}/_tags/v1" in filesystem.ls(
        f"{repository}/_tags", detail=False
    )
    assert filesystem.ls(f"{repository}/_tags")[0]["type"] == "directory"
    with filesystem.open(csv) as file:
        assert file.readline() == b"name,size\n"
        file.seek(-20, 2)
        assert file.read() == CSV[-20:]
    with filesystem.open(csv, "rt") as file:
        assert next(file) == "name,size\n"


def test_errors_are_those_of_files(filesystem: fsspec.AbstractFileSystem, url: str) -> None:
    with pytest.raises(FileNotFoundError):
        filesystem.cat_file(f"{url}/absent")
    with pytest.raises(FileNotFoundError):
        filesystem.ls(f"{url}/absent")
    with pytest.raises(IsADirectoryError):
        filesystem.cat_file(url)
    with pytest.raises(OSError, match="read-only"):
        filesystem.open(f"{url}/new", "wb")
    with pytest.raises(OSError, match="refuses"):
        filesystem.ls("oci-registry://127.0.0.1:1/x")


WRITES = {
    "mkdir": ("x",),
    "makedirs": ("x",),
    "mkdirs": ("x",),
    "rmdir": ("x",),
    "rm": ("x",),
    "rm_file": ("x",),
    "touch": ("x",),
    "pipe": ("x", b""),
    "pipe_file": ("x", b""),
    "put_file": (__file__, "x"),
    "cp_file": ("x", "y"),
    "copy": ("x", "y"),
    "mv": ("x", "y"),
    "move": ("x", "y"),
}


@pytest.mark.parametrize(("name", "arguments"), WRITES.items())
def test_whatever_would_write_is_erofs(
    filesystem: fsspec.AbstractFileSystem, name: str, arguments: tuple[object, ...]
) -> None:
    with pytest.raises(OSError) as error:
        getattr(filesystem, name)(*arguments)
    assert error.value.errno == errno.EROFS


FORK = """
import fsspec, multiprocessing, ocifs, signal, sys

url, cache = sys.argv[1:]
path = url.removeprefix("oci-registry://") + "/table.csv"
host, _, rest = path.partition("/")
signal.alarm(100)
filesystem = fsspec.filesystem("oci-registry", cache_dir=cache)
with ocifs.open(f"{host}/", cache_dir=cache) as tree:
    before = filesystem.cat_file(path), tree.read(rest)

    def read(_):
        return filesystem.cat_file(path), tree.read(rest)

    with multiprocessing.get_context("fork").Pool(3) as pool:
        for found in pool.map(read, range(12), chunksize=1):
            assert found == before, found
    assert read(0) == before
print("read")
"""


def test_a_forked_child_reads_from_an_instance_of_its_parent(url: str, tmp_path: Path) -> None:
    """fsspec: instances are used from workers. The parent's event loop is not in the child."""
    command = [sys.executable, "-c", FORK, url, str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.stdout == "read\n", done.stderr


def test_files_are_copied_to_disk(
    filesystem: fsspec.AbstractFileSystem, url: str, tmp_path: Path, parquet: bytes
) -> None:
    filesystem.get(f"{url}/", str(tmp_path / "copy"), recursive=True)
    assert (tmp_path / "copy" / "table.csv").read_bytes() == CSV
    assert (tmp_path / "copy" / "deep" / "table.parquet").read_bytes() == parquet


def test_duckdb_reads_tables_from_a_registry(
    filesystem: fsspec.AbstractFileSystem, url: str
) -> None:
    connection = duckdb.connect()
    connection.register_filesystem(filesystem)
    total, count = connection.sql(
        f"SELECT sum(twice), count(*) FROM read_parquet('{url}/deep/table.parquet')"
    ).fetchall()[0]
    assert (total, count) == (99_999 * 100_000, 100_000)
    assert connection.sql(f"SELECT max(size) FROM read_csv('{url}/table.csv')").fetchall() == [
        (49_999,)
    ]


def test_pandas_reads_tables_by_their_urls(url: str, tmp_path: Path) -> None:
    options = {"cache_dir": str(tmp_path / "cache")}
    table = pandas.read_parquet(f"{url}/deep/table.parquet", storage_options=options)
    assert (len(table), int(table["twice"].sum())) == (100_000, 99_999 * 100_000)
    assert list(pandas.read_csv(f"{url}/table.csv", storage_options=options).columns) == [
        "name",
        "size",
    ]
    with pytest.raises(FileNotFoundError):
        pandas.read_csv(f"{url}/absent.csv", storage_options=options)


def test_pyarrow_reads_a_dataset_and_only_the_columns_that_are_asked_for(
    filesystem: fsspec.AbstractFileSystem, url: str
) -> None:
    place = url.removeprefix("oci-registry://")
    over = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(filesystem))
    table = pyarrow.dataset.dataset(f"{place}/deep", filesystem=over, format="parquet").to_table(
        columns=["n"]
    )
    assert (table.num_rows, table.column_names) == (100_000, ["n"])
    assert pyarrow.compute.sum(table["n"]).as_py() == 99_999 * 100_000 // 2


def test_urls_open_by_themselves(url: str, tmp_path: Path) -> None:
    options = {"cache_dir": str(tmp_path / "cache")}
    opened, _, (path,) = get_fs_token_paths(f"{url}/table.csv", storage_options=options)
    assert hashlib.sha256(opened.cat_file(path)).digest() == hashlib.sha256(CSV).digest()
    with fsspec.open(f"{url}/table.csv", **options) as file:
        assert file.read(9) == b"name,size"
    opened.close()
