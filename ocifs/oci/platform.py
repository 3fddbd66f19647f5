"""Platforms: which child of an index is for which machine (image-spec, image-index.md "Platform
Variants").

The specification leaves the choice among several fitting children open. The order here is that of
containerd's package `platforms`: a machine also runs what is built for lower variants of its
architecture, then 32-bit builds of its family; of equal ones the entry with most of the wanted
features is taken, then the first.

Rules that hold here:

- pure; nothing is asked of the machine
- spellings of one platform compare equal: `x86_64` is amd64, amd64/v1 is amd64, arm64/v8 is arm64,
  arm is arm/v7
- an entry with a feature that is not wanted is passed over, since each of `os.features` is
  mandatory
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote

from ocifs.errors import InvalidReference

# What uname(2) and publishers call architectures, as GOARCH and a variant. Of mips and powerpc the
# byte order is in the name only of some.
_ARCHITECTURES = {
    **dict.fromkeys(("x86_64", "x86-64"), ("amd64", "")),
    **dict.fromkeys(("i386", "i486", "i586", "i686", "x86"), ("386", "")),
    **dict.fromkeys(("aarch64", "armv8", "armv8b"), ("arm64", "")),
    "armv8l": ("arm", "v8"),
    **dict.fromkeys(("armhf", "armv7l", "armv7", "armv7a", "armv7hl", "armv7hnl"), ("arm", "v7")),
    **dict.fromkeys(("armel", "armv6l", "armv6", "armv6hl"), ("arm", "v6")),
    **dict.fromkeys(("armv5l", "armv5tel", "armv5tejl", "armv5te", "armv5"), ("arm", "v5")),
    **dict.fromkeys(("loongarch64", "loong64"), ("loong64", "")),
    **dict.fromkeys(("ppc64el", "powerpc64le"), ("ppc64le", "")),
    **dict.fromkeys(("powerpc64",), ("ppc64", "")),
    **dict.fromkeys(("mips64el",), ("mips64le", "")),
    **dict.fromkeys(("mipsel",), ("mipsle", "")),
    **dict.fromkeys(("riscv", "rv64"), ("riscv64", "")),
}
_LITTLE = {"mips": "mipsle", "mips64": "mips64le"}  # uname(2) calls both byte orders by one name
_OS = re.compile(r"([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.%-]*)((?:\+[A-Za-z0-9_.%-]+)*)\))?")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_BARE_VARIANT = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_VARIANT = re.compile(r"v([0-9]{1,2})(?:\.([0-9]{1,2}))?")
_IGNORED_FEATURES = frozenset({"win32k"})  # of Windows, whose tools never looked at it
_LOWEST_ARM = 5
_BUILD = 3  # parts of a version of Windows that must agree: major, minor and build


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system, an architecture and what tells one build of them from another; absent
    parts are empty.
    """

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read `os[(version[+feature…])]/architecture[/variant]`, as containerd writes it; raise
        InvalidReference for anything else.
        """
        system, *parts = text.split("/")
        match = _OS.fullmatch(system)
        if (
            match is None
            or len(parts) not in (1, 2)
            or not all(_PART.fullmatch(part) for part in parts)
        ):
            raise InvalidReference(
                f"not a platform: {text!r}",
                hint="write os/architecture[/variant], as in linux/arm64, or os(version)/architecture",
            )
        features = tuple(unquote(feature) for feature in (match[3] or "").split("+") if feature)
        return cls(match[1], parts[0], "".join(parts[1:]), unquote(match[2] or ""), features)

    @classmethod
    def of_machine(cls, machine: str, byteorder: str) -> Platform:
        """The platform of a Linux machine, by uname(2)'s word for it and its byte order (`little`
        or `big`).
        """
        name = machine.lower() or "amd64"
        return cls("linux", _LITTLE.get(name, name) if byteorder == "little" else name).normal

    @property
    def text(self) -> str:
        """`linux/arm/v7`, `windows(10.0.17763+win32k)/amd64`: what `parse` reads."""
        options = "+".join(quote(part, safe="") for part in (self.os_version, *self.os_features))
        system = f"{self.os}({options})" if options else self.os
        return "/".join(part for part in (system, self.architecture, self.variant) if part)

    @property
    def normal(self) -> Platform:
        """The same platform in the one spelling that is compared."""
        architecture, variant = self.architecture.lower(), self.variant.lower()
        if architecture in _ARCHITECTURES:
            architecture, implied = _ARCHITECTURES[architecture]
            variant = variant or implied
        if _BARE_VARIANT.fullmatch(variant):
            variant = f"v{variant}"
        system = self.os.lower()
        return replace(
            self,
            os="darwin" if system == "macos" else system,
            architecture=architecture,
            variant=_usual_variant(architecture, variant),
        )

    @property
    def known(self) -> bool:
        """Whether it names a platform at all; BuildKit marks what is for none with unknown/unknown."""
        return bool(self.os and self.architecture) and "unknown" not in (self.os, self.architecture)

    def satisfies(self, wanted: Platform) -> bool:
        """Whether something built for exactly this platform is what `wanted` asks for, lower
        variants left aside.
        """
        mine, theirs = self.normal, wanted.normal
        same = (mine.os, mine.architecture, mine.variant) == (
            theirs.os,
            theirs.architecture,
            theirs.variant,
        )
        return same and _fits(mine, theirs)

    def __str__(self) -> str:
        """`linux-arm-v7`, `windows-amd64-10.0.20348.643`, `linux-amd64+erofs`: the form in which it
        is a name in a directory.
        """
        name = "-".join(
            part for part in (self.os, self.architecture, self.variant, self.os_version) if part
        )
        return "+".join((name, *self.os_features))


def _usual_variant(architecture: str, variant: str) -> str:
    """A variant as it is compared: the usual one of an architecture is empty, except of arm."""
    if architecture == "386" or (architecture == "amd64" and variant == "v1"):
        return ""
    if architecture == "arm64":
        whole = variant.removesuffix(".0")
        return "" if whole == "v8" else whole
    return variant or ("v7" if architecture == "arm" else "")


def _fits(mine: Platform, wanted: Platform) -> bool:
    """Whether version and features of a platform, in its normal spelling, are those that are
    wanted.
    """
    return _version_fits(mine, wanted) and _features(mine) <= frozenset(wanted.os_features)


def _version_fits(mine: Platform, wanted: Platform) -> bool:
    """Whether the version is the wanted one; of Windows its build decides, whatever the revision."""
    if not wanted.os_version or wanted.os_version == mine.os_version:
        return True
    if wanted.os != "windows":
        return False
    ours, theirs = mine.os_version.split("."), wanted.os_version.split(".")
    return len(theirs) >= _BUILD and ours[:_BUILD] == theirs[:_BUILD]


def _features(platform: Platform) -> frozenset[str]:
    """The features that whoever runs a platform has to have."""
    found = frozenset(platform.os_features)
    return found - _IGNORED_FEATURES if platform.os == "windows" else found


def runnable(wanted: Platform) -> list[Platform]:
    """The platforms whose builds a platform runs, best first, in containerd's order."""
    own = wanted.normal
    if own.architecture == "amd64":
        major = _numbers(own.variant)[0]
        lower = [f"v{number}" for number in range(major - 1, 0, -1)]
        return [
            own,
            *(replace(own, variant=each).normal for each in lower),
            replace(own, architecture="386", variant=""),
        ]
    if own.architecture == "arm":
        major = _numbers(own.variant)[0]
        return [
            own,
            *(
                replace(own, variant=f"v{number}")
                for number in range(major - 1, _LOWEST_ARM - 1, -1)
            ),
        ]
    if own.architecture == "arm64":
        return _arm64(own)
    return [own]


