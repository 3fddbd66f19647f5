"""Credential helpers: the programs docker-credential-NAME (docker/docker-credential-helpers, the
`get` command).

The server's name goes to standard input. `{"Username": …, "Secret": …}` comes from standard output,
with status 0.

Called from the task of a request. State of `HelperRunner`, one instance a mount: the last result of
each helper for each key.

- There is no shell, and a name is not a path.
- A helper has a deadline, after which it is killed with all processes that it started. Its output
  is bounded, and its standard error is discarded.
- "No such credential" is status 1 with NOT_FOUND on standard output. Every other failure is logged
  with the helper's own message, which the protocol also puts on standard output. A message that may
  be a credential is not logged.
- A result is cached until the registry rejects it. A failure is cached for FAILURE_PAUSE seconds,
  so that a helper that hangs delays one read, not every read.
- Concurrent callers share one run.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass

import trio

from ocifs.concurrency import in_thread
from ocifs.oci.distribution.error_body import clean
from ocifs.programs import find_program
from ocifs.registry.auth.credential import Credential

log = logging.getLogger("ocifs.registry")

FAILURE_PAUSE = 60.0  # seconds for which a failed helper is not run again
# errCredentialsNotFound of docker-credential-helpers
_NOT_FOUND = b"credentials not found in native keychain"
_OUTPUT_BYTES = 1 << 20  # tokens of clouds have some 5 KiB
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HUB = "docker.io"
_HUB_KEY = "https://index.docker.io/v1/"


@dataclass(frozen=True, slots=True)
class CredentialHelper:
    """A helper program and the key to pass to it; `fallback`: another key for the same host."""

    program: str
    key: str
    fallback: str = ""


def helper_for(suffix: object, host: str) -> CredentialHelper | None:
    """The helper that a configuration file calls `suffix`; None for an invalid name."""
    if isinstance(suffix, str) and _NAME.fullmatch(suffix):
        # docker and podman use different keys for Docker Hub.
        keys = (_HUB_KEY, _HUB) if host == _HUB else (host,)
        return CredentialHelper(f"docker-credential-{suffix}", *keys)
    if suffix:
        log.warning("a credential helper with an invalid name is not run")
    return None


class _HelperFailed(Exception):
    """The helper could not report whether there is a credential. The message has no secret."""


class HelperRunner:
    """Runs helpers, and caches their results."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        # The credential, and until when a failure counts (None for a result of the helper).
        self._results: dict[CredentialHelper, tuple[Credential | None, float | None]] = {}
        self._locks: dict[CredentialHelper, trio.Lock] = {}

    async def get(self, helper: CredentialHelper, *, refresh: bool = False) -> Credential | None:
        """The helper's credential; None if it has none, is missing, fails or times out.

        `refresh`: the registry has rejected its last credential.
        """
        before = self._results.get(helper)
        async with self._locks.setdefault(helper, trio.Lock()):
            credential, until = self._results.get(helper, (None, -1.0))
            # Another task has run the helper while this one waited for the lock.
            is_new = self._results.get(helper) is not before
            if until is None and (is_new or not refresh):
                return credential
            # A failure is not refreshed early: the helper would delay each request of its host.
            if until is not None and trio.current_time() < until:
                return credential
            self._results[helper] = await self._run_and_log(helper)
            return self._results[helper][0]

    async def _run_and_log(
        self, helper: CredentialHelper
    ) -> tuple[Credential | None, float | None]:
        try:
            credential = await self._run(helper.program, helper.key)
            if credential is None and helper.fallback:
                credential = await self._run(helper.program, helper.fallback)
            return credential, None
        except _HelperFailed as error:
            log.warning("%s %s; retrying in %g s", helper.program, error, FAILURE_PAUSE)
            return None, trio.current_time() + FAILURE_PAUSE

    async def _run(self, name: str, key: str) -> Credential | None:
        program = await in_thread(find_program, name)
        if program is None:
            raise _HelperFailed("cannot be run: No such file or directory")
        try:
            process = await trio.lowlevel.open_process(
                [program, "get"],
                # As in a daemon: a script may read files in its working directory.
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # A process group of its own, so that `_kill` also reaches the processes that it
                # started.
                start_new_session=True,
            )
        except OSError as error:
            raise _HelperFailed(f"cannot be run: {error.strerror}") from None
        try:
            with trio.move_on_after(self._timeout):
                output = await _communicate(process, key)
                status = await process.wait()
                if status != 0 and _NOT_FOUND not in output:
                    raise _HelperFailed(
                        f"failed for {key}: {_reason(output) or f'status {status}'}"
                    )
                if status != 0:
                    log.debug("%s has no credential for %s", name, key)
                    return None
                return _parse(output)
        finally:
            await _kill(process)
        raise _HelperFailed(f"timed out after {self._timeout:g} s")


class HelperSource:
    """A helper as a credential source (`credential-helpers` of registries.conf)."""

    def __init__(self, suffix: str, runner: HelperRunner) -> None:
        self._suffix = suffix
        self._runner = runner

    async def find(self, host: str, repository: str, *, refresh: bool) -> Credential | None:
        helper = helper_for(self._suffix, host)
        return None if helper is None else await self._runner.get(helper, refresh=refresh)

    def describe(self) -> str:
        return f"docker-credential-{self._suffix}"


async def _communicate(process: trio.Process, key: str) -> bytes:
    assert process.stdin is not None and process.stdout is not None
    with suppress(trio.BrokenResourceError):  # a helper may exit without reading its input
        await process.stdin.send_all(f"{key}\n".encode())
    await process.stdin.aclose()
    output = b""
    async for piece in process.stdout:
        output += piece
        if len(output) > _OUTPUT_BYTES:
            raise _HelperFailed(f"prints more than {_OUTPUT_BYTES} bytes")
    return output


async def _kill(process: trio.Process) -> None:
    """Kill a process that still runs, with its children, and reap it.

    Children of a process that has exited are left alone: they are agents.
    """
    # A cancelled task must not leave a process or a zombie behind.
    with trio.CancelScope(shield=True):
        if process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                await stream.aclose()
        await process.wait()


def _reason(output: bytes) -> str:
    """A helper's message about its failure; "" for output such as JSON, which may hold a secret."""
    text = output.decode(errors="replace").strip()
    return "" if "{" in text or not text else clean(text.splitlines()[0])


def _parse(output: bytes) -> Credential | None:
    try:
        document = json.loads(output)
        user, secret = document["Username"], document["Secret"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _HelperFailed("prints an invalid credential") from None
    if not isinstance(user, str) or not isinstance(secret, str) or not secret:
        return None
    return Credential(user, secret, "identity" if user == "<token>" else "password")
