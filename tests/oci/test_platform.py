"""Machine × variants × entries, in the order of containerd's package `platforms`."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocifs.errors import InvalidReference
from ocifs.oci.platform import Platform, first_match, runnable

# uname(2)'s machine, the byte order, and the platform.
MACHINES = [
    ("x86_64", "little", "linux/amd64"),
    ("i386", "little", "linux/386"),
    ("i586", "little", "linux/386"),
    ("i686", "little", "linux/386"),
    ("aarch64", "little", "linux/arm64"),
    ("armv8l", "little", "linux/arm/v8"),
    ("armv7l", "little", "linux/arm/v7"),
    ("armv6l", "little", "linux/arm/v6"),
    ("armv5tel", "little", "linux/arm/v5"),
    ("armv5tejl", "little", "linux/arm/v5"),
    ("loongarch64", "little", "linux/loong64"),
    ("mips", "big", "linux/mips"),
    ("mips", "little", "linux/mipsle"),
    ("mips64", "big", "linux/mips64"),
    ("mips64", "little", "linux/mips64le"),
    ("ppc64le", "little", "linux/ppc64le"),
    ("ppc64", "big", "linux/ppc64"),
    ("riscv64", "little", "linux/riscv64"),
    ("s390x", "big", "linux/s390x"),
    ("", "little", "linux/amd64"),
]


@pytest.mark.parametrize(("machine", "order", "platform"), MACHINES)
def test_every_machine_has_goarchs_name(machine: str, order: str, platform: str) -> None:
    assert Platform.of_machine(machine, order).text == platform


# What each platform runs, best first: containerd's platformVector, in its normal spelling.
VECTORS = {
    "linux/amd64": ["amd64", "386"],
    "linux/amd64/v1": ["amd64", "386"],
    "linux/amd64/v2": ["amd64/v2", "amd64", "386"],
    "linux/amd64/v3": ["amd64/v3", "amd64/v2", "amd64", "386"],
    "linux/amd64/v4": ["amd64/v4", "amd64/v3", "amd64/v2", "amd64", "386"],
    "linux/386": ["386"],
    "linux/arm": ["arm/v7", "arm/v6", "arm/v5"],
    "linux/arm/v8": ["arm/v8", "arm/v7", "arm/v6", "arm/v5"],
    "linux/arm/v7": ["arm/v7", "arm/v6", "arm/v5"],
    "linux/arm/v6": ["arm/v6", "arm/v5"],
    "linux/arm/v5": ["arm/v5"],
    "linux/arm64": ["arm64", "arm/v8", "arm/v7", "arm/v6", "arm/v5"],
    "linux/arm64/v8": ["arm64", "arm/v8", "arm/v7", "arm/v6", "arm/v5"],
    "linux/arm64/v8.2": [
        "arm64/v8.2",
        "arm64/v8.1",
        "arm64",
        "arm/v8",
        "arm/v7",
        "arm/v6",
        "arm/v5",
    ],
    "linux/arm64/v9": [
        *(
            "arm64/v9",
            "arm64/v8.5",
            "arm64/v8.4",
            "arm64/v8.3",
            "arm64/v8.2",
            "arm64/v8.1",
            "arm64",
        ),
        *("arm/v8", "arm/v7", "arm/v6", "arm/v5"),
    ],
    "linux/arm64/v9.6": [
        *(f"arm64/v9.{minor}" for minor in range(6, 0, -1)),
        *("arm64/v9", *(f"arm64/v8.{minor}" for minor in range(9, 0, -1)), "arm64"),
        *("arm/v8", "arm/v7", "arm/v6", "arm/v5"),
    ],
    "linux/riscv64": ["riscv64"],
    "linux/s390x": ["s390x"],
}


@pytest.mark.parametrize("wanted", VECTORS)
def test_a_platform_runs_lower_variants_in_containerds_order(wanted: str) -> None:
    assert [
        item.text.removeprefix("linux/") for item in runnable(Platform.parse(wanted))
    ] == VECTORS[wanted]


@pytest.mark.parametrize("wanted", VECTORS)
def test_of_any_entries_the_best_that_runs_is_taken(wanted: str) -> None:
    """Every pair of what the table names, in both orders, and each alone."""
    order = VECTORS[wanted]
    every = sorted({item for vector in VECTORS.values() for item in vector})
    for count in (1, 2):
        for entries in itertools.permutations(every, count):
            found = first_match(
                [Platform.parse(f"linux/{item}") for item in entries], Platform.parse(wanted)
            )
            present = [item for item in order if item in entries]
            assert (None if found is None else entries[found]) == (present[0] if present else None)


# Spellings that mean the same.
SAME = [
    ("linux/amd64/v1", "linux/amd64"),
    ("linux/x86_64", "linux/amd64"),
    ("linux/arm64/v8", "linux/arm64"),
    ("linux/arm64/8", "linux/arm64"),
    ("linux/arm64/v8.0", "linux/arm64"),
    ("linux/arm64/9", "linux/arm64/v9"),
    ("linux/arm64/v9.0", "linux/arm64/v9"),
    ("linux/arm/7", "linux/arm/v7"),
    ("linux/arm", "linux/arm/v7"),
    ("linux/armhf", "linux/arm/v7"),
    ("linux/armel", "linux/arm/v6"),
    ("linux/i386", "linux/386"),
    ("macos/arm64", "darwin/arm64"),
    ("Linux/AMD64", "linux/amd64"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_spellings_of_one_platform_are_equal(one: str, other: str) -> None:
    for entry, wanted in ((one, other), (other, one)):
        assert first_match([Platform.parse(entry)], Platform.parse(wanted)) == 0


def entries(*specs: tuple[str, str, tuple[str, ...]]) -> list[Platform | None]:
    return [
        Platform(*text.split("/"), os_version=version, os_features=features)  # type: ignore[misc]
        for text, version, features in specs
    ]


def test_entries_with_features_that_are_not_wanted_are_passed_over() -> None:
    """os.features: each is mandatory for whoever runs the image."""
    both = entries(("linux/amd64", "", ("erofs",)), ("linux/amd64", "", ()))
    assert first_match(both, Platform.parse("linux/amd64")) == 1
    assert first_match(both, Platform.parse("linux(+erofs)/amd64")) == 0
    assert first_match(both[:1], Platform.parse("linux/amd64")) is None
    assert first_match(both[::-1], Platform.parse("linux(+erofs+more)/amd64")) == 1
    assert (
        first_match(entries(("windows/amd64", "", ("win32k",))), Platform.parse("windows/amd64"))
        == 0
    )


def test_os_version_is_selectable() -> None:
    versions = ("10.0.17763.6775", "10.0.20348.2849", "10.0.26100.2605")
    windows = entries(*(("windows/amd64", version, ()) for version in versions))
    assert first_match(windows, Platform.parse("windows/amd64")) == 0
    for number, version in enumerate(versions):
        for text in (version, version.rpartition(".")[0], f"{version.rpartition('.')[0]}.1"):
            assert first_match(windows, Platform.parse(f"windows({text})/amd64")) == number
    assert first_match(windows, Platform.parse("windows(10.0.22000)/amd64")) is None
    other = entries(("freebsd/amd64", "14.1", ()), ("freebsd/amd64", "14.2", ()))
    assert first_match(other, Platform.parse("freebsd(14.2)/amd64")) == 1
    assert first_match(other, Platform.parse("freebsd(14)/amd64")) is None


@pytest.mark.parametrize(
    ("platform", "name", "text"),
    [
        (
            Platform("linux", "amd64", os_features=("erofs",)),
            "linux-amd64+erofs",
            "linux(+erofs)/amd64",
        ),
        (Platform("linux", "arm", "v7"), "linux-arm-v7", "linux/arm/v7"),
        (
            Platform("windows", "amd64", os_version="10.0.1", os_features=("a", "b")),
            "windows-amd64-10.0.1+a+b",
            "windows(10.0.1+a+b)/amd64",
        ),
    ],
)
def test_versions_and_features_are_shown(platform: Platform, name: str, text: str) -> None:
    assert (str(platform), platform.text) == (name, text)
    assert Platform.parse(text) == platform


@pytest.mark.parametrize(
    "text", ["", "linux", "linux/", "/amd64", "linux(/amd64", "linux()x/amd64", "a/b/c/d", "l x/y"]
)
def test_what_is_not_a_platform_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference, match="not a platform"):
        Platform.parse(text)


_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)


@given(st.builds(Platform, _TEXT, _TEXT, _TEXT, _TEXT, st.lists(_TEXT, max_size=3).map(tuple)))
def test_any_platform_runs_itself_and_is_normal_once(platform: Platform) -> None:
    assert platform.normal.normal == platform.normal
    assert first_match([platform], platform) == 0
    assert len(runnable(platform)) < 150