def _arm64(own: Platform) -> list[Platform]:
    """arm64/v9.N runs arm64/v9 to v9.N and what v8.(N+5) runs; all run 32-bit code, as arm/v8 does."""
    major, minor = _numbers(own.variant or "v8")
    if major not in (8, 9):
        return [own]
    steps = [(9, minor), (8, min(minor + 5, 9))] if major == 9 else [(8, minor)]
    variants = [f"v{part}.{number}" for part, most in steps for number in range(most, -1, -1)]
    return [
        *(replace(own, variant=variant).normal for variant in variants),
        *runnable(replace(own, architecture="arm", variant="v8")),
    ]


def _numbers(variant: str) -> tuple[int, int]:
    """Major and minor number of a variant; zeros if it is not of that form."""
    match = _VARIANT.fullmatch(variant)
    return (int(match[1]), int(match[2] or 0)) if match is not None else (0, 0)


def first_match(platforms: Iterable[Platform | None], wanted: Platform) -> int | None:
    """The position of the platform that serves `wanted` best, or None."""
    listed: dict[tuple[str, str, str], list[tuple[int, Platform]]] = {}
    for number, platform in enumerate(platforms):
        if platform is not None:
            own = platform.normal
            listed.setdefault((own.os, own.architecture, own.variant), []).append((number, own))
    for candidate in runnable(wanted):
        same = listed.get((candidate.os, candidate.architecture, candidate.variant), ())
        fitting = [(number, own) for number, own in same if _fits(own, candidate)]
        if fitting:
            return max(fitting, key=lambda each: len(each[1].os_features))[0]
    return None
