"""What to ask of a registry (distribution-spec "Endpoints"; `_catalog` from Docker's own API,
"Listing Repositories").

Rules that hold here: pure; a target is a path below the registry's root, made from parsed names
only.
"""

from __future__ import annotations

from urllib.parse import quote

from ocifs.oci import mediatype
from ocifs.oci.digest import Digest

PAGE = 1000
"""Entries asked for in one page: more is refused by some registries (400 PAGINATION_NUMBER_INVALID)."""

ACCEPT_MANIFESTS = ", ".join(mediatype.MANIFESTS)
ACCEPT_INDEX = mediatype.OCI_INDEX

CONTROLS = ("/tags/list", "/manifests/", "/blobs/", "/referrers/")
"""What follows a repository's name in the path of a target."""

PING = "/v2/"
"""What every registry answers, if only with its challenge (end-1)."""


def catalog() -> str:
    """The repositories, one page."""
    return f"/v2/_catalog?n={PAGE}"


def tags(repository: str) -> str:
    """The tags of a repository, one page (end-8b)."""
    return f"/v2/{repository}/tags/list?n={PAGE}"


def one_tag(repository: str) -> str:
    """A page with one tag, for whether there is such a repository."""
    return f"/v2/{repository}/tags/list?n=1"


def following(page: str, last: str) -> str:
    """The page of a list after a name (end-8b), for registries that do not say where it is."""
    return f"{page}&last={quote(last, safe='')}"


def manifest(repository: str, version: str | Digest) -> str:
    """A manifest by tag or digest (end-3)."""
    return f"/v2/{repository}/manifests/{version}"


def blob(repository: str, digest: Digest) -> str:
    """A blob (end-2)."""
    return f"/v2/{repository}/blobs/{digest}"


def referrers(repository: str, digest: Digest) -> str:
    """What refers to a manifest (end-12a)."""
    return f"/v2/{repository}/referrers/{digest}"


def referrers_tag(digest: Digest) -> str:
    """The tag that stands in for the referrers API (distribution-spec "Referrers Tag Schema")."""
    return f"{digest.algorithm[:32]}-{digest.encoded[:64]}"


def endpoint_of(target: str) -> str:
    """Which endpoint a target is of: registries limit each by itself (Docker Hub counts manifests
    and not blobs).
    """
    path = target.partition("?")[0]
    end, control = max((path.rfind(control), control) for control in CONTROLS)
    return control.strip("/") if end > 0 else path.removeprefix("/v2/")


def scope_of(target: str) -> str:
    """The scope that a token for a target needs (distribution docs/content/spec/auth/scope.md)."""
    path = target.partition("?")[0].removeprefix("/v2/")
    if path == "_catalog":
        return "registry:catalog:*"
    # The last one counts: a repository may be named like an endpoint, a tag or digest has no slash.
    end = max(path.rfind(control) for control in CONTROLS)
    return f"repository:{path[:end]}:pull" if end > 0 else ""
