"""The targets of requests (distribution-spec "Endpoints"; `_catalog` is part of Docker's own API).

Rules that hold here:

- Pure.
- A target is a path below the registry's root. It is made from parsed names only.
"""

from __future__ import annotations

from urllib.parse import quote

from ocifs.oci import mediatype
from ocifs.oci.digest import Digest

PAGE = 1000
"""Entries in a page. Some registries reject more (400 PAGINATION_NUMBER_INVALID)."""

ACCEPT_MANIFESTS = ", ".join(mediatype.MANIFESTS)
ACCEPT_INDEX = mediatype.OCI_INDEX

CONTROLS = ("/tags/list", "/manifests/", "/blobs/", "/referrers/")
"""The parts of a target's path that follow a repository's name."""

PING = "/v2/"
"""The endpoint that every registry answers, at least with its challenge (end-1)."""


def catalog() -> str:
    """The repositories, one page."""
    return f"/v2/_catalog?n={PAGE}"


def tags(repository: str) -> str:
    """The tags of a repository, one page (end-8b)."""
    return f"/v2/{repository}/tags/list?n={PAGE}"


def one_tag(repository: str) -> str:
    """A page with one tag, to find out whether a repository exists."""
    return f"/v2/{repository}/tags/list?n=1"


def following(page: str, last: str) -> str:
    """The page of a list after a name (end-8b), for registries that send no Link header."""
    return f"{page}&last={quote(last, safe='')}"


def manifest(repository: str, version: str | Digest) -> str:
    """A manifest by tag or digest (end-3)."""
    return f"/v2/{repository}/manifests/{version}"


def blob(repository: str, digest: Digest) -> str:
    """A blob (end-2)."""
    return f"/v2/{repository}/blobs/{digest}"


def referrers(repository: str, digest: Digest) -> str:
    """The referrers of a manifest (end-12a)."""
    return f"/v2/{repository}/referrers/{digest}"


def referrers_tag(digest: Digest) -> str:
    """The tag that replaces the referrers API (distribution-spec "Referrers Tag Schema")."""
    # The specification truncates both parts, so that a tag has at most 128 characters.
    return f"{digest.algorithm[:32]}-{digest.encoded[:64]}"


def endpoint_of(target: str) -> str:
    """The name of a target's endpoint.

    Registries have a rate limit for each: Docker Hub counts manifests and not blobs.
    """
    path = target.partition("?")[0]
    end, control = max((path.rfind(control), control) for control in CONTROLS)
    return control.strip("/") if end > 0 else path.removeprefix("/v2/")


def scope_of(target: str) -> str:
    """The scope that a token for a target needs (distribution docs/content/spec/auth/scope.md)."""
    path = target.partition("?")[0].removeprefix("/v2/")
    if path == "_catalog":
        return "registry:catalog:*"
    # The last one counts: a repository may be named like an endpoint, but a tag has no slash.
    end = max(path.rfind(control) for control in CONTROLS)
    return f"repository:{path[:end]}:pull" if end > 0 else ""
