"""A registry that fails one request (5xx) still serves all others, with and without mirrors."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mount.test_large_registry import registry
from tests.support.faults import Handler, Reply, Request, fault_server, http
from tests.support.mount import mounted

pytestmark = pytest.mark.mount

FAILING = {
    "a tag list": ("/v2/team/app/tags/list", "team/app/_tags"),
    "the catalog": ("/v2/_catalog", ""),
    "one manifest": ("/v2/team/app/manifests/t000007", "team/app/_manifests/t000007"),
    "referrers": ("/referrers/", "team/app/_manifests/t000002/referrers"),
}


def failing(part: str, status: int) -> Handler:
    return lambda request: (
        http(status, then="keep") if part in request.target else registry(request)
    )


def configured(home: Path, host: str, mirror: str) -> dict[str, str]:
    """An environment with a registries.conf that has a mirror for a host."""
    (home / "containers").mkdir(parents=True)
    text = (
        f'[[registry]]\nlocation = "{host}"\n'
        f'[[registry.mirror]]\nlocation = "{mirror}"\ninsecure = true\n'
    )
    (home / "containers/registries.conf").write_text(text)
    return {"XDG_CONFIG_HOME": str(home)}


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize("name", FAILING)
def test_a_failing_request_does_not_prevent_other_reads(
    tmp_path: Path, name: str, status: int
) -> None:
    part, place = FAILING[name]
    with fault_server(failing(part, status)) as server:
        with mounted(server.host, tmp_path / "mnt", tmp_path / "cache") as mount:
            for number in (1, 2, 3):
                if place or number == 1:  # later the root lists the visited names
                    with pytest.raises(OSError):
                        list((mount.path / place).iterdir())
                kind = mount.path / f"team/app/_manifests/t{number:06d}/kind"
                assert kind.read_text() == "image\n"


def test_a_failing_list_does_not_prevent_other_reads_with_mirrors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def empty(request: Request) -> Reply:
        return http(200 if request.target == "/v2/" else 404, then="keep")

    with fault_server(failing("/tags/list", 500)) as server, fault_server(empty) as mirror:
        for name, value in configured(tmp_path / "config", server.host, mirror.host).items():
            monkeypatch.setenv(name, value)
        with mounted(server.host, tmp_path / "mnt", tmp_path / "cache") as mount:
            for number in (1, 2, 3):
                with pytest.raises(OSError):
                    list((mount.path / "team/app/_tags").iterdir())
                assert (
                    mount.path / f"team/app/_manifests/t{number:06d}/kind"
                ).read_text() == "image\n"
            assert mirror.requests
