"""Kinds that only the config decides.

WebAssembly modules and components have the same types in the CNCF layout. The config of a component
has the member `component`, and its `os` is `wasip2` or later (CNCF TAG Runtime, "WASM OCI Artifact
Layout").

Rules that hold here: pure; a config that does not decide leaves the kind as it is.
"""

from __future__ import annotations

from dataclasses import replace

from ocifs.errors import Malformed
from ocifs.oci.jsontext import load_json
from ocifs.oci.kinds.classification import Classification

_COMPONENT, _MODULE = "wasm-component", "wasm-module"
_MODULE_SYSTEMS = ("wasi", "wasip1")


def is_refined(classification: Classification) -> bool:
    """Whether the config can change the kind."""
    return classification.kind == _COMPONENT


def refine(classification: Classification, config: bytes) -> Classification:
    """The classification of an artifact with this config."""
    if not is_refined(classification):
        return classification
    try:
        members = load_json(config, "the config")
    except Malformed:
        return classification
    if not isinstance(members, dict) or members.get("component") is not None:
        return classification
    if members.get("os") not in _MODULE_SYSTEMS:
        return classification
    return replace(classification, kind=_MODULE, rule=f"{classification.rule}, config")
