"""`ocifs doctor`: why it does not work, and what to do.

Rules that hold here: each finding is one line, with a second one that says what to do where
something is to be done; only what keeps a mount from working makes the exit status 1; every
question has a deadline.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar, Unpack

import click
import trio

from ocifs import __version__
from ocifs.app import look_at_layout, run_to_end
from ocifs.cli.checks import BAD, NOTE, OK, WARNING, Finding, cache, credentials, fuse, registries
from ocifs.cli.options import SharedOptions, settings_from, shared
from ocifs.cli.param_types import SOURCE
from ocifs.cli.terminal import coloured, write, write_lines
from ocifs.errors import AccessDenied, DeadlineExceeded, OcifsError
from ocifs.fuse.mounts import mounts, state_of
from ocifs.oci.local import LayoutSource
from ocifs.oci.reference import OneSource, hosts_of, parse_source
from ocifs.registry.config.registries_conf import expand
from ocifs.registry.probe import Probe, knock, question
from ocifs.settings import Settings
from ocifs.telemetry import log_warnings

T = TypeVar("T")

_COLOURS = {OK: "green", WARNING: "yellow", BAD: "red"}
# Tokens hold for minutes, and certificates are checked against the clock.
_SKEW = 30.0


@click.command("doctor")
@click.argument("source", required=False, type=SOURCE)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@shared
def command(source: str | None, as_json: bool, **options: Unpack[SharedOptions]) -> int:
    """Look for what keeps mounts from working: FUSE, permissions, credentials, the cache and, with
    SOURCE, its registry.

    \b
        ocifs doctor
        ocifs doctor registry.example.com/team/app:v1

    The exit status is 1 where something is wrong that must be put right.
    """
    parsed = (
        parse_source(expand(source, os.environ, options["registries_conf"])) if source else None
    )
    settings = settings_from(options, *(hosts_of(parsed) if parsed else ()))
    log_warnings()
    found: list[Finding] = []
    for finding in findings(parsed, settings):
        found.append(finding)
        if not as_json:
            _show(finding)
    bad = sum(finding.level == BAD for finding in found)
    if as_json:
        rows = [{"level": f.level, "topic": f.topic, "text": f.text, "todo": f.todo} for f in found]
        write_lines(json.dumps(rows, indent=2))
    else:
        warnings = sum(finding.level == WARNING for finding in found)
        write(f"{bad} to put right, {warnings} to look at" if bad or warnings else "all is well")
    return 1 if bad else 0


def _show(finding: Finding) -> None:
    level = coloured(f"{finding.level:<8}", _COLOURS.get(finding.level, ""), sys.stdout)
    write(level, f" {finding.topic}: {finding.text}")
    if finding.todo:
        write(f"         -> {finding.todo}")


def findings(source: OneSource | None, settings: Settings) -> Iterator[Finding]:
    """Everything that is looked at, as soon as it is known."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding(OK, "version", f"ocifs {__version__}, Python {version} ({sys.executable})")
    yield from fuse()
    yield from credentials(settings)
    yield from cache(settings)
    yield from registries(settings)
    for mount in mounts():
        state = state_of(mount.mountpoint)
        if state not in ("answers", "EACCES"):  # the latter is another user's, and well
            todo = f"ocifs umount {mount.mountpoint}, or mount there again"
            yield Finding(WARNING, "mount", f"{mount.mountpoint} ({mount.source}) is {state}", todo)
    if isinstance(source, LayoutSource):
        yield from _local(source, settings)
    elif source is not None and settings.cache.offline:
        yield Finding(NOTE, "registry", f"{source.host} is not asked, since --offline was given")
    elif source is not None:
        yield from _registry(source.host, lambda: question(source, settings), settings)


def _local(source: LayoutSource, settings: Settings) -> Iterator[Finding]:
    found = _outcome(lambda: look_at_layout(source, settings), settings)
    if isinstance(found, OcifsError):
        yield Finding(
            BAD, "source", str(found), found.hint or "is the path right, and may this user read it?"
        )
        return
    names, notes = found
    count = f"{len(names)} image{'s' * (len(names) != 1)}"
    yield Finding(
        OK, "source", f"{source} is on this machine and lists {count}: no registry is asked"
    )
    for note in notes:
        yield Finding(WARNING, "source", note, "other tools may refuse it, or find another image")


def _registry(
    host: str, ask: Callable[[], Awaitable[str]], settings: Settings
) -> Iterator[Finding]:
    probe = _outcome(lambda: knock(host, settings), settings)
    if isinstance(probe, OcifsError):
        yield Finding(
            BAD,
            "registry",
            str(probe),
            probe.hint or "is there a way to it from here? curl -v says more",
        )
        return
    yield from _about(host, probe)
    said = _outcome(ask, settings)
    if isinstance(said, OcifsError):
        todo = said.hint
        if isinstance(said, AccessDenied) and not todo:
            todo = (
                f"log in: skopeo login {host}; the lines about credentials above say what was found"
            )
        yield Finding(
            BAD, "source", str(said), todo or "is the name right? `ocifs ls` shows what is there"
        )
    else:
        yield Finding(OK, "source", said)


def _about(host: str, probe: Probe) -> Iterator[Finding]:
    wants = f", and wants {probe.wants} credentials" if probe.wants else ""
    text = f"{probe.origin} answers {probe.status} in {probe.seconds:.3f} s{wants}"
    if probe.status in (200, 401):
        yield Finding(OK, "registry", text)
    else:
        yield Finding(
            WARNING,
            "registry",
            text,
            "a registry answers 200 or 401 at /v2/: is this one, or a proxy before it?",
        )
    if probe.origin.startswith("http:"):
        yield Finding(WARNING if not _is_here(host) else OK, "tls", "it is spoken to without TLS")
    else:
        yield Finding(OK, "tls", "its certificate is trusted")
    if probe.skew is not None:
        bad = abs(probe.skew) > _SKEW
        text = f"its clock is {abs(probe.skew):.0f} s {'ahead of' if probe.skew > 0 else 'behind'} ours"
        todo = (
            "set this machine's clock (timedatectl set-ntp true): tokens and certificates hold for a time"
            if bad
            else ""
        )
        yield Finding(
            WARNING if bad else OK,
            "clock",
            text if probe.skew else "the registry's clock is ours",
            todo,
        )


def _is_here(host: str) -> bool:
    return (
        host.rpartition(":")[0].strip("[]") in ("localhost", "127.0.0.1", "::1")
        or host == "localhost"
    )


def _outcome(ask: Callable[[], Awaitable[T]], settings: Settings) -> T | OcifsError:
    """What a question gives, or its error."""
    found: list[T] = []

    async def run() -> None:
        with trio.move_on_after(settings.timing.timeout):
            found.append(await ask())

    try:
        run_to_end(run)
    except OcifsError as error:
        return error
    return (
        found[0] if found else DeadlineExceeded(f"no answer within {settings.timing.timeout:g} s")
    )
