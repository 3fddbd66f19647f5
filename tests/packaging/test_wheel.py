"""The contents of the wheel and of the source distribution.

test_install_page.py installs the wheel.
"""

from __future__ import annotations

import email
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED = (
    "bash-completion/completions/ocifs",
    "fish/vendor_completions.d/ocifs.fish",
    "man/man1/ocifs.1",
    "man/man5/ocifs.toml.5",
    "man/man8/mount.ocifs.8",
    "systemd/user/ocifs@.service",
    "zsh/site-functions/_ocifs",
)
CODE = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "ocifs").rglob("*")
    if path.suffix in {".py", ".pyi", ".typed"}
)


def test_the_shared_files_are_made_without_pyfuse3(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['pyfuse3'] = None; from scripts import make_share;"
        " from pathlib import Path; make_share.write(Path(sys.argv[1]), '1.2.3')"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, check=True, timeout=120)
    made = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(str(path.relative_to(tmp_path)) for path in made) == list(SHARED)


def wheel_of(directory: Path) -> Path:
    [wheel] = directory.glob("*.whl")
    return wheel


def test_the_wheel_has_only_the_program_and_the_shared_files(built: Path) -> None:
    with zipfile.ZipFile(wheel_of(built)) as wheel:
        names = wheel.namelist()
    assert sorted(name for name in names if name.startswith("ocifs/")) == CODE
    assert "ocifs/py.typed" in names
    rest = [
        re.sub(r"^ocifs_mount-[^/]+?\.(data/data|dist-info)/", "", name)
        for name in names
        if "ocifs/" not in name[:6]
    ]
    assert sorted(rest) == sorted(
        [
            *(f"share/{name}" for name in SHARED),
            "METADATA",
            "WHEEL",
            "RECORD",
            "entry_points.txt",
            "licenses/LICENSE",
        ]
    )


def test_the_source_distribution_has_the_sources_of_its_wheel(built: Path) -> None:
    [archive] = built.glob("*.tar.gz")
    with tarfile.open(archive) as source:
        names = [member.name.partition("/")[2] for member in source.getmembers() if member.isfile()]
    assert sorted(name for name in names if name.startswith("ocifs/")) == CODE
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "PKG-INFO"} <= set(names)
    assert {f"build/share/{name}" for name in SHARED} <= set(names)
    assert not [name for name in names if name.startswith("tests/")]


def test_the_pages_have_the_version_of_the_wheel(built: Path) -> None:
    with zipfile.ZipFile(wheel_of(built)) as wheel:
        [facts] = (wheel.read(name) for name in wheel.namelist() if name.endswith("/METADATA"))
        [page] = (
            wheel.read(name).decode() for name in wheel.namelist() if name.endswith("/ocifs.1")
        )
    version = email.message_from_bytes(facts)["Version"]
    assert f'"ocifs {version}"' in page.splitlines()[0]
    assert version in wheel_of(built).name
