"""Platforms, and the choice of an index's child for a machine (image-spec, image-index.md).

The specification does not define the choice among several compatible children. The order here is
that of containerd's package `platforms`:

1. builds for the machine's own variant, then for lower variants of its architecture
2. 32-bit builds of its family
3. among equals, the entry with most of the requested features, then the first

Rules that hold here:

- Pure: the machine's platform is a parameter.
- Spellings of one platform compare equal: `x86_64` is amd64, amd64/v1 is amd64, arm64/v8 is arm64,
  arm is arm/v7.
- An entry with a feature that was not requested is skipped, since all `os.features` are required.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote

from ocifs.errors import InvalidReference

# The names that uname(2) and publishers use for architectures, as GOARCH and variant.
_ARCHITECTURES = {
    **dict.fromkeys(("x86_64", "x86-64"), ("amd64", "")),
    **dict.fromkeys(("i386", "i486", "i586", "i686", "x86"), ("386", "")),
    **dict.fromkeys(("aarch64", "armv8", "armv8b"), ("arm64", "")),
    # uname(2) returns this to a 32-bit process on a 64-bit kernel.
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
# uname(2) has the same name for both byte orders of these.
_LITTLE = {"mips": "mipsle", "mips64": "mips64le"}
_OS = re.compile(r"([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.%-]*)((?:\+[A-Za-z0-9_.%-]+)*)\))?")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_BARE_VARIANT = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_VARIANT = re.compile(r"v([0-9]{1,2})(?:\.([0-9]{1,2}))?")
# Tools for Windows images have never evaluated win32k.
_IGNORED_FEATURES = frozenset({"win32k"})
# GOARM, and with it the variants of images, begins at 5.
_LOWEST_ARM = 5
# The parts of a Windows version that must be equal: major, minor and build.
_BUILD = 3


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system, an architecture, and their variants. Missing parts are empty."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Parse containerd's form, `os[(version[+feature…])]/architecture[/variant]`.

        Raises InvalidReference.
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
                hint="write os/architecture[/variant] (linux/arm64) or os(version)/architecture",
            )
        features = tuple(unquote(feature) for feature in (match[3] or "").split("+") if feature)
        return cls(match[1], parts[0], "".join(parts[1:]), unquote(match[2] or ""), features)

    @classmethod
    def of_machine(cls, machine: str, byteorder: str) -> Platform:
        """The platform of a Linux machine, from uname(2)'s name and the byte order.

        `byteorder`: `little` or `big`.
        """
        name = machine.lower() or "amd64"
        return cls("linux", _LITTLE.get(name, name) if byteorder == "little" else name).normal

    @property
    def text(self) -> str:
        """`linux/arm/v7`, `windows(10.0.17763+win32k)/amd64`: the form that `parse` reads."""
        # Encoded, since a version with "+", ")" or "/" could not be parsed again.
        options = "+".join(quote(part, safe="") for part in (self.os_version, *self.os_features))
        system = f"{self.os}({options})" if options else self.os
        return "/".join(part for part in (system, self.architecture, self.variant) if part)

    @property
    def normal(self) -> Platform:
        """The same platform in its normal spelling, for comparisons."""
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
        """Whether this is a platform. BuildKit marks other children with unknown/unknown."""
        return bool(self.os and self.architecture) and "unknown" not in (self.os, self.architecture)

    def satisfies(self, requested: Platform) -> bool:
        """Whether a build for this platform is one for `requested`, ignoring lower variants."""
        own, other = self.normal, requested.normal
        same = (own.os, own.architecture, own.variant) == (
            other.os,
            other.architecture,
            other.variant,
        )
        return same and _fits(own, other)

    def __str__(self) -> str:
        """`linux-arm-v7`, `windows-amd64-10.0.20348.643`, `linux-amd64+erofs`: as a file name."""
        name = "-".join(
            part for part in (self.os, self.architecture, self.variant, self.os_version) if part
        )
        return "+".join((name, *self.os_features))


def _usual_variant(architecture: str, variant: str) -> str:
    """The variant in its normal spelling: empty for the default of an architecture except arm."""
    if architecture == "386" or (architecture == "amd64" and variant == "v1"):
        return ""
    if architecture == "arm64":
        major = variant.removesuffix(".0")
        return "" if major == "v8" else major
    return variant or ("v7" if architecture == "arm" else "")


def _fits(candidate: Platform, requested: Platform) -> bool:
    """Whether version and features match. Both platforms are in their normal spelling."""
    if not _version_fits(candidate, requested):
        return False
    return _required_features(candidate) <= frozenset(requested.os_features)


def _version_fits(candidate: Platform, requested: Platform) -> bool:
    """Whether the OS version matches. On Windows the build must be equal, not the revision."""
    if not requested.os_version or requested.os_version == candidate.os_version:
        return True
    if requested.os != "windows":
        return False
    own, other = candidate.os_version.split("."), requested.os_version.split(".")
    return len(other) >= _BUILD and own[:_BUILD] == other[:_BUILD]


def _required_features(platform: Platform) -> frozenset[str]:
    """The features that a machine must have to run a build for this platform."""
    features = frozenset(platform.os_features)
    return features - _IGNORED_FEATURES if platform.os == "windows" else features


def runnable(machine: Platform) -> list[Platform]:
    """The platforms of builds that run on a machine, best first, in containerd's order."""
    own = machine.normal
    if own.architecture == "amd64":
        major = _numbers(own.variant)[0]
        lower = [f"v{number}" for number in range(major - 1, 0, -1)]
        return [
            own,
            # `normal` turns amd64/v1 into amd64, the spelling of most images.
            *(replace(own, variant=variant).normal for variant in lower),
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
    """Variants for arm64: v9.N runs v9 to v9.N, and all that v8.(N+5) runs.

    All of them also run 32-bit code, like arm/v8.
    """
    major, minor = _numbers(own.variant or "v8")
    if major not in (8, 9):
        return [own]
    # Armv8.9 is the last version of Armv8.
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


def first_match(platforms: Iterable[Platform | None], machine: Platform) -> int | None:
    """The position of the best platform for a machine, or None."""
    # Grouped once: a machine may have 20 targets, and an index may have thousands of children.
    by_variant: dict[tuple[str, str, str], list[tuple[int, Platform]]] = {}
    for number, platform in enumerate(platforms):
        if platform is not None:
            own = platform.normal
            by_variant.setdefault((own.os, own.architecture, own.variant), []).append((number, own))
    for target in runnable(machine):
        same = by_variant.get((target.os, target.architecture, target.variant), ())
        fitting = [(number, own) for number, own in same if _fits(own, target)]
        if fitting:
            # `max` returns the first of equal ones.
            return max(fitting, key=lambda match: len(match[1].os_features))[0]
    return None
