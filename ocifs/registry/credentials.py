"""Where credentials lie: the files that docker, podman, skopeo and oras use (containers-auth.json(5), docker's config.json).

Rules that hold here: the first place that has a credential for a host decides, the longest key that fits is the entry; a helper is run
off the event loop, without a shell and within a time; a secret is in no argument, repr, log or error; what cannot be read as a credential
is passed over, and said.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import trio

log = logging.getLogger("ocifs.registry")

_HUB = "docker.io"
_HUB_KEY = "https://index.docker.io/v1/"
_HUB_KEYS = (_HUB_KEY, "index.docker.io", "registry-1.docker.io")
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # what may follow docker-credential-: never a path


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


@dataclass(frozen=True, slots=True)
class Helper:
    """A program that knows a credential (docker-credential-helpers): its name, and the key that it is asked for."""

    program: str
    key: str


async def find_credential(
    host: str, repository: str, environ: Mapping[str, str], first: Path | None, helper_timeout: float
) -> Credential | None:
    """The credential for a repository, read anew; None where there is none. `helper_timeout`: seconds for each helper."""
    for found in await trio.to_thread.run_sync(lambda: list(candidates(host, repository, environ, first))):
        credential = await _ask_helper(found, helper_timeout) if isinstance(found, Helper) else found
        if credential is not None:
            return credential
    return None


def candidates(
    host: str, repository: str, environ: Mapping[str, str], first: Path | None = None
) -> Iterator[Credential | Helper]:
    """Credentials, and helpers that may know one, in the order in which they are believed."""
    from_environment = _environment(environ)
    if from_environment is not None:
        yield from_environment
    for path in files(environ, first):
        try:
            members = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError, RecursionError) as error:
            log.warning("%s cannot be read for credentials: %s", path, type(error).__name__)
            continue
        if isinstance(members, dict):
            yield from _in_file(members, host, repository)


def _in_file(members: dict[str, object], host: str, repository: str) -> Iterator[Credential | Helper]:
    """A helper for the host first, then what is written down, then the helper for all (docker/cli: credHelpers beats credsStore)."""
    helpers = _normal_keys(members.get("credHelpers"))
    suffix = next((helpers[key] for key in keys(host, repository) if key in helpers), None)
    yield from _helper(suffix, host)
    entries = _normal_keys(members.get("auths"))
    for key in keys(host, repository):
        credential = _credential(entries.get(key))
        if credential is not None:
            yield credential
            break
    yield from _helper(members.get("credsStore"), host)


def _helper(suffix: object, host: str) -> Iterator[Helper]:
    if isinstance(suffix, str) and _HELPER.fullmatch(suffix):
        yield Helper(f"docker-credential-{suffix}", _HUB_KEY if host == _HUB else host)
    elif suffix:
        log.warning("a credential helper of a name that cannot be one is not run")


def _normal_keys(entries: object) -> dict[str, object]:
    return {_normal(key): value for key, value in entries.items()} if isinstance(entries, dict) else {}


async def _ask_helper(helper: Helper, timeout: float) -> Credential | None:
    """What a helper says, or None: it knows nothing, is not there, prints rubbish or takes too long."""
    answer: subprocess.CompletedProcess[bytes] | None = None
    with trio.move_on_after(timeout):
        try:
            answer = await trio.run_process(
                [helper.program, "get"],
                stdin=helper.key.encode(),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                deliver_cancel=_kill,
            )
        except OSError as error:
            log.warning("%s cannot be run: %s", helper.program, error.strerror)
            return None
    if answer is None:
        log.warning("%s did not answer within %g s", helper.program, timeout)
        return None
    if answer.returncode != 0:
        log.debug("%s has no credential for %s", helper.program, helper.key)
        return None
    return _from_helper(answer.stdout, helper)


async def _kill(process: trio.Process) -> None:
    process.kill()


def _from_helper(output: bytes, helper: Helper) -> Credential | None:
    try:
        members = json.loads(output)
        user, secret = members["Username"], members["Secret"]
    except (ValueError, KeyError, TypeError, RecursionError):
        log.warning("%s printed what is no credential", helper.program)
        return None
    if not isinstance(user, str) or not isinstance(secret, str) or not secret:
        return None
    return Credential(user, secret, identity=user == "<token>")


def _environment(environ: Mapping[str, str]) -> Credential | None:
    name, path = environ.get("OCIFS_USERNAME"), environ.get("OCIFS_PASSWORD_FILE")
    if not name or not path:
        return None
    try:
        return Credential(name, Path(path).read_text().rstrip("\n"))
    except (OSError, UnicodeDecodeError) as error:
        log.warning("OCIFS_PASSWORD_FILE cannot be read: %s", type(error).__name__)
        return None


def keys(host: str, repository: str) -> list[str]:
    """The keys that fit a repository, longest first."""
    parts = repository.split("/") if repository else []
    return ["/".join([host, *parts[:n]]) for n in range(len(parts), -1, -1)]


def _normal(key: str) -> str:
    if key in _HUB_KEYS:
        return _HUB
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
