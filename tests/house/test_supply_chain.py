"""A release has locked libraries, a bill of materials, and units and pods with few rights."""

from __future__ import annotations

import json
import re
import sysconfig
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.packaging.sbom import bill, hashes_of

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "scripts/packaging/requirements.lock").read_text()
LOCKED = {
    canonicalize_name(each.partition("==")[0]): each.partition("==")[2] for each in hashes_of(LOCK)
}


def test_the_lock_has_what_the_project_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in project["dependencies"]:
        needed = Requirement(text)
        version = LOCKED[canonicalize_name(needed.name)]
        assert needed.specifier.contains(version), f"{text}: run scripts/lock"


def test_every_library_is_locked_by_hashes() -> None:
    assert len(LOCKED) > 12
    assert [name for name, hashes in hashes_of(LOCK).items() if not hashes] == []
    lines = [line for line in LOCK.splitlines() if not line.startswith((" ", "#"))]
    assert [line for line in lines if not re.match(r"[\w.-]+==[\w.]+( ;[^\\]*)? ?\\", line)] == []


def test_the_package_is_built_by_the_lock() -> None:
    text = (ROOT / "scripts/packaging/deb").read_text()
    # pip gets its libraries from files with lines of the lock only, always with their hashes.
    assert "scripts/packaging/requirements.lock" in text
    given = re.findall(r"(--require-hashes [^\n]*(?:\\\n[^\n]*)?)--requirement (\S+)", text)
    assert len(given) == text.count("--requirement ") == 2
    for _, file in given:
        assert re.search(rf"^ *locked \S+ >{re.escape(file)}( |$)", text, re.MULTILINE), file
    assert text.count("--no-deps") == 2


def test_the_bill_names_each_library_with_its_hashes(tmp_path: Path) -> None:
    place = tmp_path / "site-packages"
    for name, version in (("trio", LOCKED["trio"]), ("ocifs_mount", "1.0")):
        (place / f"{name}-{version}.dist-info").mkdir(parents=True)
        metadata = (
            f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\nLicense-Expression: MIT\n"
        )
        (place / f"{name}-{version}.dist-info/METADATA").write_text(metadata)
    made = json.loads(json.dumps(bill("1.0", str(place), LOCK)))
    assert (made["bomFormat"], made["specVersion"]) == ("CycloneDX", "1.5")
    [component] = made["components"]
    assert component["purl"] == f"pkg:pypi/trio@{LOCKED['trio']}"
    assert {each["content"] for each in component["hashes"]} == set(
        hashes_of(LOCK)[f"trio=={LOCKED['trio']}"]
    )
    with pytest.raises(KeyError):
        bill("1.0", str(place), LOCK.replace(f"trio=={LOCKED['trio']}", "trio==0.1"))
    assert sysconfig.get_path("purelib")


def test_the_units_are_hardened() -> None:
    units = ROOT / "scripts/packaging/systemd"
    system, user = ((units / kind / "ocifs@.service").read_text() for kind in ("system", "user"))
    for line in (
        "LimitCORE=0",
        "MemoryMax=",
        "WorkingDirectory=/",
        "UnsetEnvironment=PYTHONPATH PYTHONHOME",
    ):
        assert f"\n{line}" in system and f"\n{line}" in user
    assert "\nNoNewPrivileges=yes" in system
    # Each of these would hide the mount from the rest of the machine, or take fusermount3's rights.
    own_namespace = (
        r"^(Protect\w+|Private\w+|ReadOnlyPaths|ReadWritePaths|InaccessiblePaths"
        r"|RootDirectory|DynamicUser)="
    )
    assert not re.search(own_namespace, system, re.MULTILINE)
    assert not re.search(
        r"^(NoNewPrivileges|Restrict\w+|LockPersonality|SystemCall\w+)=", user, re.MULTILINE
    )


def test_the_pods_have_no_more_rights_than_they_need() -> None:
    documents = list(
        yaml.safe_load_all((ROOT / "docs/how-to/kubernetes/daemonset.yaml").read_text())
    )
    pod = next(each for each in documents if each["kind"] == "DaemonSet")["spec"]["template"][
        "spec"
    ]
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    for container in pod["initContainers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"]["drop"] == ["ALL"]
    for container in (*pod["containers"], *pod["initContainers"]):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["resources"]["limits"]["memory"]
        bidirectional = any(
            each.get("mountPropagation") == "Bidirectional" for each in container["volumeMounts"]
        )
        assert bool(container["securityContext"].get("privileged")) == bidirectional
