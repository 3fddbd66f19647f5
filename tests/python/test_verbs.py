"""`ocifs.verbs` without a command line: on a Tree, on an AsyncTree and through fsspec."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

import ocifs
from ocifs import verbs
from ocifs.errors import ConnectionRefused, NotFound, UsageError
from ocifs.oci.digest import Digest
from scripts.example import make


@pytest.fixture
def layout(tmp_path: Path) -> str:
    make(tmp_path / "example")
    return f"oci:{tmp_path}/example"


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "cache")


def test_every_verb_can_be_imported_from_the_package() -> None:
    assert all(callable(getattr(verbs, name)) for name in dir(verbs))
    with pytest.raises(AttributeError):
        _ = verbs.absent  # type: ignore[attr-defined]


def test_an_export_has_the_digest_that_it_returns(layout: str, cache: str, tmp_path: Path) -> None:
    progress = verbs.Progress()
    with ocifs.open(f"{layout}:1.0", cache_dir=cache) as tree:
        digest = tree.run(verbs.export_image, f"oci:{tmp_path}/out", "", progress)
        assert str(digest) == tree.read("digest").decode().strip()
        with pytest.raises(UsageError):
            tree.run(verbs.export_image, "docker://somewhere")
    assert progress.done == progress.total > 0
    with ocifs.open(f"oci:{tmp_path}/out:1.0", cache_dir=cache) as copy:
        assert Digest.parse(copy.read("digest").decode().strip()) == digest


def test_one_child_is_exported_for_a_tree_with_a_platform(
    layout: str, cache: str, tmp_path: Path
) -> None:
    with ocifs.open(f"{layout}:1.0", cache_dir=cache, platform="linux/arm64") as tree:
        if "platforms" in {entry.path for entry in tree.list()}:
            child = tree.run(verbs.export_image, f"oci:{tmp_path}/out")
            assert str(child) == tree.read("platforms/linux-arm64/digest").decode().strip()


def test_matches_and_their_kinds(layout: str, cache: str) -> None:
    with ocifs.open(layout, cache_dir=cache) as tree:
        results = tree.run(verbs.find_artifacts)
        kinds = {
            tree.read(f"_manifests/{r.path.lstrip(':')}/kind").decode().strip() for r in results
        }
        assert kinds == {result.kind for result in results}
        one = tree.run(verbs.find_artifacts, [results[0].kind])
        assert {result.kind for result in one} == {results[0].kind}
        with pytest.raises(UsageError, match="unknown kind: nonsense"):
            tree.run(verbs.find_artifacts, ["nonsense"])


async def test_a_search_that_is_left_early_ends_and_one_that_fails_raises(
    layout: str, cache: str
) -> None:
    async with ocifs.open_async(layout, cache_dir=cache) as tree:
        async with verbs.open_search(tree) as results:
            assert (await results.receive()).path
    async with ocifs.open_async("127.0.0.1:1", cache_dir=cache) as tree:
        with pytest.raises(ConnectionRefused):
            await verbs.find_artifacts(tree)


def test_an_inspection_is_that_of_the_directory(layout: str, cache: str) -> None:
    with ocifs.open(layout, cache_dir=cache) as tree:
        inspection = tree.run(verbs.inspect_manifest, "_tags/1.0")
        assert inspection.kind == tree.read("_tags/1.0/kind").decode().strip()
        assert inspection.as_dict()["digest"] == tree.read("_tags/1.0/digest").decode().strip()
        assert inspection.summary().startswith(tree.read("_tags/1.0/summary.txt").decode()[:40])
        with pytest.raises(UsageError, match="not a manifest: _tags"):
            tree.run(verbs.inspect_manifest, "_tags")
        with pytest.raises(NotFound):
            tree.run(verbs.inspect_manifest, "_tags/2.0")


def test_prefetched_bytes_are_those_of_the_files(layout: str, cache: str) -> None:
    with ocifs.open(f"{layout}:1.0", cache_dir=cache) as tree:
        size = tree.stat("manifest.json").size
        assert tree.run(verbs.prefetch_paths, ["manifest.json"]) == size
        assert tree.run(verbs.prefetch_paths) > 0


def test_pins_are_put_and_removed(layout: str, cache: str) -> None:
    digest = "sha256:" + "0" * 64
    verbs.pin_digest(digest, Path(cache))
    assert verbs.unpin(digest, Path(cache)) == digest
    with pytest.raises(NotFound):
        verbs.unpin(digest, Path(cache))
    with ocifs.open(f"{layout}:1.0", cache_dir=cache) as tree, pytest.raises(UsageError):
        tree.run(verbs.pin_manifest)


def test_a_cache_is_verified(layout: str, cache: str) -> None:
    with ocifs.open(f"{layout}:1.0", cache_dir=cache) as tree:
        tree.run(verbs.prefetch_paths)
    findings = verbs.verify_cache(Path(cache))
    assert findings.good > 0 and not findings.wrong


def test_findings_about_this_machine_and_a_source(layout: str, cache: str) -> None:
    findings = verbs.check_setup(layout, cache_dir=cache)
    assert {"version", "fuse", "cache", "source"} <= {finding.topic for finding in findings}


def test_verbs_of_fsspec(layout: str, cache: str, tmp_path: Path) -> None:
    fs = fsspec.filesystem("oci-registry", source=layout, cache_dir=cache)
    digest = fs.cat("_manifests/1.0/digest").decode().strip()
    assert fs.inspect("_manifests/1.0")["digest"] == digest
    assert fs.prefetch("_manifests/1.0/manifest.json") == fs.size("_manifests/1.0/manifest.json")
    assert fs.export("_manifests/1.0", f"oci:{tmp_path}/out") == digest
    with pytest.raises(FileNotFoundError):
        fs.prefetch("_manifests/2.0")
    fs.close()
