"""`ocifs export`: write a manifest and all that belongs to it as an OCI image layout.

Rules that hold here: bytes are written as the registry has them, so that every digest stays; what
is in the destination and right is not fetched again; nothing that was not exported whole is listed
in the destination's index.json.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Unpack

import click

from ocifs.cli.browse import browse
from ocifs.cli.options import SharedOptions, shared
from ocifs.cli.param_types import SOURCE
from ocifs.cli.sources import no_single_manifest
from ocifs.cli.terminal import progress, write
from ocifs.concurrency import in_thread, patience
from ocifs.content import RawManifest
from ocifs.errors import NotFound, Unsupported, UsageError
from ocifs.layout.writer import LayoutWriter
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.kinds.children import blob_children, child_role
from ocifs.oci.local import LayoutSource, split_digest
from ocifs.oci.manifest import Form, Manifest, parse_manifest
from ocifs.oci.platform import first_match
from ocifs.oci.reference import is_tag, parse_source
from ocifs.settings import MIB, Timing
from ocifs.tree.blob import BlobFile, sized
from ocifs.tree.manifest.load import Whereabouts
from ocifs.tree.manifest.reachable import check_depth
from ocifs.tree.node import Directory
from ocifs.tree.registry.single import SingleManifest

_WHOLE = (Form.MANIFEST, Form.INDEX, Form.ARTIFACT)


@click.command("export")
@click.argument("reference", type=SOURCE)
@click.argument("destination")
@shared
def command(reference: str, destination: str, **options: Unpack[SharedOptions]) -> None:
    """Write what REFERENCE names, whole and verified, as the OCI image layout DESTINATION:
    oci:DIR[:TAG].

    An index is written with all its children; with --platform only the child for that platform is.
    What DIR has already is not fetched again. Prints the digest of what was exported.

    \b
        ocifs export registry.example.com/team/app:v1 oci:./app
        ocifs export --platform linux/arm64 registry.example.com/team/app:v1 oci:./app:v1-arm64
    """
    target = _target(destination)

    async def visit(root: Directory, timing: Timing) -> None:
        if not isinstance(root, SingleManifest):
            raise no_single_manifest(reference)
        with LayoutWriter(Path(target.path), root.where.context.limits) as layout:
            done = await Export(root.where, layout, timing).run(
                target.ref, chosen=options["platform"] is not None
            )
        write(str(done))

    browse(reference, options, visit)


def _target(text: str) -> LayoutSource:
    found = parse_source(text) if text.startswith("oci:") else None
    if (
        not isinstance(found, LayoutSource)
        or found.ref.startswith("@")
        or split_digest(found.ref)[1] is not None
    ):
        raise UsageError(
            f"{text} is no place to export to",
            hint="a destination looks like oci:DIR or oci:DIR:TAG",
        )
    return found


@dataclass
class Export:
    """One export, from where a manifest is to a layout."""

    where: Whereabouts
    layout: LayoutWriter
    timing: Timing
    _manifests: dict[Digest, Manifest] = field(default_factory=dict)
    _blobs: dict[Digest, Descriptor] = field(default_factory=dict)

    async def run(self, name: str, *, chosen: bool) -> Digest:
        """Export; `chosen`: of an index only the child for the platform.

        Gives the digest of what is listed under `name`.
        """
        version = self.where.version
        top = await self._read(self.where)
        if chosen and top.form is Form.INDEX:
            top = await self._read(replace(self.where, version=self._child(top).digest))
        await self._collect(top, 0)
        await self._copy(list(self._blobs.values()))
        # Children before their indices, so that whoever reads the layout meanwhile finds what leads
        # to something.
        for manifest in reversed(self._manifests.values()):
            await in_thread(self.layout.put, manifest.digest, manifest.raw)
        tag = name or (version if isinstance(version, str) and is_tag(version) else "")
        size = len(top.raw)
        await in_thread(self.layout.list_manifest, top.digest, top.media_type, size, tag)
        return top.digest

    def _child(self, index: Manifest) -> Descriptor:
        machines = [each for each in index.manifests if child_role(each) == "platform"]
        wanted = self.where.context.platform
        number = first_match([each.platform for each in machines], wanted)
        if number is None:
            there = ", ".join(dict.fromkeys(str(each.platform) for each in machines))
            raise NotFound(
                f"{index.digest} has nothing for {wanted}",
                hint=f"there are: {there}" if there else "",
            )
        return machines[number]

    async def _read(self, where: Whereabouts, known: Descriptor | None = None) -> Manifest:
        """A manifest from the destination where it is there, else from the cache or the registry."""
        catalog, version = where.context.origin.catalog, where.version
        raw = None
        if known is not None:
            body = await in_thread(self.layout.small, known.digest, known.size)
            raw = None if body is None else RawManifest(known.digest, known.media_type, body)
        if raw is None:
            with patience(self.timing.timeout, self.timing.max_wait):
                if isinstance(version, str):
                    raw = await catalog.tagged(where.repository, version)
                else:
                    raw = await catalog.manifest(where.repository, version)
        assert raw is not None
        return parse_manifest(
            raw.body, raw.digest, raw.media_type, known.media_type if known else ""
        )

    async def _collect(self, manifest: Manifest, depth: int) -> None:
        if manifest.form not in _WHOLE:
            raise Unsupported(
                f"{manifest.digest} cannot be exported: a layout has no {manifest.form.value} manifests"
                if manifest.form is Form.SCHEMA1
                else f"{manifest.digest} cannot be exported: what belongs to it is not known ({manifest.form_reason})"
            )
        check_depth(depth, self.where.context.limits)
        self._manifests[manifest.digest] = manifest
        for part in (manifest.config, *manifest.layers):
            if part is not None:
                self._blobs[part.digest] = part
        blobs = blob_children(manifest)
        self._blobs.update((blob.digest, blob) for blob in blobs)
        for child in () if blobs else manifest.manifests:
            if child.digest not in self._manifests:
                where = replace(self.where, version=child.digest)
                try:
                    found = await self._read(where, child)
                except NotFound as error:
                    hint = "--platform exports one child alone"
                    raise NotFound(
                        f"a child of the index is not there: {error}", hint=hint
                    ) from None
                if (
                    child_role(child) == "blob"
                ):  # of a type that is not known: the bytes are all there is to it
                    self._manifests[found.digest] = found
                else:
                    await self._collect(found, depth + 1)

    async def _with_size(self, blob: Descriptor) -> Descriptor:
        """The same with its size, which is asked for if the descriptor does not have it."""
        with patience(self.timing.timeout, self.timing.max_wait):
            found = await sized(self.where.context.origin.blobs, self.where.blob(blob))
        return replace(blob, size=found.size)

    async def _copy(self, blobs: list[Descriptor]) -> None:
        blobs = [await self._with_size(each) for each in blobs]
        total = sum(each.size for each in blobs)
        with progress(total, f"{total / MIB:.1f} MiB", sys.stderr) as advance:
            for each in blobs:
                if await in_thread(self.layout.has, each.digest, each.size, abandon_on_cancel=True):
                    advance(each.size)
                    continue
                file = BlobFile(
                    self.where.context.origin.blobs, self.where.blob(each), each.media_type
                )
                file.opened()
                try:
                    with self.layout.writer(each.digest) as writer:
                        for offset in range(0, each.size, MIB):
                            with patience(self.timing.timeout, self.timing.max_wait):
                                piece = await file.read(offset, MIB)
                            await in_thread(writer.write, piece)
                            advance(len(piece))
                finally:
                    file.closed()
