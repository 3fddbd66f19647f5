"""Programs that know credentials: docker-credential-NAME (docker/docker-credential-helpers, the
`get` command).

The server's name goes in on standard input; `{"Username": …, "Secret": …}` comes out on standard
output, with status 0.

Called from the task that asks a registry. State: the last answer of each helper for each key, for
the life of the mount.

- No shell, and no name that is a path.
- Off the event loop, within a time, together with all that it started. Its output is bounded; its
  standard error is never read.
- "No such credential" is status 1 with NOT_FOUND on standard output. Every other failure is logged
  with the helper's own words, which the protocol has on standard output too, unless they might be a
  credential.
- An answer is remembered; a failure for FAILURE_HOLDS seconds, so that a helper that hangs costs
  its time once.
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

FAILURE_HOLDS = 60.0  # seconds for which a helper that failed is not run again
# errCredentialsNotFound of docker-credential-helpers
_NOT_FOUND = b"credentials not found in native keychain"
_OUTPUT_BYTES = 1 << 20  # tokens of clouds have some 5 KiB
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Helper:
    """A program that may know a credential, and the key that it is asked for; `also`: another key
    of the same host.
    """

    program: str
    key: str
    also: str = ""


class _Failed(Exception):
    """It could not say whether there is a credential. The message has no secret."""


def named(suffix: object, key: str, also: str = "") -> Helper | None:
    """The helper that a configuration file calls `suffix`; None for what can be no name of one."""
    if isinstance(suffix, str) and _NAME.fullmatch(suffix):
        return Helper(f"docker-credential-{suffix}", key, also)
    if suffix:
        log.warning("a credential helper of a name that cannot be one is not run")
    return None


class Helpers:
    """Runs helpers, each for each key one at a time, and remembers what they said."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._said: dict[Helper, tuple[Credential | None, float | None]] = {}
        self._locks: dict[Helper, trio.Lock] = {}

    async def ask(self, helper: Helper, *, anew: bool = False) -> Credential | None:
        """What a helper says; None where it has no credential, is not there, prints rubbish or
        takes too long.

        `anew`: what it said before was refused.
        """
        before = self._said.get(helper)
        async with self._locks.setdefault(helper, trio.Lock()):
            said, until = self._said.get(helper, (None, -1.0))
            renewed = self._said.get(helper) is not before  # by somebody whom this one waited for
            if (until is None and (renewed or not anew)) or (
                until is not None and trio.current_time() < until
            ):
                return said
            self._said[helper] = await self._answer(helper)
            return self._said[helper][0]

    async def _answer(self, helper: Helper) -> tuple[Credential | None, float | None]:
        try:
            found = await self._run(helper.program, helper.key)
            if found is None and helper.also:
                found = await self._run(helper.program, helper.also)
            return found, None
        except _Failed as error:
            log.warning(
                "%s %s; it is not asked again for %g s", helper.program, error, FAILURE_HOLDS
            )
            return None, trio.current_time() + FAILURE_HOLDS

    async def _run(self, name: str, key: str) -> Credential | None:
        program = await in_thread(find_program, name)
        if program is None:
            raise _Failed("cannot be run: No such file or directory")
        try:
            process = await trio.lowlevel.open_process(
                [program, "get"],
                # as in a daemon: a helper may be a script that looks around where it is started
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise _Failed(f"cannot be run: {error.strerror}") from None
        try:
            with trio.move_on_after(self._timeout):
                output = await _talk(process, key)
                status = await process.wait()
                if status != 0 and _NOT_FOUND not in output:
                    raise _Failed(f"failed for {key}: {_reason(output) or f'status {status}'}")
                if status != 0:
                    log.debug("%s has no credential for %s", name, key)
                    return None
                return _read(output)
        finally:
            await _end(process)
        raise _Failed(f"did not answer within {self._timeout:g} s")


async def _talk(process: trio.Process, key: str) -> bytes:
    assert process.stdin is not None and process.stdout is not None
    with suppress(trio.BrokenResourceError):  # some exit without listening
        await process.stdin.send_all(f"{key}\n".encode())
    await process.stdin.aclose()
    output = b""
    async for piece in process.stdout:
        output += piece
        if len(output) > _OUTPUT_BYTES:
            raise _Failed("prints without end")
    return output


async def _end(process: trio.Process) -> None:
    """Kill one that still runs, with its children, and reap it.

    What one that ended left running is an agent of its own right.
    """
    with trio.CancelScope(shield=True):
        if process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                await stream.aclose()
        await process.wait()


def _reason(output: bytes) -> str:
    """Why a helper failed, in its own words; "" for output that is not words, such as JSON, which
    may hold a secret.
    """
    text = output.decode(errors="replace").strip()
    return "" if "{" in text or not text else clean(text.splitlines()[0])


def _read(output: bytes) -> Credential | None:
    try:
        members = json.loads(output)
        user, secret = members["Username"], members["Secret"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _Failed("printed what is no credential") from None
    if not isinstance(user, str) or not isinstance(secret, str) or not secret:
        return None
    return Credential(user, secret, "identity" if user == "<token>" else "password")
