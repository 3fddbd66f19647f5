"""Where credentials lie: the files that docker, podman, skopeo and oras use (containers-auth.json(5), docker's config.json).

Rules that hold here: the first file that has an entry for a host decides, the longest key that fits is the entry; a secret is in no repr,
no log and no error; what cannot be read as a credential is passed over, and said once.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger("ocifs.registry")

_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io")


@dataclass(frozen=True, slots=True)
class Credential:
    """Who a registry is told that we are. `identity`: the secret is an identity token, to be exchanged (OAuth2)."""

    username: str
    secret: str = field(repr=False)
    identity: bool = False

    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.secret}".encode()).decode()


def files(environ: Mapping[str, str], first: Path | None) -> Iterator[Path]:
    """The places where credentials may be, in the order in which they are believed."""
    home = Path(environ.get("HOME", "/"))
    if first is not None:
        yield first
    if environ.get("REGISTRY_AUTH_FILE"):
        yield Path(environ["REGISTRY_AUTH_FILE"])
    yield Path(environ.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.getuid()}") / "containers" / "auth.json"
    yield Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "containers" / "auth.json"
    yield Path(environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json"


def find_credential(
    host: str, repository: str, environ: Mapping[str, str], first: Path | None = None
) -> Credential | None:
    """The credential for a repository, read anew from the files; None where there is none."""
    from_environment = _environment(environ)
    if from_environment is not None:
        return from_environment
    for path in files(environ, first):
        try:
            members = json.loads(path.read_bytes())
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError) as error:
            log.warning("%s cannot be read for credentials: %s", path, type(error).__name__)
            continue
        found = _entry(members, host, repository)
        if found is not None:
            return found
    return None


def _environment(environ: Mapping[str, str]) -> Credential | None:
    name, path = environ.get("OCIFS_USERNAME"), environ.get("OCIFS_PASSWORD_FILE")
    if not name or not path:
        return None
    try:
        return Credential(name, Path(path).read_text().rstrip("\n"))
    except (OSError, UnicodeDecodeError) as error:
        log.warning("OCIFS_PASSWORD_FILE cannot be read: %s", type(error).__name__)
        return None


def _entry(members: object, host: str, repository: str) -> Credential | None:
    entries = members.get("auths") if isinstance(members, dict) else None
    if not isinstance(entries, dict):
        return None
    normal = {_normal(key): value for key, value in entries.items() if isinstance(key, str)}
    for key in keys(host, repository):
        found = _credential(normal.get(key))
        if found is not None:
            return found
    return None


def keys(host: str, repository: str) -> list[str]:
    """The keys that fit a repository, longest first."""
    parts = repository.split("/") if repository else []
    return ["/".join([host, *parts[:n]]) for n in range(len(parts), -1, -1)]


def _normal(key: str) -> str:
    if key in _HUB_KEYS:
        return "docker.io"
    return (
        key.removeprefix("https://").removeprefix("http://").removesuffix("/").removesuffix("/v2").removesuffix("/v1")
    )


def _credential(entry: object) -> Credential | None:
    if not isinstance(entry, dict):
        return None
    token, packed = entry.get("identitytoken"), entry.get("auth")
    if isinstance(token, str) and token:
        return Credential("<token>", token, identity=True)
    if isinstance(packed, str) and packed:
        try:
            name, colon, secret = base64.b64decode(packed).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return None
        return Credential(name, secret.rstrip("\0"), identity=name == "<token>") if colon else None
    user, password = entry.get("username"), entry.get("password")
    return Credential(user, password) if isinstance(user, str) and user and isinstance(password, str) else None
