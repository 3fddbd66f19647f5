"""The creation time of a manifest: RFC 3339 text as nanoseconds since the epoch.

Rules that hold here: pure; a time that cannot be parsed is the epoch, and never an error.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from ocifs.errors import Malformed
from ocifs.oci.jsontext import load_json
from ocifs.oci.manifest import Manifest

CREATED = "org.opencontainers.image.created"

_RFC3339 = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)[Tt ](?P<time>\d\d:\d\d:\d\d)"
    r"(?:\.(?P<fraction>\d{1,18}))?(?P<zone>[Zz]|[+-]\d\d:\d\d)"
)
# Homebrew writes a date without a time.
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def parse_time_ns(text: str) -> int:
    """An RFC 3339 time, or a date alone, in nanoseconds since the epoch; 0 for other text and for
    earlier times.
    """
    text = text.strip()
    match = _RFC3339.fullmatch(f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text)
    if match is None:
        return 0
    zone = match["zone"].upper().replace("Z", "+00:00")
    try:
        seconds = int(
            datetime.fromisoformat(f"{match['date']}T{match['time']}{zone}")
            .astimezone(UTC)
            .timestamp()
        )
    except (ValueError, OverflowError):
        return 0
    fraction = (match["fraction"] or "")[:9].ljust(9, "0")
    return max(0, seconds * 1_000_000_000 + int(fraction))


def created_ns(manifest: Manifest, config: bytes | None) -> int:
    """The time of a manifest: its `created` annotation, else its config's `created`, else the
    epoch.
    """
    annotated = manifest.annotations.get(CREATED)
    if annotated:
        return parse_time_ns(annotated)
    created = config_members(config).get("created")
    return parse_time_ns(created) if isinstance(created, str) else 0


def config_members(config: bytes | None) -> dict[str, object]:
    """The members of a config that is a JSON object; otherwise empty."""
    try:
        members = load_json(config or b"{}", "the config")
    except Malformed:
        return {}
    return members if isinstance(members, dict) else {}
