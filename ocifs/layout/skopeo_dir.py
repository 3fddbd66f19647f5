"""A directory of `skopeo copy … dir:DIR`: one manifest, and blobs named by their digest's hex part.

Everything blocks: callers are worker threads. The current state of the directory is read.

Rules that hold here: a path is made from fixed names and `Digest`s only.
"""

from __future__ import annotations

from ocifs.errors import NotFound, Unsupported
from ocifs.layout.contents import Files, ListedManifest, read_small
from ocifs.layout.file_range import FileRange, check_trusted
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.manifest import digest_of_manifest, parse_manifest
from ocifs.settings import Limits

MANIFEST, VERSION = "manifest.json", "version"


class DirContents:
    """A directory of skopeo's `dir:` transport."""

    def __init__(self, files: Files, limits: Limits) -> None:
        self._files = files
        self._limits = limits

    def list_manifests(self) -> tuple[ListedManifest, ...]:
        """The copied manifest. The platforms of an index are not listed."""
        check_trusted(self._files.find(MANIFEST), MANIFEST)
        body = read_small(self._files, MANIFEST, self._limits)
        digest = digest_of_manifest(body)
        media_type = parse_manifest(body, digest).media_type
        return (ListedManifest(0, Descriptor(media_type, digest, len(body))),)

    def find(self, digest: Digest) -> FileRange:
        if not digest.verifiable:
            raise Unsupported(
                f"cannot verify {digest}: unknown algorithm, or invalid value for the algorithm"
            )
        stem = (
            digest.encoded
            if digest.algorithm == "sha256"
            else f"{digest.algorithm}-{digest.encoded}"
        )
        # skopeo writes the manifests of an index's children as HEX.manifest.json.
        for name in (stem, f"{stem}.manifest.json"):
            try:
                return self._files.find(name)
            except NotFound:
                continue
        if self.list_manifests()[0].identity == digest:
            return self._files.find(MANIFEST)
        raise NotFound(f"no blob {digest} in the directory {self._files.shown}")

    def notes(self) -> tuple[str, ...]:
        return ()
