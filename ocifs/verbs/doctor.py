"""Find problems that prevent mounts on this machine, and check whether a source can be read.

`diagnose` runs in an event loop; checks that block run in worker threads.

- Findings come one by one, each as soon as its check has ended.
- Every request has a deadline.
- Only findings of the level BAD prevent a mount.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeVar, Unpack

import trio

from ocifs import __version__
from ocifs.app import run_to_end
from ocifs.concurrency import in_thread, ungrouped
from ocifs.errors import AccessDenied, DeadlineExceeded, OcifsError
from ocifs.fuse.mounts import mount_state, mounts
from ocifs.layout.layout import Layout
from ocifs.oci.local import LayoutSource
from ocifs.oci.reference import OneSource, hosts_of, parse_source
from ocifs.options import Options, path_of, settings_of
from ocifs.registry.config.registries_conf import expand
from ocifs.registry.http.tls import is_loopback
from ocifs.registry.probe import Probe, probe_registry, try_source
from ocifs.settings import Settings
from ocifs.store.derived import DerivedFiles
from ocifs.store.disk import Disk
from ocifs.verbs.checks import (
    BAD,
    NOTE,
    OK,
    WARNING,
    Finding,
    cache,
    credentials,
    fuse,
    kernel,
    package,
    registries,
)

T = TypeVar("T")

# Tokens hold for minutes, and certificates are checked against the clock.
_MAX_SKEW = 30.0


def check_setup(source: str = "", **options: Unpack[Options]) -> list[Finding]:
    """The findings for this machine and, if given, a source. Blocks; not for an event loop."""
    parsed = None
    if source:
        conf = path_of(options.get("registries_conf"))
        parsed = parse_source(expand(source, os.environ, conf))
    settings = settings_of(hosts_of(parsed) if parsed else (), options)
    findings: list[Finding] = []

    async def run() -> None:
        findings.extend([finding async for finding in diagnose(parsed, settings)])

    run_to_end(run)
    return findings


async def diagnose(source: OneSource | None, settings: Settings) -> AsyncIterator[Finding]:
    """The findings for this machine and, if given, a source."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding(OK, "version", f"ocifs {__version__}, Python {version} ({sys.executable})")
    for finding in await in_thread(list, package()):
        yield finding
    local = (kernel, credentials, cache, registries)
    checks = (fuse(), *(check(settings) for check in local), _mounts())
    for check in checks:
        # The body of a generator runs in the thread that iterates, and these checks block.
        for finding in await in_thread(list, check):
            yield finding
    if isinstance(source, LayoutSource):
        async for finding in _local(source, settings):
            yield finding
    elif source is not None and settings.cache.offline:
        yield Finding(NOTE, "registry", f"{source.host} is not checked because of --offline")
    elif source is not None:
        async for finding in _registry(source.host, lambda: try_source(source, settings), settings):
            yield finding


def _mounts() -> Iterator[Finding]:
    for mount in mounts():
        state = mount_state(mount)
        # EACCES is the answer of another user's mount.
        if state not in ("answers", "EACCES"):
            todo = f"ocifs umount {mount.mountpoint}, or mount there again"
            yield Finding(WARNING, "mount", f"{mount.mountpoint} ({mount.source}) is {state}", todo)


async def _local(source: LayoutSource, settings: Settings) -> AsyncIterator[Finding]:
    result = await _outcome(lambda: _images_and_notes(source, settings), settings)
    if isinstance(result, OcifsError):
        todo = result.hint or "check the path and its permissions"
        yield Finding(BAD, "source", str(result), todo)
        return
    names, notes = result
    count = f"{len(names)} image{'s' * (len(names) != 1)}"
    text = f"{source} is on this machine and contains {count}: no registry is used"
    yield Finding(OK, "source", text)
    for note in notes:
        todo = "other tools may reject it, or read another image"
        yield Finding(WARNING, "source", note, todo)


async def _images_and_notes(
    source: LayoutSource, settings: Settings
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of a local source's images, and notes about irregularities."""
    disk = await in_thread(Disk, settings.cache.directory)
    async with trio.open_nursery() as nursery:
        layout = await Layout.open(source, nursery, settings, DerivedFiles(disk))
        result = (await layout.names()).shown, await layout.notes()
        # Verifications of the layout may still run in the nursery, and nothing waits for them.
        nursery.cancel_scope.cancel()
    return result


async def _registry(
    host: str, ask: Callable[[], Awaitable[str]], settings: Settings
) -> AsyncIterator[Finding]:
    probe = await _outcome(lambda: probe_registry(host, settings), settings)
    if isinstance(probe, OcifsError):
        todo = probe.hint or f"check the network: curl -v https://{host}/v2/"
        yield Finding(BAD, "registry", str(probe), todo)
        return
    for finding in _about(host, probe):
        yield finding
    answer = await _outcome(ask, settings)
    if not isinstance(answer, OcifsError):
        yield Finding(OK, "source", answer)
        return
    todo = answer.hint
    if isinstance(answer, AccessDenied) and not todo:
        todo = f"log in: skopeo login {host}; the credentials found are listed above"
    yield Finding(BAD, "source", str(answer), todo or "check the name: `ocifs ls` lists the names")


def _about(host: str, probe: Probe) -> Iterator[Finding]:
    scheme = probe.auth_scheme
    wants = f", requires {scheme} credentials" if scheme else ""
    text = f"{probe.origin} answers {probe.status} in {probe.seconds:.3f} s{wants}"
    if probe.status in (200, 401):
        yield Finding(OK, "registry", text)
    else:
        todo = "a registry answers 200 or 401 at /v2/: check for a proxy, or another service"
        yield Finding(WARNING, "registry", text, todo)
    if probe.origin.startswith("http:"):
        level = OK if is_loopback(host) else WARNING
        yield Finding(level, "tls", "the connection is not encrypted (plain HTTP)")
    else:
        yield Finding(OK, "tls", "the certificate is trusted")
    if probe.skew is not None:
        yield _clock(probe.skew)


def _clock(skew: float) -> Finding:
    if not skew:
        return Finding(OK, "clock", "the registry's clock agrees with this machine's")
    direction = "ahead of" if skew > 0 else "behind"
    text = f"the registry's clock is {abs(skew):.0f} s {direction} this machine's"
    if abs(skew) <= _MAX_SKEW:
        return Finding(OK, "clock", text)
    todo = "set the clock (timedatectl set-ntp true): tokens and certificates expire"
    return Finding(WARNING, "clock", text, todo)


async def _outcome(ask: Callable[[], Awaitable[T]], settings: Settings) -> T | OcifsError:
    """The result of a request, or its error."""
    try:
        with ungrouped(), trio.move_on_after(settings.timing.timeout):
            return await ask()
    except OcifsError as error:
        return error
    return DeadlineExceeded(f"no answer within {settings.timing.timeout:g} s")
