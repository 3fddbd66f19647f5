"""Kinds that the user declares: in the configuration file, and in Python."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

import ocifs
from ocifs.errors import UsageError
from ocifs.oci import mediatype
from ocifs.oci.kinds.artifact import classify
from ocifs.oci.kinds.kind import ArtifactKind
from ocifs.oci.kinds.payload import payload_files
from ocifs.oci.kinds.rules import KindRules
from ocifs.options.own_kinds import MAX_ITEMS, MAX_KINDS, MAX_STARS, MAX_TEXT, own_kinds
from tests.oci.manifests import EMPTY, IMAGE, TAR, V, child, d, m, parse, x
from tests.support.mount import run_ocifs

REPORT = V + "acme.report.v1+json"
KIND: dict[str, object] = {
    "description": "Report of Acme's scanner",
    "types": [V + "acme.report.*"],
    "index-types": [V + "acme.reports"],
    "layer-types": [V + "acme.page.*"],
    "annotations": ["com.acme.report=yes"],
    "files": {REPORT: "report.json", V + "acme.page.*": "{com.acme.name}.txt"},
    "annotation-files": {"com.acme.summary": "summary.txt"},
    "config-file": "settings.json",
}
TOML = f"""
[kinds.acme-report]
description = "Report of Acme's scanner"
types = ["{V}acme.report.*"]
files = {{ "{REPORT}" = "report.json" }}
"""


def write_layout(layout: Path) -> Path:
    """An OCI layout with one artifact of the type REPORT, at the tag v1."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(content: bytes, media_type: str, **more: object) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        size = len(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size, **more}

    body = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "artifactType": REPORT,
        "config": put(b"{}", EMPTY),
        "layers": [put(b'{"report": 1}', REPORT)],
    }
    name = {"org.opencontainers.image.ref.name": "v1"}
    entry = put(json.dumps(body).encode(), mediatype.OCI_MANIFEST, annotations=name)
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return layout


def rules(tables: Mapping[str, object]) -> KindRules:
    return KindRules(own_kinds(tables, "/etc/config.toml"), own=True)


@pytest.mark.parametrize(
    ("manifest", "kind", "files"),
    [
        (m(EMPTY, REPORT, artifactType=REPORT), "acme-report", ["report.json"]),
        (m(EMPTY, REPORT, artifactType=REPORT.upper()), "acme-report", ["report.json"]),
        (
            m(V + "acme.report.config", d(V + "acme.page.v1", note="com.acme.name=one")),
            "acme-report",
            ["one.txt", "settings.json"],
        ),
        (m(EMPTY, V + "acme.page.v1"), "acme-report", ["page"]),
        (
            m(EMPTY, "a/b", annotations={"com.acme.report": "yes", "com.acme.summary": "s"}),
            "acme-report",
            ["layer-0.bin", "summary.txt"],
        ),
        (x(child("", "a/b"), artifactType=V + "acme.reports"), "acme-report", []),
        # What ocifs recognizes itself is never a kind of the user.
        (m(EMPTY, REPORT, artifactType="application/spdx+json"), "sbom", ["report.json"]),
        (m(IMAGE, TAR, annotations={"com.acme.report": "yes"}), "image", ["layer-0.tar.gz"]),
        (m(EMPTY, "a/b", annotations={"com.acme.report": "no"}), "files", ["layer-0.bin"]),
    ],
)
def test_own_kinds_apply_to_unknown_artifacts_only(
    manifest: dict[str, object], kind: str, files: list[str]
) -> None:
    parsed = parse(manifest)
    found = classify(parsed, own=rules({"acme-report": KIND}))
    assert found.kind == kind
    if kind == "acme-report":
        assert found.row.origin == "[kinds.acme-report] of /etc/config.toml"
        assert [file.path for file in payload_files(parsed, found)] == files


