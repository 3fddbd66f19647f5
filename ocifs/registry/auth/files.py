"""Credential files: those of docker, podman, skopeo and oras (containers-auth.json(5), docker's
config.json).

`FileSource` is called from the task of a request, and reads its file in a worker thread, each time.
`hosts_in_files` is called by `ocifs doctor` and the shell completion.

- In each file the helper for the host comes first, then the entry, then the helper for all hosts.
- The longest key that matches a repository is the entry.
- The size of a file is bounded.
- An unreadable file or entry is skipped with a warning.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from ocifs.concurrency import in_thread
from ocifs.registry.auth.credential import Credential, CredentialKind
from ocifs.registry.auth.helpers import CredentialHelper, HelperRunner, helper_for
from ocifs.registry.auth.places import auth_files, default_login
from ocifs.registry.auth.safety import SafetyCheck
from ocifs.userfiles import read_user_file

log = logging.getLogger("ocifs.registry")

_HUB = "docker.io"
_HUB_HOSTS = frozenset({_HUB, "index.docker.io", "registry-1.docker.io"})
# A login by browser adds these to Docker Hub's entry. They hold tokens for Docker's own programs
# (docker/cli).
_SESSION_KEYS = frozenset({"access-token", "refresh-token"})
_FILE_BYTES = 4 << 20


class FileSource:
    """One credential file, with the helpers that it names."""

    def __init__(self, path: Path, runner: HelperRunner) -> None:
        self._path = path
        self._runner = runner
        self._safety = SafetyCheck()

    async def find(self, host: str, repository: str, *, refresh: bool) -> Credential | None:
        for candidate in await in_thread(lambda: list(self.candidates(host, repository))):
            credential = (
                await self._runner.get(candidate, refresh=refresh)
                if isinstance(candidate, CredentialHelper)
                else candidate
            )
            if credential is not None:
                return credential
        return None

    def describe(self) -> str:
        return str(self._path)

    def candidates(self, host: str, repository: str) -> Iterator[Credential | CredentialHelper]:
        """The file's credentials and helpers for a repository, in order. Blocks on disk."""
        self._safety.check(self._path)
        document = _read(self._path)
        helpers = _by_key(document.get("credHelpers"))
        key = next((key for key in keys(host, repository) if key in helpers), None)
        own = None if key is None else helper_for(helpers[key], host)
        # In docker/cli credHelpers also come before credsStore.
        if own is not None:
            yield own
        credential = self._entry(document, host, repository)
        if credential is not None:
            yield credential
        if key is not None and not helpers[key]:
            return  # an empty entry disables credsStore for the host (docker/cli)
        store = helper_for(document.get("credsStore"), host)
        if store is not None and store != own:
            yield store

    def _entry(
        self, document: Mapping[str, object], host: str, repository: str
    ) -> Credential | None:
        """The credential of the longest matching key in `auths`."""
        entries = _by_key(document.get("auths"))
        for key in keys(host, repository):
            credential = _credential(entries.get(key), f"{self._path}: the entry of {key}")
            if credential is not None:
                return credential
        return None


def hosts_in_files(environ: Mapping[str, str], first: Path | None = None) -> dict[str, list[Path]]:
    """The hosts with a credential or a helper, and the files that contain these.

    Credentials are not decoded. Blocks on disk.
    """
    hosts: dict[str, list[Path]] = {}
    for path in auth_files(environ, first):
        document = _read(path)
        for table in (document.get("auths"), document.get("credHelpers")):
            for key in _by_key(table):
                paths = hosts.setdefault(key.partition("/")[0], [])
                if path not in paths:
                    paths.append(path)
    return hosts


def _read(path: Path) -> dict[str, object]:
    """The JSON object in a file; empty for a missing or unreadable one."""
    try:
        document = json.loads(read_user_file(path, _FILE_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except PermissionError as error:
        # /run/containers may be closed to all users except root, so they have no login there.
        if path != default_login():
            log.warning("cannot read credentials in %s: %s", path, type(error).__name__)
        return {}
    except (OSError, ValueError, RecursionError) as error:
        log.warning("cannot read credentials in %s: %s", path, type(error).__name__)
        return {}
    if not isinstance(document, dict):
        return {}
    # docker's old file has the entries at the top.
    return {"auths": document} if path.name == ".dockercfg" else document


def _by_key(entries: object) -> dict[str, object]:
    """Entries by normalised key, as made by `keys`.

    Of several keys with the same meaning, the one closest to the normal form counts.
    """
    if not isinstance(entries, dict):
        return {}
    candidates = [
        (rank, key, value)
        for written, value in entries.items()
        for rank, key in _normalised(written)
    ]
    # The last of equal keys remains in the dictionary, so the closest one comes last.
    candidates.sort(key=lambda candidate: candidate[0], reverse=True)
    return {key: value for _, key, value in candidates}


def keys(host: str, repository: str) -> list[str]:
    """The keys that match a repository, longest first."""
    parts = repository.split("/") if repository else []
    return ["/".join([host.lower(), *parts[:n]]) for n in range(len(parts), -1, -1)]


def _normalised(written: str) -> Iterator[tuple[int, str]]:
    """The normalised keys that a key may mean, each with its distance from the normal form."""
    scheme, _, rest = written.rpartition("://")
    host, _, path = rest.partition("/")
    path = path.rstrip("/")
    if path.rpartition("/")[2] in _SESSION_KEYS or scheme.lower() not in ("", "http", "https"):
        return
    host = _HUB if host.lower() in _HUB_HOSTS else host.lower()
    is_root = path in ("", "v1", "v2")
    if scheme:  # docker's legacy form, which means the host alone
        yield (1 if is_root else 2), host
        return
    key = f"{host}/{path}" if path else host
    yield (0 if key == written else 1), key
    if is_root and path:
        yield 1, host


def _credential(entry: object, name: str) -> Credential | None:
    """The credential in an entry. `name`: of the entry, for messages."""
    if not isinstance(entry, dict):
        return None
    identity, registry, packed = (
        entry.get(key) for key in ("identitytoken", "registrytoken", "auth")
    )
    # docker stores an identity token beside an `auth` with an empty password.
    if isinstance(identity, str) and identity:
        return Credential("<token>", identity, "identity")
    # The token becomes a header unchanged, so a line break would begin another header.
    if isinstance(registry, str) and registry.isascii() and registry.isprintable() and registry:
        return Credential("", registry, "registry")
    if isinstance(packed, str) and packed:
        credential = _decode(packed)
        if credential is not None:
            return credential
        log.warning("%s cannot be read: its auth is not NAME:PASSWORD in Base64", name)
    user, password = entry.get("username"), entry.get("password")
    if isinstance(user, str) and user and isinstance(password, str):
        return Credential(user, password)
    return None


def _decode(packed: str) -> Credential | None:
    try:
        name, colon, secret = base64.b64decode(packed).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
    # In the protocol of docker's helpers, this name marks an identity token.
    kind: CredentialKind = "identity" if name == "<token>" else "password"
    return Credential(name, secret.rstrip("\0"), kind) if colon else None
