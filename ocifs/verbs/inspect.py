"""Describe a manifest: its kind and how it was determined, its layers, files and referrers.

Runs in the event loop of an AsyncTree. Manifests and, for some kinds, the config are fetched.
"""

from __future__ import annotations

from dataclasses import dataclass

from ocifs.api import AsyncTree
from ocifs.errors import OcifsError
from ocifs.oci.descriptor import Descriptor
from ocifs.oci.digest import Digest
from ocifs.oci.kinds.children import child_role
from ocifs.oci.kinds.claims import is_claim, subject_of
from ocifs.oci.kinds.payload import payload_files
from ocifs.tree.manifest.files import payload_paths
from ocifs.tree.manifest.load import LoadedManifest
from ocifs.tree.manifest.referrers import Referrer
from ocifs.tree.manifest.summary import summarise
from ocifs.tree.manifest.times import CREATED, config_members
from ocifs.verbs.manifests import manifest_directory
from ocifs.verbs.tags import natural_key


@dataclass(frozen=True, slots=True)
class Inspection:
    """A manifest and its referrers.

    `referrers_error` is the reason if not all of them could be listed; `referrers` is None if none
    could. `tag`: the tag of the manifest, or "". `tags`: the tags that lead to it, directly or
    through an index, if they are known without a request. `repository_tags`: all tags of the
    repository, or None if not requested.
    """

    loaded: LoadedManifest
    referrers: list[Referrer] | None
    referrers_error: OcifsError | None = None
    tag: str = ""
    tags: tuple[str, ...] = ()
    repository_tags: tuple[str, ...] | None = None

    @property
    def kind(self) -> str:
        """The kind of the artifact: `helm-chart`."""
        return self.loaded.classification.kind

    def summary(self) -> str:
        """The description for people, as in `summary.txt`."""
        loaded = self.loaded
        page = summarise(
            loaded.manifest, loaded.classification, loaded.config, self.referrers, self.tag
        )
        for heading, tags in (
            ("Known tags of this manifest", self.tags),
            ("Tags of the repository", self.repository_tags),
        ):
            if tags:
                page += "".join(
                    f"{line}\n" for line in ("", heading, *(f"  {tag}" for tag in tags))
                )
        return page

    def as_dict(self) -> dict[str, object]:
        """The description for programs, as `ocifs inspect --json` prints it."""
        manifest, found = self.loaded.manifest, self.loaded.classification
        return {
            "kind": found.kind,
            "artifact_type": found.artifact_type,
            "decided_by": found.decided_by,
            "value": found.value,
            "rule": found.rule,
            "declared_in": found.row.origin or None,
            "flavours": list(found.flavours),
            "also": list(found.also),
            "claim": self._claim(),
            "digest": str(manifest.digest),
            "tags": list(self.tags),
            "repository_tags": self.repository_tags,
            "media_type": manifest.media_type,
            "form": manifest.form.value,
            "form_reason": manifest.form_reason,
            "size": len(manifest.raw),
            "subject": str(manifest.subject.digest) if manifest.subject else None,
            "annotations": dict(manifest.annotations),
            **_image(self.loaded),
            "files": _files(self.loaded),
            # None, for an unknown list, differs from an empty one.
            "referrers": self.referrers
            and [_referrer(referrer, manifest.digest) for referrer in self.referrers],
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

    def _claim(self) -> dict[str, object] | None:
        """Of a signature or attestation: its subject, and that it is not verified."""
        if not is_claim(self.loaded.classification):
            return None
        subject = subject_of(self.loaded.manifest, self.tag)
        return {"about": str(subject) if subject is not None else None, "verified": False}


def _image(loaded: LoadedManifest) -> dict[str, object]:
    """The members of an image's config, in the words of `skopeo inspect`; null if missing."""
    members = config_members(loaded.config)
    inner = members.get("config")
    runtime = inner if isinstance(inner, dict) else {}
    parts = (members.get(name) for name in ("os", "architecture", "variant"))
    return {
        "created": loaded.manifest.annotations.get(CREATED) or members.get("created"),
        "platform": "/".join(part for part in parts if isinstance(part, str)) or None,
        "entrypoint": runtime.get("Entrypoint"),
        "command": runtime.get("Cmd"),
        "env": runtime.get("Env"),
        "user": runtime.get("User"),
        "working_dir": runtime.get("WorkingDir"),
        "labels": runtime.get("Labels"),
        "history": members.get("history"),
    }


def _referrer(referrer: Referrer, subject: Digest) -> dict[str, object]:
    claim = {"about": str(subject), "verified": False} if referrer.is_claim else None
    return {
        "kind": referrer.kind,
        "digest": str(referrer.digest),
        "artifact_type": referrer.artifact_type,
        "predicate_type": referrer.predicate,
        "also": list(referrer.also),
        "claim": claim,
    }


async def inspect_manifest(
    tree: AsyncTree, path: str = "", *, list_tags: bool = False
) -> Inspection:
    """Describe the manifest at a path. `list_tags` requests the tags of its repository.

    Raises UsageError if the path does not lead to a single manifest, and the errors of a read. A
    registry that cannot list referrers is not an error.
    """
    directory = await manifest_directory(tree, path)
    with tree.deadline():
        loaded = await directory.load()
    try:
        with tree.deadline():
            referrers, error = await directory.referrers()
    except OcifsError as failure:
        referrers, error = [], failure
    location = directory.location
    tag = location.version if isinstance(location.version, str) else ""
    known = {tag, *location.context.tags_of(location.repository, loaded.manifest.digest)} - {""}
    listed = None
    if list_tags:
        with tree.deadline():
            listed = await location.context.origin.catalog.tags(location.repository)
        listed = tuple(sorted(listed, key=natural_key))
    shown = None if error and not referrers else referrers
    return Inspection(loaded, shown, error, tag, tuple(sorted(known, key=natural_key)), listed)


def _descriptor(descriptor: Descriptor) -> dict[str, object]:
    return {
        "digest": str(descriptor.digest),
        "media_type": descriptor.media_type,
        "size": descriptor.size,
    }


def _files(loaded: LoadedManifest) -> list[dict[str, object]]:
    payload = payload_files(loaded.manifest, loaded.classification, loaded.config)
    return [
        {
            "path": b"/".join(path).decode(errors="replace"),
            "digests": [str(part.digest) for part in item.parts],
            "size": item.size,
            "unpack": item.unpack,
        }
        for path, item in zip(payload_paths(payload), payload, strict=True)
    ]
