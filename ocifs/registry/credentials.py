"""Where credentials lie: the files that docker, podman, skopeo and oras use (containers-auth.json(5), docker's config.json).

Rules that hold here: the first place that has a credential for a host decides, the longest key that fits is the entry; files are read off
the event loop, anew each time, and are bounded; the environment's credential goes to the one host that the user named; a secret is in no
argument, repr, log or error; what cannot be read as a credential is passed over, and said.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import trio

from ocifs.directories import config_home, home, runtime_directory
from ocifs.registry import helpers
from ocifs.registry.credential import Credential
from ocifs.registry.helpers import Helper, Helpers

log = logging.getLogger("ocifs.registry")

_HUB = "docker.io"
_HUB_KEY = "https://index.docker.io/v1/"
_HUB_KEYS = (_HUB_KEY, "index.docker.io", "registry-1.docker.io")
_FILE_BYTES = 4 << 20
_RUN = Path("/run/containers")


@dataclass(frozen=True, slots=True)
class Sources:
    """Where to look, and what runs helpers. `named`: the host that the environment's credential is for."""

    helpers: Helpers
    environ: Mapping[str, str]
    authfile: Path | None = None
    named: str = ""

    async def find(self, host: str, repository: str, *, anew: bool = False) -> Credential | None:
        """The credential for a repository; None where there is none. `anew`: the one that was found before was refused."""
        for found in await trio.to_thread.run_sync(lambda: list(self.candidates(host, repository))):
            credential = await self.helpers.ask(found, anew=anew) if isinstance(found, Helper) else found
            if credential is not None:
                return credential
        return None

    def candidates(self, host: str, repository: str) -> Iterator[Credential | Helper]:
        """Credentials, and helpers that may know one, in the order in which they are believed. Blocks on disk."""
        if host == self.named:
            from_environment = _environment(self.environ)
            if from_environment is not None:
                yield from_environment
        for path in files(self.environ, self.authfile):
            members = _members(path)
            if path.name == ".dockercfg":
                members = {"auths": members}
            yield from _in_file(members, host, repository)


def files(environ: Mapping[str, str], first: Path | None) -> Iterator[Path]:
    """The places where credentials may be, in the order in which they are believed."""
    if first is not None:
        yield first
    if environ.get("REGISTRY_AUTH_FILE"):
        yield Path(environ["REGISTRY_AUTH_FILE"])
    runtime = runtime_directory(environ)
    # Without XDG_RUNTIME_DIR podman, buildah and skopeo write no `containers` into the path.
    yield (runtime / "containers" if runtime else _RUN / str(os.getuid())) / "auth.json"
    yield config_home(environ) / "containers" / "auth.json"
    yield Path(environ.get("DOCKER_CONFIG") or home(environ) / ".docker") / "config.json"
    yield home(environ) / ".dockercfg"


def hosts_in_files(environ: Mapping[str, str], first: Path | None = None) -> dict[str, list[Path]]:
    """The hosts that some file has a credential or a helper for, and which files. Blocks on disk; no credential is looked at."""
    found: dict[str, list[Path]] = {}
    for path in files(environ, first):
        members = _members(path)
        tables = [members] if path.name == ".dockercfg" else [members.get("auths"), members.get("credHelpers")]
        for table in tables:
            for key in _normal_keys(table):
                places = found.setdefault(key.partition("/")[0], [])
                if path not in places:
                    places.append(path)
    return found


def _members(path: Path) -> dict[str, object]:
    try:
        if not path.is_file():  # a pipe could keep us waiting, and has nothing to say a second time
            return {}
        with path.open("rb") as file:
            members = json.loads(file.read(_FILE_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s cannot be read for credentials: %s", path, type(error).__name__)
        return {}
    return members if isinstance(members, dict) else {}


def _in_file(members: dict[str, object], host: str, repository: str) -> Iterator[Credential | Helper]:
    """A helper for the host first, then what is written down, then the helper for all (docker/cli: credHelpers beats credsStore)."""
    known = _normal_keys(members.get("credHelpers"))
    server = _HUB_KEY if host == _HUB else host
    own = helpers.named(next((known[key] for key in keys(host, repository) if key in known), None), server)
    if own is not None:
        yield own
    entries = _normal_keys(members.get("auths"))
    for key in keys(host, repository):
        credential = _credential(entries.get(key))
        if credential is not None:
            yield credential
            break
    store = helpers.named(members.get("credsStore"), server)
    if store is not None and store != own:
        yield store


def _normal_keys(entries: object) -> dict[str, object]:
    """Entries by keys as `keys` makes them; one that is written so beats those of old that mean the same."""
    if not isinstance(entries, dict):
        return {}
    return {_normal(key): value for key, value in entries.items()} | {
        key: value for key, value in entries.items() if _normal(key) == key
    }


def _environment(environ: Mapping[str, str]) -> Credential | None:
    name, path = environ.get("OCIFS_USERNAME"), environ.get("OCIFS_PASSWORD_FILE")
    if not name or not path:
        return None
    try:
        with Path(path).open(encoding="utf-8") as file:
            return Credential(name, file.read(_FILE_BYTES).rstrip("\r\n"))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        log.warning("OCIFS_PASSWORD_FILE, %s, cannot be read: %s", path, why)
        return None


def keys(host: str, repository: str) -> list[str]:
    """The keys that fit a repository, longest first."""
    parts = repository.split("/") if repository else []
    return ["/".join([host, *parts[:n]]) for n in range(len(parts), -1, -1)]


def _normal(key: str) -> str:
    """A key as `keys` makes them. With a scheme it is docker's of old, which names a host and nothing below it."""
    if key in _HUB_KEYS:
        return _HUB
    for scheme in ("https://", "http://"):
        if key.startswith(scheme):
            host = key.removeprefix(scheme).partition("/")[0]
            return _HUB if host in _HUB_KEYS else host
    return key.removesuffix("/v1/").removesuffix("/v2/").removesuffix("/")


def _credential(entry: object) -> Credential | None:
    if not isinstance(entry, dict):
        return None
    identity, registry, packed = (entry.get(name) for name in ("identitytoken", "registrytoken", "auth"))
    if isinstance(identity, str) and identity:
        return Credential("<token>", identity, "identity")
    if isinstance(registry, str) and registry.isascii() and registry.isprintable() and registry:
        return Credential("", registry, "registry")
    if isinstance(packed, str) and packed:
        try:
            name, colon, secret = base64.b64decode(packed).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return None
        return Credential(name, secret.rstrip("\0"), "identity" if name == "<token>" else "password") if colon else None
    user, password = entry.get("username"), entry.get("password")
    return Credential(user, password) if isinstance(user, str) and user and isinstance(password, str) else None
