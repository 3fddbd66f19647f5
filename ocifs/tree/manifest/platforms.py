"""Whether an image is for the platform that was requested.

An index lists its platforms, and a missing one is an error. A single image is shown
even if it is for another platform, with a note: its files could be mistaken for those of the
requested platform.

Pure.
"""

from __future__ import annotations

from ocifs.oci.manifest import Form
from ocifs.oci.platform import Platform, first_match
from ocifs.tree.manifest.load import LoadedManifest
from ocifs.tree.manifest.times import config_members


def platform_note(loaded: LoadedManifest, wanted: Platform | None) -> str:
    """A note on an image for another platform than the requested one, or an empty text.

    `wanted` is None if none was requested.
    """
    if wanted is None or loaded.classification.kind != "image":
        return ""
    if loaded.manifest.form is Form.INDEX:
        return ""
    members = config_members(loaded.config)
    system, architecture = members.get("os"), members.get("architecture")
    if not isinstance(system, str) or not isinstance(architecture, str) or not architecture:
        return ""
    variant = members.get("variant")
    own = Platform(system, architecture, variant if isinstance(variant, str) else "")
    if first_match([own], wanted) is not None:
        return ""
    return f"the image is for {_text(own)}, not for {_text(wanted)}: {loaded.manifest.digest}"


def _text(platform: Platform) -> str:
    """A platform as in `--platform`."""
    return "/".join(filter(None, (platform.os, platform.architecture, platform.variant)))
