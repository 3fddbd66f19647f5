"""Computed file names, from the artifact's config or from annotations of the layer.

`file_names.py` calls the function of a kind for each layer.

Rules that hold here:

- Pure.
- A name that ends in `/` is an archive that is shown as a directory.
- If the config lacks the required members, the result is "", and the table's name is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ocifs.errors import Malformed
from ocifs.oci import mediatype
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.jsontext import load_json
from ocifs.oci.kinds.extensions import extension_of
from ocifs.oci.kinds.predicates import predicate_type, predicate_word


@dataclass(frozen=True, slots=True)
class NameInput:
    """The input of a computed name: the members of the config, the annotations of the manifest, and
    the layer.
    """

    config: Mapping[str, object]
    annotations: Mapping[str, str]
    layer: Descriptor


NameFunction = Callable[[NameInput], str]

_OCM = "software.ocm.artifact"


def _helm(known: NameInput) -> str:
    """`name-version.tgz`, and `.prov` for the provenance (Helm, "Use OCI-based registries")."""
    plain = mediatype.essence(known.layer.media_type)
    name, version = known.config.get("name"), known.config.get("version")
    # Early versions of Helm pushed charts as application/tar+gzip.
    if not plain.startswith(("application/vnd.cncf.helm.chart.", "application/tar+gzip")):
        return ""
    # The first versions had the metadata of the chart in a layer of its own.
    if ".chart.meta." in plain:
        return ""
    complete = isinstance(name, str) and isinstance(version, str) and name and version
    stem = f"{name}-{version}" if complete else "chart"
    return f"{stem}.tgz.prov" if "provenance" in plain else f"{stem}.tgz"


def _spin(known: NameInput) -> str:
    """The component or file with the layer's digest (Spin's locked app schema)."""
    digest = str(known.layer.digest)
    components = known.config.get("components")
    for component in components if isinstance(components, list) else ():
        if not isinstance(component, dict):
            continue
        if _source_digest(component.get("source")) == digest and isinstance(
            component.get("id"), str
        ):
            return f"{component['id']}.wasm"
        files = component.get("files")
        for entry in files if isinstance(files, list) else ():
            if not isinstance(entry, dict) or _source_digest(entry) != digest:
                continue
            path = entry.get("path")
            if isinstance(path, str):
                return path
    return ""


def _source_digest(value: object) -> str:
    """The digest in an object of Spin's, or in its member `content`."""
    if not isinstance(value, dict):
        return ""
    inner = value.get("content")
    digest = value.get("digest") or (inner.get("digest") if isinstance(inner, dict) else None)
    return digest if isinstance(digest, str) else ""


def _statement(extension: str, otherwise: str) -> NameFunction:
    """The word of the predicate and an extension; `otherwise` is used without a predicate."""

    def name(known: NameInput) -> str:
        predicate = predicate_type(known.layer.annotations) or predicate_type(known.annotations)
        return f"{predicate_word(predicate) if predicate else otherwise}.{extension}"

    return name


def _ocm(known: NameInput) -> str:
    """The name in the identity of a resource or source (OCM specification, "OCI Registries")."""
    try:
        text = known.layer.annotations.get(_OCM, "")
        value = load_json(text.encode(errors="replace"), _OCM)
    except Malformed:
        return ""
    first = value[0] if isinstance(value, list) and value else value
    identity = first.get("identity") if isinstance(first, dict) else None
    name = identity.get("name") if isinstance(identity, dict) else None
    if not isinstance(name, str) or not name:
        return ""
    extension = extension_of(known.layer.media_type)
    return name if extension == ".bin" else f"{name}{extension}"


NAME_FUNCTIONS: Mapping[str, NameFunction] = {
    "helm-chart": _helm,
    "spin-app": _spin,
    "attestation": _statement("intoto.json", "attestation"),
    "cosign-attestation": _statement("dsse.json", "attestation"),
    "sigstore-bundle": _statement("sigstore.json", "bundle"),
    "ocm-component": _ocm,
}
