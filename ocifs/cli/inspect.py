"""`ocifs inspect`: what a manifest is, and which field said so."""

from __future__ import annotations

import dataclasses
import json
from typing import Unpack

import click

from ocifs.cli.browse import browse
from ocifs.cli.errors import text_of
from ocifs.cli.options import SharedOptions, shared
from ocifs.cli.param_types import SOURCE
from ocifs.cli.sources import no_single_manifest
from ocifs.cli.terminal import Mark, write, write_lines
from ocifs.concurrency import patience
from ocifs.errors import OcifsError
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.kinds.children import child_role
from ocifs.oci.kinds.payload import payload_files
from ocifs.settings import Timing
from ocifs.tree.manifest.directory import ManifestDirectory
from ocifs.tree.manifest.files import payload_paths
from ocifs.tree.manifest.load import Bound
from ocifs.tree.manifest.summary import summarise
from ocifs.tree.node import Directory


@click.command("inspect")
@click.argument("reference", type=SOURCE)
@click.option("--json", "as_json", is_flag=True, help="For programs: the whole classification.")
@shared
def command(reference: str, as_json: bool, **options: Unpack[SharedOptions]) -> None:
    """Say what the manifest that REFERENCE names is: its kind, which field decided, its layers and
    files.

    \b
        ocifs inspect registry.example.com/charts/app:1.2.0
        ocifs inspect --json oci:./layout:1.0 | jq .kind
    """

    async def visit(root: Directory, timing: Timing) -> None:
        if not isinstance(root, ManifestDirectory):
            raise no_single_manifest(reference)
        with patience(timing.timeout, timing.max_wait):
            bound = await root.bind()
        referrers = await _referrers(root, timing)
        if as_json:
            write_lines(json.dumps(facts(bound, referrers), indent=2))
        else:
            write_lines(
                summarise(bound.manifest, bound.classification, bound.config, referrers).rstrip(
                    "\n"
                )
            )

    browse(reference, options, visit)


async def _referrers(root: ManifestDirectory, timing: Timing) -> list[tuple[str, Digest]] | None:
    """What refers to the manifest.

    A registry that fails here does not hide the rest; None: nothing of it is known.
    """
    try:
        with patience(timing.timeout, timing.max_wait):
            found, error = await root.referrers()
    except OcifsError as cause:
        found, error = [], cause
    if error is None:
        return found
    missing = (
        "not all that refers to it is known: " if found else "what refers to it is not known: "
    )
    write(f"ocifs: {missing}", Mark(text_of(error)), err=True)
    return found or None


def _descriptor(descriptor: Descriptor) -> dict[str, object]:
    return {
        "digest": str(descriptor.digest),
        "media_type": descriptor.media_type,
        "size": descriptor.size,
    }


def facts(bound: Bound, referrers: list[tuple[str, Digest]] | None) -> dict[str, object]:
    """Everything that is known of a manifest, for programs.

    `referrers` are null where they are not known.
    """
    manifest = bound.manifest
    payload = payload_files(manifest, bound.classification, bound.config)
    files = [
        {
            "path": b"/".join(path).decode(errors="replace"),
            "digests": [str(part.digest) for part in item.parts],
            "size": item.size,
            "unpack": item.unpack,
        }
        for path, item in zip(payload_paths(payload), payload, strict=True)
    ]
    return {
        **dataclasses.asdict(bound.classification),
        "digest": str(manifest.digest),
        "media_type": manifest.media_type,
        "form": manifest.form.value,
        "form_reason": manifest.form_reason,
        "size": len(manifest.raw),
        "subject": str(manifest.subject.digest) if manifest.subject else None,
        "annotations": dict(manifest.annotations),
        "files": files,
        "referrers": referrers
        and [{"kind": kind, "digest": str(digest)} for kind, digest in referrers],
        "layers": [_descriptor(layer) for layer in manifest.layers],
        "manifests": [
            {
                **_descriptor(child),
                "role": child_role(child),
                "artifact_type": child.artifact_type,
                "platform": str(child.platform) if child.platform else None,
            }
            for child in manifest.manifests
        ],
    }
