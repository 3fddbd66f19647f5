"""containers-registries.conf(5): the rows of the man page, and laws."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocifs.errors import AccessDenied, UsageError
from ocifs.registry.config.registries_conf import (
    RegistriesConf,
    RegistryRule,
    files,
    load,
    matched_length,
    merge,
    parse,
    routes_for,
)

MAN_PAGE = """
unqualified-search-registries = ["example.com"]

[[registry]]
prefix = "example.com/foo"
insecure = false
blocked = false
location = "internal-registry-for-example.com/bar"

[[registry.mirror]]
location = "example-mirror-0.local/mirror-for-foo"

[[registry.mirror]]
location = "example-mirror-1.local/mirrors/foo"
insecure = true

[[registry]]
location = "registry.com"

[[registry.mirror]]
location = "mirror.registry.com"
"""


def asked(conf: RegistriesConf, host: str, repository: str, version: str = "") -> list[str]:
    return [
        f"{each.endpoint}/{each.repository}" for each in routes_for(conf, host, repository, version)
    ]


def test_the_example_of_the_man_page() -> None:
    conf = parse(MAN_PAGE, "conf")
    assert conf.names.search == ("example.com",)
    assert asked(conf, "example.com", "foo/image", ":latest") == [
        "example-mirror-0.local/mirror-for-foo/image",
        "https://example-mirror-1.local/mirrors/foo/image",
        "http://example-mirror-1.local/mirrors/foo/image",
        "internal-registry-for-example.com/bar/image",
    ]
    assert asked(conf, "registry.com", "image") == [
        "mirror.registry.com/image",
        "registry.com/image",
    ]
    assert asked(conf, "example.com", "other") == ["example.com/other"]
    assert asked(conf, "example.com", "fool") == ["example.com/fool"]


def test_an_insecure_place_is_tried_with_tls_first_and_without_checking() -> None:
    conf = parse('[[registry]]\nlocation = "a.example"\ninsecure = true', "conf")
    assert [
        (each.endpoint.scheme, each.endpoint.unverified, each.own)
        for each in routes_for(conf, "a.example", "x")
    ] == [
        ("https", True, True),
        ("http", False, True),
    ]


@pytest.mark.parametrize(
    ("prefix", "name", "length"),
    [
        ("example.com", "example.com", 11),
        ("example.com", "example.com/a", 11),
        ("example.com", "example.com:5000/a", None),
        ("example.com:5000", "example.com:5000/a", 16),
        ("example.com", "example.community/a", None),
        ("example.com/a", "example.com/a/b", 13),
        ("example.com/a", "example.com/a:v1", 13),
        ("example.com/a", "example.com/a@sha256:00", 13),
        ("example.com/a", "example.com/ab", None),
        ("example.com/a:v1", "example.com/a:v1", 16),
        ("example.com/a:v1", "example.com/a:v10", None),
        ("*.example.com", "bar.example.com/a", 15),
        ("*.example.com", "foo.bar.example.com/a", 19),
        ("*.example.com", "example.com/a", None),
        ("*.example.com", "badexample.com/a", None),
        ("*.example.com", "evil.org/bar.example.com/a", None),
    ],
)
def test_prefixes(prefix: str, name: str, length: int | None) -> None:
    assert matched_length(prefix, name) == length


def test_the_longest_prefix_decides_wherever_it_stands() -> None:
    tables = [
        'prefix = "a.example/x"\nlocation = "one.example"',
        'location = "a.example"',
        'prefix = "*.example"',
    ]
    for order in (tables, tables[::-1]):
        conf = parse("".join(f"[[registry]]\n{table}\n" for table in order), "conf")
        assert asked(conf, "a.example", "x/y") == ["one.example/y"]
        assert asked(conf, "a.example", "z") == ["a.example/z"]
        assert asked(conf, "b.example", "z") == ["b.example/z"]


def test_a_wildcard_may_rewrite_the_host() -> None:
    conf = parse('[[registry]]\nprefix = "*.example"\nlocation = "cache.local/all"', "conf")
    assert asked(conf, "a.example", "x") == ["cache.local/all/x"]


def test_what_a_mirror_is_for() -> None:
    def kinds(more: str, of_the_mirror: str) -> tuple[bool, bool]:
        text = (
            f'[[registry]]\nlocation = "a.example"\n{more}\n'
            f'[[registry.mirror]]\nlocation = "m.example"\n{of_the_mirror}'
        )
        mirror, own = routes_for(parse(text, "conf"), "a.example", "x")
        assert (own.by_tag, own.by_digest, own.own, mirror.own) == (True, True, True, False)
        return mirror.by_tag, mirror.by_digest

    assert kinds("", "") == (True, True)
    assert kinds("", 'pull-from-mirror = "all"') == (True, True)
    assert kinds("", 'pull-from-mirror = "digest-only"') == (False, True)
    assert kinds("", 'pull-from-mirror = "tag-only"') == (True, False)
    assert kinds("mirror-by-digest-only = true", "") == (False, True)


def test_what_is_blocked_says_by_which_file() -> None:
    conf = parse('[[registry]]\nlocation = "a.example/bad"\nblocked = true', "/etc/some.conf")
    with pytest.raises(AccessDenied, match=r"/etc/some\.conf"):
        routes_for(conf, "a.example", "bad/x")
    assert asked(conf, "a.example", "good") == ["a.example/good"]


def test_docker_hub_has_one_name() -> None:
    conf = parse(
        '[[registry]]\nprefix = "docker.io/library"\nlocation = "index.docker.io/library"', "conf"
    )
    assert asked(conf, "docker.io", "library/alpine") == ["docker.io/library/alpine"]


def test_aliases_keep_tag_and_digest() -> None:
    conf = parse(
        '[aliases]\nalpine = "quay.io/base/alpine"\n'
        '"a/b" = "r.example/c"\n"rhel6.5" = "r.example/rhel"',
        "conf",
    )
    digest = "sha256:" + "0" * 64
    for written, meant in (
        ("alpine", "quay.io/base/alpine"),
        ("alpine:3.19", "quay.io/base/alpine:3.19"),
        (f"alpine@{digest}", f"quay.io/base/alpine@{digest}"),
        (f"alpine:3@{digest}", f"quay.io/base/alpine:3@{digest}"),
        ("a/b:1", "r.example/c:1"),
        ("rhel6.5:1", "r.example/rhel:1"),
        ("library/alpine", "library/alpine"),
        ("docker.io/alpine", "docker.io/alpine"),
        ("busybox", "busybox"),
    ):
        assert conf.expand(written) == meant


def test_version_1_says_what_it_can() -> None:
    conf = parse(
        "[registries.insecure]\nregistries = ['a.example']\n"
        "[registries.block]\nregistries = ['b.example']",
        "f",
    )
    assert asked(conf, "a.example", "x") == ["https://a.example/x", "http://a.example/x"]
    with pytest.raises(AccessDenied):
        routes_for(conf, "b.example", "x")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[registry]", "line 1"),
        ("registry = 3", "conf: registry is not an array of tables"),
        ("[[registry]]\nlocation = 3", r"conf: registry\[1\].location is not a string"),
        ("[[registry]]\ninsecure = true", r"conf: registry\[1\].location is missing"),
        ('[[registry]]\nlocation = "http://a.example"', r"registry\[1\].location"),
        ('[[registry]]\nprefix = "*.a.example/x"', r"registry\[1\].prefix"),
        ('[[registry]]\nprefix = "a.*.example"\nlocation = "b.example"', r"registry\[1\].prefix"),
        ("[aliases]\nx = 3", "aliases.x is not a string"),
        ("unqualified-search-registries = 3", "unqualified-search-registries is not a list"),
        ('short-name-mode = "ask"', r"short-name-mode \(ask\) is not one of enforcing"),
        ('[[registry]]\nlocation = "http://me:geheim@a.example"', r"\(http://…@a.example\)"),
        ("[registries.block]\nregistries = 7", "registries.block.registries"),
    ],
)
def test_what_is_wrong_is_told_by_file_and_key(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse(text, "conf")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('blocked = "yes"', r"registry\[1\].blocked is neither true nor false"),
        ("[[registry.mirror]]\ninsecure = true", r"registry\[1\]\.mirror\[1\]\.location"),
        (
            '[[registry.mirror]]\nlocation = "b.example"\npull-from-mirror = "no"',
            r"registry\[1\]\.mirror\[1\]\.pull-from-mirror",
        ),
        (
            "mirror-by-digest-only = true\n"
            '[[registry.mirror]]\nlocation = "b.example"\npull-from-mirror = "all"',
            "pull-from-mirror",
        ),
        ('proxy = "socks4://p"', r"registry\[1\].proxy \(socks4://p\) is not a proxy address"),
        ('location = "my_mirror:5000"', r"registry\[1\].location \(my_mirror:5000\) is not a host"),
        (
            'location = "b.example/x:v2"',
            r"registry\[1\].location \(b.example/x:v2\) has another tag",
        ),
    ],
)
def test_an_entry_that_is_wrong_fails_the_names_that_it_is_about_and_no_others(
    text: str, said: str
) -> None:
    """podman reads such a file and fails when it uses the entry."""
    first = text if text.startswith("location") else f'location = "a.example"\n{text}'
    conf = parse(f'[[registry]]\nprefix = "a.example"\n{first}', "conf")
    assert len(conf.problems()) == 1
    assert asked(conf, "other.example", "x") == ["other.example/x"]
    with pytest.raises(UsageError, match=f"conf: {said}" if said.startswith("registry") else said):
        asked(conf, "a.example", "x")


def test_a_host_that_no_reference_can_have_is_a_problem_and_not_an_error() -> None:
    conf = parse('[[registry]]\nlocation = "my_mirror:5000"', "conf")
    assert "my_mirror:5000" in conf.problems()[0]
    assert asked(conf, "a.example", "x") == ["a.example/x"]


def test_of_two_tables_with_one_prefix_the_first_holds() -> None:
    tables = [f'[[registry]]\nprefix = "a.example"\nlocation = "{each}.example"\n' for each in "bc"]
    assert asked(parse("".join(tables), "conf"), "a.example", "x") == ["b.example/x"]


def test_a_table_without_a_location_is_about_its_prefix() -> None:
    conf = parse('[[registry]]\nprefix = "a.example"\ninsecure = true', "conf")
    assert asked(conf, "a.example", "x") == ["https://a.example/x", "http://a.example/x"]


def test_a_location_may_have_the_tag_or_digest_of_its_prefix() -> None:
    digest = "@sha256:" + "0" * 64
    for version in (":v2", digest):
        text = f'[[registry]]\nprefix = "a.example/x{version}"\nlocation = "b.example/y{version}"'
        conf = parse(text, "conf")
        assert asked(conf, "a.example", "x", version) == ["b.example/y"]
        assert asked(conf, "a.example", "x", ":v1") == ["a.example/x"]


def test_a_drop_in_file_has_version_2_only(tmp_path: Path) -> None:
    own = tmp_path / "containers" / "registries.conf"
    drop_in = own.with_name("registries.conf.d") / "x.conf"
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[registries.insecure]\nregistries = ['a.example']")
    own.write_text("")
    with pytest.raises(UsageError, match=r"x\.conf: version 1"):
        load({"HOME": "/nonexistent", "XDG_CONFIG_HOME": str(tmp_path)})


def test_later_files_replace_rules_and_aliases() -> None:
    first = parse(
        'unqualified-search-registries = ["a.example"]\n[[registry]]\nlocation = "a.example"\n', "1"
    )
    first = merge(
        RegistriesConf(),
        merge(first, parse('[aliases]\nx = "a.example/x"\ny = "a.example/y"', "2")),
    )
    both = merge(
        first,
        parse('[[registry]]\nprefix = "a.example"\nlocation = "b.example"\n[aliases]\nx = ""', "3"),
    )
    assert asked(both, "a.example", "x") == ["b.example/x"]
    assert [both.expand(name) for name in ("x", "y")] == ["a.example/x", "a.example/y"]
    assert both.names.search == ("a.example",)


def test_where_files_are(tmp_path: Path) -> None:
    own = tmp_path / "containers" / "registries.conf"
    home = {"HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": str(tmp_path)}
    assert files(home) == (
        Path("/etc/containers/registries.conf"),
        (Path("/etc/containers/registries.conf.d"), own.with_name("registries.conf.d")),
    )
    own.parent.mkdir()
    own.write_text('[[registry]]\nlocation = "a.example"')
    assert files(home) == (own, (own.with_name("registries.conf.d"),))
    own.with_name("registries.conf.d").mkdir()
    for name, location in (
        ("10-a.conf", "b.example"),
        ("20-b.conf", "c.example"),
        ("30.txt", "d.example"),
    ):
        text = f'[[registry]]\nprefix = "a.example"\nlocation = "{location}"'
        (own.with_name("registries.conf.d") / name).write_text(text)
    assert asked(load(home), "a.example", "x") == ["c.example/x"]
    assert asked(load(home, Path("/dev/null")), "a.example", "x") == ["a.example/x"]
    named = tmp_path / "named.conf"
    with pytest.raises(UsageError, match=r"no such file: .*named\.conf"):
        load({**home, "CONTAINERS_REGISTRIES_CONF": str(named)})
    named.write_text("")
    assert files({**home, "CONTAINERS_REGISTRIES_CONF": str(named)})[0] == named


HOSTS = st.sampled_from(["a.example", "b.example", "a.example:5000", "x.a.example"])
PATHS = st.lists(st.sampled_from(["a", "b", "ab", "c-d"]), min_size=1, max_size=4).map("/".join)
PREFIXES = st.one_of(
    HOSTS, st.builds("{}/{}".format, HOSTS, PATHS), st.just("*.example"), st.just("*.a.example")
)


@given(st.lists(PREFIXES, unique=True), HOSTS, PATHS)
def test_the_rule_for_a_name_is_the_longest_that_fits(
    prefixes: list[str], host: str, path: str
) -> None:
    conf = RegistriesConf({prefix: RegistryRule(prefix, "l.example") for prefix in prefixes})
    fitting = [
        prefix for prefix in prefixes if matched_length(prefix, f"{host}/{path}") is not None
    ]
    rule = conf.rule_for(f"{host}/{path}")
    assert (rule.prefix if rule else None) == max(fitting, key=len, default=None)


@given(PREFIXES.filter(lambda prefix: "*" not in prefix), PATHS)
def test_what_follows_the_prefix_follows_the_location(prefix: str, rest: str) -> None:
    conf = RegistriesConf({prefix: RegistryRule(prefix, "l.example/n")})
    host, _, path = f"{prefix}/{rest}".partition("/")
    (endpoint,) = routes_for(conf, host, path)
    assert (endpoint.endpoint.host, endpoint.repository) == ("l.example", f"n/{rest}")


@given(
    st.text(max_size=200)
    | st.sampled_from([MAN_PAGE]).flatmap(lambda t: st.integers(0, len(t)).map(lambda n: t[:n]))
)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse(text, "conf")
    except UsageError as error:
        assert str(error).startswith("conf")


def test_helpers_for_credentials_are_those_of_the_last_file_that_has_some() -> None:
    first, second = (
        parse('credential-helpers = ["containers-auth.json", "secretservice"]', "1"),
        parse("", "2"),
    )
    assert merge(first, second).credential_helpers == ("containers-auth.json", "secretservice")
    assert merge(first, parse('credential-helpers = ["pass"]', "3")).credential_helpers == ("pass",)
    with pytest.raises(UsageError, match="credential-helpers"):
        parse("credential-helpers = 3", "4")
