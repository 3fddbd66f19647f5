"""Platforms: which child of an index is for which machine (image-spec, image-index.md).

Rules that hold here: `x86_64` and `aarch64` mean amd64 and arm64; arm64 without a variant is arm64/v8 and arm without one is arm/v7, so
that two spellings of one platform compare equal; the first match in an index wins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ocifs.errors import InvalidReference

_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "armhf": "arm",
    "i386": "386",
    "i686": "386",
}
_DEFAULT_VARIANTS = {"arm64": "v8", "arm": "v7"}
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system, an architecture and what tells one build of them from another; absent parts are empty."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read `os/architecture[/variant]`, as every tool of the field takes it; raise InvalidReference for anything else."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(_PART.fullmatch(part) for part in parts):
            raise InvalidReference(
                f"not a platform: {text!r}", hint="write os/architecture[/variant], as in linux/arm64"
            )
        return cls(parts[0], parts[1], "".join(parts[2:]))

    @property
    def text(self) -> str:
        """`linux/arm/v7`: what `parse` reads."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @property
    def normal(self) -> Platform:
        """The same platform in the one spelling that is compared."""
        architecture = _ARCHITECTURES.get(self.architecture.lower(), self.architecture.lower())
        variant = self.variant.lower() or _DEFAULT_VARIANTS.get(architecture, "")
        return Platform(self.os.lower(), architecture, variant, self.os_version, self.os_features)

    @property
    def known(self) -> bool:
        """Whether it names a platform at all; BuildKit marks what is for none with unknown/unknown."""
        return bool(self.os and self.architecture) and "unknown" not in (self.os, self.architecture)

    def satisfies(self, wanted: Platform) -> bool:
        """Whether something built for this platform is what `wanted` asks for."""
        mine, theirs = self.normal, wanted.normal
        same = (mine.os, mine.architecture, mine.variant) == (theirs.os, theirs.architecture, theirs.variant)
        return same and (not wanted.os_version or wanted.os_version == self.os_version)

    def __str__(self) -> str:
        """`linux-arm-v7`, `windows-amd64-10.0.20348.643`: the form in which it is a name in a directory."""
        return "-".join(part for part in (self.os, self.architecture, self.variant, self.os_version) if part)


def first_match(platforms: Iterable[Platform | None], wanted: Platform) -> int | None:
    """The position of the first platform that satisfies `wanted`, or None."""
    return next((n for n, platform in enumerate(platforms) if platform and platform.satisfies(wanted)), None)
