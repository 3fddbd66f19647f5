"""Where credentials lie: the files that docker, podman, skopeo and oras use
(containers-auth.json(5), docker's config.json).

Rules that hold here: the first place that has a credential for a host decides, the longest key that
fits is the entry; files are read off the event loop, anew each time, and are bounded; the
environment's credential goes to the one host that the user named; a secret is in no argument, repr,
log or error; what cannot be read as a credential is passed over, and said.
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

from ocifs.concurrency import in_thread
from ocifs.directories import config_home, home, runtime_directory
from ocifs.registry.auth import helpers
from ocifs.registry.auth.credential import Credential
from ocifs.registry.auth.helpers import Helper, Helpers
from ocifs.userfiles import read_user_file, unsafe_permissions

log = logging.getLogger("ocifs.registry")

_HUB = "docker.io"
_HUB_KEY = "https://index.docker.io/v1/"
_HUB_HOSTS = frozenset({_HUB, "index.docker.io", "registry-1.docker.io"})
# A login by browser writes these beside Docker Hub's entry. They hold tokens for Docker's own
# programs (docker/cli).
_SESSION_KEYS = frozenset({"access-token", "refresh-token"})
# the name of the files among `credential-helpers` (containers-registries.conf(5))
_AUTH_FILES = "containers-auth.json"
_FILE_BYTES = 4 << 20
_RUN = Path("/run/containers")


@dataclass(frozen=True, slots=True)
class Sources:
    """Where to look, and what runs helpers.

    `named`: the host that the environment's credential is for. `order`: helpers and the word for
    the files, as registries.conf lists them; empty: the files alone.
    """

    helpers: Helpers
    environ: Mapping[str, str]
    authfile: Path | None = None
    named: str = ""
    order: tuple[str, ...] = ()
    _warned: set[Path] = field(default_factory=set, repr=False)

    async def find(self, host: str, repository: str, *, anew: bool = False) -> Credential | None:
        """The credential for a repository; None where there is none.

        `anew`: the one that was found before was refused.
        """
        for found in await in_thread(lambda: list(self.candidates(host, repository))):
            credential = (
                await self.helpers.ask(found, anew=anew) if isinstance(found, Helper) else found
            )
            if credential is not None:
                return credential
        return None

    def candidates(self, host: str, repository: str) -> Iterator[Credential | Helper]:
        """Credentials, and helpers that may know one, in the order in which they are believed.

        Blocks on disk.
        """
        if host == self.named:
            from_environment = _environment(self.environ)
            self._warn_of_others(Path(self.environ.get("OCIFS_PASSWORD_FILE") or "/"))
            if from_environment is not None:
                yield from_environment
        order = self.order or (_AUTH_FILES,)
        if self.authfile is not None and _AUTH_FILES not in order:
            self._warn_of_others(self.authfile)
            yield from _in_file(self.authfile, host, repository)  # the user named it
        for name in order:
            if name == _AUTH_FILES:
                for path in files(self.environ, self.authfile):
                    self._warn_of_others(path)
                    yield from _in_file(path, host, repository)
            elif (helper := _helper(name, host)) is not None:
                yield helper

    def _warn_of_others(self, path: Path) -> None:
        """Warn, once, of credentials that others may have put there: they decide what is shown, and
        which helper is run.
        """
        why = unsafe_permissions(path) if path not in self._warned else ""
        if why:
            self._warned.add(path)
            log.warning("credentials are read from a file that is not safe: %s", why)


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
    """The hosts that some file has a credential or a helper for, and which files.

    Blocks on disk; no credential is looked at.
    """
    found: dict[str, list[Path]] = {}
    for path in files(environ, first):
        members = _members(path)
        tables = (
            [members]
            if path.name == ".dockercfg"
            else [members.get("auths"), members.get("credHelpers")]
        )
        for table in tables:
            for key in _by_key(table):
                places = found.setdefault(key.partition("/")[0], [])
                if path not in places:
                    places.append(path)
    return found


def _members(path: Path) -> dict[str, object]:
    try:
        members = json.loads(read_user_file(path, _FILE_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s cannot be read for credentials: %s", path, type(error).__name__)
        return {}
    if not isinstance(members, dict):
        return {}
    return members


def _in_file(path: Path, host: str, repository: str) -> Iterator[Credential | Helper]:
    """A helper for the host first, then what is written down, then the helper for all (docker/cli:
    credHelpers beats credsStore).
    """
    members = _members(path)
    if path.name == ".dockercfg":
        members = {"auths": members}
    known = _by_key(members.get("credHelpers"))
    fitting = next((key for key in keys(host, repository) if key in known), None)
    own = None if fitting is None else _helper(known[fitting], host)
    if own is not None:
        yield own
    entries = _by_key(members.get("auths"))
    for key in keys(host, repository):
        credential = _credential(entries.get(key), f"{path}: the entry of {key}")
        if credential is not None:
            yield credential
            break
    if fitting is not None and not known[fitting]:
        return  # an empty entry keeps the store from being asked for this host (docker/cli)
    store = _helper(members.get("credsStore"), host)
    if store is not None and store != own:
        yield store


def _helper(suffix: object, host: str) -> Helper | None:
    """A helper for a host. docker and podman know Docker Hub under different keys."""
    return helpers.named(suffix, *((_HUB_KEY, _HUB) if host == _HUB else (host,)))


def _by_key(entries: object) -> dict[str, object]:
    """Entries by keys as `keys` makes them.

    Of several that mean the same, the one that needs the least interpretation.
    """
    if not isinstance(entries, dict):
        return {}
    readings = [
        (rank, key, value) for written, value in entries.items() for rank, key in _readings(written)
    ]
    return {
        key: value for _, key, value in sorted(readings, key=lambda each: each[0], reverse=True)
    }


def _environment(environ: Mapping[str, str]) -> Credential | None:
    name, path = environ.get("OCIFS_USERNAME"), environ.get("OCIFS_PASSWORD_FILE")
    if not name or not path:
        return None
    try:
        secret = read_user_file(Path(path), _FILE_BYTES).decode().rstrip("\r\n")
        return Credential(name, secret)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        log.warning("OCIFS_PASSWORD_FILE, %s, cannot be read: %s", path, why)
        return None


def keys(host: str, repository: str) -> list[str]:
    """The keys that fit a repository, longest first."""
    parts = repository.split("/") if repository else []
    return ["/".join([host.lower(), *parts[:n]]) for n in range(len(parts), -1, -1)]


def _readings(written: str) -> Iterator[tuple[int, str]]:
    """What a key may mean, as keys that `keys` makes, each with a rank: 0 needs no interpretation."""
    scheme, _, rest = written.rpartition("://")
    host, _, path = rest.partition("/")
    path = path.rstrip("/")
    if path.rpartition("/")[2] in _SESSION_KEYS or scheme.lower() not in ("", "http", "https"):
        return
    host = _HUB if host.lower() in _HUB_HOSTS else host.lower()
    is_root = path in ("", "v1", "v2")
    if scheme:  # docker's of old, which names a host and nothing below it
        yield (1 if is_root else 2), host
        return
    key = f"{host}/{path}" if path else host
    yield (0 if key == written else 1), key
    if is_root and path:
        yield 1, host


def _credential(entry: object, what: str) -> Credential | None:
    """The credential in an entry, which messages call `what`."""
    if not isinstance(entry, dict):
        return None
    identity, registry, packed = (
        entry.get(name) for name in ("identitytoken", "registrytoken", "auth")
    )
    if isinstance(identity, str) and identity:
        return Credential("<token>", identity, "identity")
    if isinstance(registry, str) and registry.isascii() and registry.isprintable() and registry:
        return Credential("", registry, "registry")
    if isinstance(packed, str) and packed:
        found = _unpacked(packed)
        if found is not None:
            return found
        log.warning("%s cannot be read: its auth is not NAME:PASSWORD in Base64", what)
    user, password = entry.get("username"), entry.get("password")
    return (
        Credential(user, password)
        if isinstance(user, str) and user and isinstance(password, str)
        else None
    )


def _unpacked(packed: str) -> Credential | None:
    try:
        name, colon, secret = base64.b64decode(packed).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
    return (
        Credential(name, secret.rstrip("\0"), "identity" if name == "<token>" else "password")
        if colon
        else None
    )
