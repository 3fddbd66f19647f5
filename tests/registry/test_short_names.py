"""Short names (containers-registries.conf(5)), with podman as the oracle."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocifs.api import open as open_source
from ocifs.errors import OcifsError, UsageError
from ocifs.oci.reference import is_short_name, parse_source
from ocifs.registry.config.registries_conf import RegistriesConf, expand, load, merge, parse
from tests.support.faults import fault_server, http
from tests.support.image import make_layout
from tests.support.podman import podman
from tests.support.tars import a_tar


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("alpine", True),
        ("alpine:3.19", True),
        ("team/app", True),
        ("team/app@sha256:" + "0" * 64, True),
        ("localhost/app", False),
        ("localhost", False),
        ("r.example/app", False),
        ("r.example", False),
        ("r:5000/app", False),
        ("r:5000", True),
        ("host/", False),
        ("docker://alpine", False),
        ("[::1]:5000/app", False),
        ("", False),
    ],
)
def test_a_short_name_is_a_reference_without_a_host(text: str, short: bool) -> None:
    assert is_short_name(text) == short


def listed(*hosts: str, mode: str = "", more: str = "") -> RegistriesConf:
    text = f"unqualified-search-registries = {list(hosts)!r}\n"
    if mode:
        text += f'short-name-mode = "{mode}"\n'
    return parse(text + more, "conf")


def test_without_a_list_a_short_name_is_on_docker_hub() -> None:
    assert str(parse_source(RegistriesConf().expand("fedora:41"))) == "docker.io/library/fedora:41"


@pytest.mark.parametrize("mode", ["", "enforcing", "permissive", "disabled"])
def test_a_list_of_one_registry_is_where_short_names_are(mode: str) -> None:
    assert listed("quay.io", mode=mode).expand("fedora:41") == "quay.io/fedora:41"
    assert listed("r.example:5000/", mode=mode).expand("a/b") == "r.example:5000/a/b"
    hub = listed("docker.io", mode=mode).expand("fedora")
    assert str(parse_source(hub)) == "docker.io/library/fedora"


@pytest.mark.parametrize("mode", ["", "enforcing"])
def test_a_name_that_podman_would_ask_about_is_an_error_with_the_full_names(mode: str) -> None:
    conf = listed("quay.io", "docker.io", mode=mode)
    with pytest.raises(UsageError, match="ambiguous short name: fedora") as error:
        conf.expand("fedora")
    assert error.value.hint == "write quay.io/fedora or docker.io/fedora"


@pytest.mark.parametrize("mode", ["permissive", "disabled"])
def test_where_podman_asks_nothing_the_first_registry_holds(mode: str) -> None:
    assert listed("quay.io", "docker.io", mode=mode).expand("fedora") == "quay.io/fedora"


def test_an_alias_comes_before_the_list_and_a_full_name_is_never_replaced() -> None:
    conf = listed("quay.io", "docker.io", more='[aliases]\nfedora = "r.example/fedora"')
    assert conf.expand("fedora:41") == "r.example/fedora:41"
    assert conf.expand("docker.io/fedora") == "docker.io/fedora"
    assert conf.expand("docker://fedora") == "docker://fedora"


@pytest.mark.parametrize(
    ("more", "name", "said"),
    [
        ('[aliases]\nx = "b"', "x", r"conf: aliases.x \(b\) is not a name with a host"),
        ('[aliases]\nx = "b.example/x:1"', "x:2", "conf: aliases.x"),
        ('unqualified-search-registries = ["a b"]', "x", "not a host: .a b."),
    ],
)
def test_an_entry_that_is_wrong_fails_only_the_names_that_need_it(
    more: str, name: str, said: str
) -> None:
    conf = parse(more, "conf")
    with pytest.raises(UsageError, match=said):
        conf.expand(name)
    assert conf.expand("r.example/y") == "r.example/y"


def test_an_alias_of_a_full_name_is_a_problem_and_replaces_nothing() -> None:
    conf = parse('[aliases]\n"a.example/x" = "b.example/x"', "conf")
    assert conf.expand("a.example/x") == "a.example/x"
    assert "aliases.a.example/x is not a short name" in conf.problems()[0]


def test_podmans_own_answers_come_first(tmp_path: Path) -> None:
    for directory in ("config/containers", "cache/containers"):
        (tmp_path / directory).mkdir(parents=True)
    main = tmp_path / "config/containers/registries.conf"
    main.write_text(
        'unqualified-search-registries = ["a.example", "b.example"]\n[aliases]\nx = "a.example/x"'
    )
    own = tmp_path / "cache/containers/short-name-aliases.conf"
    own.write_text('[aliases]\nx = "b.example/x"\ny = "b.example/y"')
    environ = {
        name: str(tmp_path / path)
        for name, path in (("XDG_CONFIG_HOME", "config"), ("XDG_CACHE_HOME", "cache"))
    }
    conf = load(environ)
    assert conf.names.search == ("a.example", "b.example")
    if os.getuid() != 0:  # root's file is /var/cache/containers/short-name-aliases.conf
        assert (conf.expand("x"), conf.expand("y")) == ("b.example/x", "b.example/y")
    assert load(environ, main).expand("x") == "a.example/x"


NAMES = st.sampled_from(["a", "b", "team/app", "a:1", "r.example/a", "localhost/a"])
ALIASES = st.dictionaries(
    st.sampled_from(["a", "b", "team/app"]), st.sampled_from(["", "x.example/y", "wrong"])
)
SEARCH = st.lists(st.sampled_from(["q.example", "docker.io"]), max_size=2, unique=True)


def conf_of(aliases: dict[str, str], search: list[str]) -> RegistriesConf:
    rows = "".join(f'"{name}" = "{value}"\n' for name, value in aliases.items())
    return parse(f"unqualified-search-registries = {search!r}\n[aliases]\n{rows}", "conf")


@given(ALIASES, SEARCH, ALIASES, SEARCH, NAMES)
def test_the_last_file_that_has_an_alias_or_a_list_decides(
    first: dict[str, str], some: list[str], second: dict[str, str], others: list[str], name: str
) -> None:
    def meaning(conf: RegistriesConf) -> str:
        try:
            return conf.expand(name)
        except UsageError as error:
            return str(error)

    both = merge(conf_of(first, some), conf_of(second, others))
    assert meaning(both) == meaning(conf_of({**first, **second}, others or some))


@pytest.mark.servers
def test_podman_asks_the_same_registry(tmp_path: Path) -> None:
    with fault_server(
        lambda request: http(200 if request.target == "/v2/" else 404), plain=True
    ) as server:
        conf = tmp_path / "registries.conf"
        insecure = f'[[registry]]\nlocation = "{server.host}"\ninsecure = true\n'
        conf.write_text(f'unqualified-search-registries = ["{server.host}"]\n{insecure}')
        named = {"CONTAINERS_REGISTRIES_CONF": str(conf)}
        with podman() as plain:
            program = replace(plain, environment={**plain.environment, **named})
            program("pull", "team/app:v1", check=False)
        assert "/v2/team/app/manifests/v1" in [request.target for request in server.requests]
        assert load({}, conf).expand("team/app:v1") == f"{server.host}/team/app:v1"


def test_files_are_read_only_for_names_that_may_be_short(tmp_path: Path) -> None:
    """A file that cannot be read ends no command that it has nothing to do with."""
    conf = tmp_path / "registries.conf"
    conf.write_text("[[registry")
    for text in ("oci:./layout", "r.example/a:v1", "localhost/a", "docker-archive:x.tar"):
        assert expand(text, {}, conf) == text
    for text in ("alpine", "team/app", "rhel6.5"):
        with pytest.raises(UsageError):
            expand(text, {}, conf)


def test_a_layout_is_opened_whatever_registries_conf_has(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "layout", [a_tar(x=b"x")])
    conf = tmp_path / "registries.conf"
    conf.write_text("[[registry")
    with open_source(f"oci:{layout}", registries_conf=conf, cache_dir=tmp_path / "cache") as tree:
        assert tree.read("_tags/v1/rootfs/x") == b"x"


def test_a_short_name_means_the_same_in_python(tmp_path: Path) -> None:
    with fault_server(lambda request: http(404), plain=True) as server:
        conf = tmp_path / "registries.conf"
        conf.write_text(f'unqualified-search-registries = ["{server.host}"]\n')
        with (
            pytest.raises(OcifsError),
            open_source("team/app:v1", registries_conf=conf, cache_dir=tmp_path) as tree,
        ):
            tree.list("")
        assert any("/v2/team/app/manifests/v1" in request.target for request in server.requests)
