"""Computed file names, from the artifact's config or from annotations of the layer.

`payload` calls the function of a kind for each layer.

Rules that hold here:

- Pure.
- A name that ends in `/` is an archive that is shown as a directory.
- If the config lacks the required members, the result is "", and the table's name is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ocifs.errors import Malformed
from ocifs.oci import mediatype
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.jsontext import load_json
from ocifs.oci.kinds.extensions import extension_of

NameFunction = Callable[[dict[str, object], Descriptor], str]

_PREDICATES = ("in-toto.io/predicate-type", "predicateType")
_SOCI_LAYER = "com.amazon.soci.image-layer-digest"
_STARGZ_LAYER = "containerd.io/snapshot/stargz/layer.digest"
_OCM = "software.ocm.artifact"


def _helm(config: dict[str, object], layer: Descriptor) -> str:
    """`name-version.tgz`, and `.prov` for the provenance (Helm, "Use OCI-based registries")."""
    plain = mediatype.essence(layer.media_type)
    name, version = config.get("name"), config.get("version")
    # Early versions of Helm pushed charts as application/tar+gzip.
    if not plain.startswith(("application/vnd.cncf.helm.chart.", "application/tar+gzip")):
        return ""
    known = isinstance(name, str) and isinstance(version, str) and name and version
    stem = f"{name}-{version}" if known else "chart"
    return f"{stem}.tgz.prov" if "provenance" in plain else f"{stem}.tgz"


def _kyverno(_: dict[str, object], layer: Descriptor) -> str:
    """One policy in each layer, with the name in the annotation that Kyverno's tool writes."""
    name = layer.annotations.get("io.kyverno.image.name", "")
    return f"{name}.yaml" if name else ""


def _spin(config: dict[str, object], layer: Descriptor) -> str:
    """The component or file with the layer's digest (Spin's locked app schema)."""
    digest = str(layer.digest)
    components = config.get("components")
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


def predicate_word(predicate_type: str) -> str:
    """A short form of a predicate type.

    `https://slsa.dev/provenance/v0.2` becomes `slsa-provenance-v0.2`.
    """
    text = predicate_type.partition("://")[2] or predicate_type
    for prefix, word in _PREDICATE_WORDS:
        if text.startswith(prefix):
            return word
    host, _, path = text.rstrip("/").partition("/")
    labels = host.removeprefix("www.").split(".")
    return "-".join(part for part in (labels[0], *path.split("/")) if part)


_PREDICATE_WORDS = (("spdx.dev/Document", "spdx"), ("cyclonedx.org/", "cyclonedx"))


def _statement(extension: str) -> NameFunction:
    def name(_: dict[str, object], layer: Descriptor) -> str:
        predicate = next(
            (layer.annotations[key] for key in _PREDICATES if layer.annotations.get(key)), ""
        )
        return f"{predicate_word(predicate) if predicate else 'attestation'}.{extension}"

    return name


def _named_after(annotation: str, ending: str) -> NameFunction:
    """For tables of contents: the digest of the layer that they describe, and an ending."""

    def name(_: dict[str, object], layer: Descriptor) -> str:
        digest = layer.annotations.get(annotation, "")
        return f"{digest}{ending}" if digest else ""

    return name


def _ocm(_: dict[str, object], layer: Descriptor) -> str:
    """The name in the identity of a resource or source (OCM specification, "OCI Registries")."""
    try:
        value = load_json(layer.annotations.get(_OCM, "").encode(errors="replace"), _OCM)
    except Malformed:
        return ""
    first = value[0] if isinstance(value, list) and value else value
    identity = first.get("identity") if isinstance(first, dict) else None
    name = identity.get("name") if isinstance(identity, dict) else None
    if not isinstance(name, str) or not name:
        return ""
    extension = extension_of(layer.media_type)
    return name if extension == ".bin" else f"{name}{extension}"


NAME_FUNCTIONS: Mapping[str, NameFunction] = {
    "helm-chart": _helm,
    "spin-app": _spin,
    "kyverno-policy": _kyverno,
    "attestation": _statement("intoto.json"),
    "cosign-attestation": _statement("dsse.json"),
    "soci-index": _named_after(_SOCI_LAYER, ".ztoc"),
    "stargz-toc": _named_after(_STARGZ_LAYER, "/"),
    "ocm-component": _ocm,
}
