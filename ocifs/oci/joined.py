"""Sources and the paths in them, written as one word: `HOST/REPOSITORY:TAG/rootfs/etc/passwd`.

A component of a repository's name cannot begin with `_` or contain `:` or `@` (distribution-spec,
"Pulling manifests"), so the path begins

- at the first component that begins with `_`: `HOST/REPOSITORY/_tags`
- or after the first component with a tag or a digest, except the host and its port

Pure: local sources need the disk, and are split in `ocifs.cli.joined`.
"""

from __future__ import annotations

from ocifs.oci.reference import is_registry_name, scheme_length


def split_joined(text: str) -> tuple[str, str]:
    """The source, and the path in it. The path is empty if the word names only a source."""
    position = scheme_length(text)
    if "://" in text[position:]:
        # An unknown scheme, which is an error of the source.
        return text, ""
    first, slash, _ = text[position:].partition("/")
    if slash and _is_host(first):
        position += len(first) + 1
    while position < len(text):
        end = text.find("/", position)
        component = text[position : end if end >= 0 else len(text)]
        if component.startswith("_"):
            return text[:position].rstrip("/"), text[position:]
        if end < 0:
            break
        if ":" in component or "@" in component:
            return text[:end], text[end + 1 :].lstrip("/")
        position = end + 1
    return text, ""


def _is_host(component: str) -> bool:
    """Whether the first component of several is a host, with or without a port."""
    name, colon, port = component.partition(":")
    if "@" in component:
        return False
    # `alpine:3.19/rootfs` is a tag with a path. `alpine:5000/rootfs` is a host with a port.
    return is_registry_name(component) or "." in name or (colon != "" and port.isdigit())
