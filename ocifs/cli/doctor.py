"""`ocifs doctor`: check this machine and a source, and print the problems with their remedies.

Each finding is a line, with a second line for what to do. Only findings of the level `bad` make the
exit status 1.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Unpack

import click

from ocifs.app import run_to_end
from ocifs.cli.options import SourceCommand, shared, verbosity
from ocifs.cli.param_types import SOURCE, json_option
from ocifs.cli.terminal import coloured, write, write_lines
from ocifs.oci.reference import hosts_of, parse_source
from ocifs.options import Options, path_of, settings_of
from ocifs.registry.config.registries_conf import expand
from ocifs.telemetry import log_commands
from ocifs.verbs.checks import BAD, OK, WARNING, Finding
from ocifs.verbs.doctor import diagnose

_COLOURS = {OK: "green", WARNING: "yellow", BAD: "red"}


@click.command("doctor", cls=SourceCommand)
@click.argument("source", required=False, type=SOURCE)
@json_option
@shared
def command(source: str | None, as_json: bool, **options: Unpack[Options]) -> int:
    """Check FUSE, permissions, credentials and the cache.

    With SOURCE, also check whether its registry answers and whether it can be read.

    \b
        ocifs doctor
        ocifs doctor registry.example.com/team/app:v1

    The exit status is 1 if a problem was found that prevents mounts.
    """
    parsed = (
        parse_source(expand(source, os.environ, path_of(options.get("registries_conf"))))
        if source
        else None
    )
    settings = settings_of((hosts_of(parsed) if parsed else ()), options)
    log_commands(verbosity())
    findings: list[Finding] = []

    async def run() -> None:
        async for finding in diagnose(parsed, settings):
            findings.append(finding)
            if not as_json:
                _show(finding)

    run_to_end(run)
    problems = sum(finding.level == BAD for finding in findings)
    if as_json:
        rows = [
            {"level": f.level, "topic": f.topic, "text": f.text, "todo": f.todo} for f in findings
        ]
        write_lines(json.dumps(rows, indent=2))
    else:
        warnings = sum(finding.level == WARNING for finding in findings)
        write(f"{_count(problems, 'problem')}, {_count(warnings, 'warning')}")
    return 1 if problems else 0


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'s' if number != 1 else ''}"


def _show(finding: Finding) -> None:
    level = coloured(f"{finding.level:<8}", _COLOURS.get(finding.level, ""), sys.stdout)
    write(level, f" {finding.topic}: {finding.text}")
    if finding.todo:
        write(f"         -> {finding.todo}")