WORD = {"types": ["a/b"]}


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (3, "f: kinds is not a table"),
        ({"Acme": WORD}, "f: kinds.Acme: invalid name of a kind"),
        ({"a" * 41: WORD}, "invalid name of a kind"),
        ({"a--b": WORD}, "invalid name of a kind"),
        ({3: WORD}, "f: kinds.3: invalid name of a kind"),
        ({"sbom": WORD}, "f: kinds.sbom: ocifs has a kind of this name"),
        ({"a": []}, "f: kinds.a is not a table"),
        ({"a": {}}, "f: kinds.a: nothing identifies the kind"),
        ({"a": {"types": []}}, "nothing identifies the kind"),
        ({"a": {**WORD, "typs": []}}, "f: kinds.a: unknown key: typs"),
        ({"a": {"types": "a/b"}}, "f: kinds.a.types: expected a list of strings"),
        ({"a": {"types": ["a/b", 3]}}, r"f: kinds.a.types\[1\]: expected a string"),
        ({"a": {"types": [" "]}}, r"f: kinds.a.types\[0\]: empty text"),
        ({"a": {"types": ["a/b;c=d"]}}, r"f: kinds.a.types\[0\]: a type with parameters"),
        ({"a": {"types": ["a\x1b"]}}, r"f: kinds.a.types\[0\]: control characters"),
        ({"a": {"types": ["a" * (MAX_TEXT + 1)]}}, "201 characters, at most 200"),
        ({"a": {"types": ["*a" * (MAX_STARS + 1)]}}, "more than 8 asterisks"),
        ({"a": {"types": ["a/b"] * (MAX_ITEMS + 1)}}, "101 items, at most 100"),
        ({"a": {**WORD, "files": ["x"]}}, "f: kinds.a.files: expected a table of strings"),
        ({"a": {**WORD, "files": {"a/b": 3}}}, 'f: kinds.a.files."a/b": expected a string'),
        ({"a": {**WORD, "all-layers": 1}}, "f: kinds.a.all-layers: expected true or false"),
        ({f"k{n}": WORD for n in range(MAX_KINDS + 1)}, "f: 201 kinds, at most 200"),
    ],
)
def test_an_invalid_kind_is_an_error_that_names_the_file_and_the_key(
    tables: object, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        own_kinds(tables, "f")


def test_keys_may_have_underscores_in_python() -> None:
    [kind] = own_kinds({"a": {"layer_types": ["A/B"], "config_file": "c"}}, "kinds")
    assert kind == ArtifactKind(
        "a", "", layer_types=("a/b",), config_file="c", origin="[kinds.a] of kinds"
    )


def test_a_kind_of_the_configuration_file_is_shown_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = write_layout(tmp_path / "layout")
    config = tmp_path / "config.toml"
    monkeypatch.setenv("OCIFS_CONFIG", str(config))
    config.write_text("")
    page = run_ocifs("inspect", f"oci:{layout}:v1", cache=tmp_path / "cache").stdout.decode()
    assert "Kind:          artifact — Artifact of a type that ocifs has no kind for" in page
    config.write_text(TOML)
    page = run_ocifs("inspect", f"oci:{layout}:v1", cache=tmp_path / "cache").stdout.decode()
    assert "Kind:          acme-report — Report of Acme's scanner\n" in page
    assert f"artifactType: {REPORT}, by [kinds.acme-report] of {config}\n" in page
    assert "report.json" in page
    source, cache = f"oci:{layout}", tmp_path / "cache"
    found = run_ocifs("find", source, "--kind", "acme-report", cache=cache).stdout.decode()
    assert found == f"acme-report\t{source}:v1\n"
    for pattern, lines in (("application/vnd.ACME.*", 1), ("*.report.*", 1), ("*.page.*", 0)):
        found = run_ocifs("find", source, "--artifact-type", pattern, cache=cache).stdout.decode()
        assert len(found.splitlines()) == lines
    listed = run_ocifs("ls", "-l", "--type", source, "_tags", cache=cache).stdout.decode()
    assert listed.split()[4:7] == ["acme-report", REPORT, "v1"]
    shown = json.loads(run_ocifs("config", "show", "--json", cache=tmp_path / "cache").stdout)
    [row] = [row for row in shown["options"] if row["option"] == "own-kinds"]
    assert (row["value"], row["from"]) == (["acme-report"], str(config))
    config.write_text("[kinds.acme-report]\ntypes = 3\n")
    failed = run_ocifs("inspect", f"oci:{layout}:v1", cache=tmp_path / "cache", check=False)
    assert failed.returncode == 2
    expected = f"ocifs: {config}: kinds.acme-report.types: expected a list of strings"
    assert failed.stderr.decode().startswith(expected)


def test_python_programs_declare_kinds(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout")
    with ocifs.open(
        f"oci:{layout}:v1", cache_dir=tmp_path / "cache", own_kinds={"acme-report": KIND}
    ) as tree:
        assert tree.read("kind") == b"acme-report\n"
        assert tree.read("files/report.json") == b'{"report": 1}'
    with pytest.raises(UsageError, match="nothing identifies the kind"):
        with ocifs.open(f"oci:{layout}:v1", own_kinds={"a": {}}):
            pass
