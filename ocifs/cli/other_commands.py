"""`ocifs help`, `ocifs version`, and answers to commands of other tools: `login`, `pull`, `cp`.

ocifs stores no credentials, so `login` and `logout` name the command of an installed tool that does
(docs/decisions/0310-no-login-command.md).
"""

from __future__ import annotations

import shlex
import shutil

import click
from click.shell_completion import CompletionItem

from ocifs.cli.terminal import write
from ocifs.errors import UsageError

# Tools that store credentials where ocifs finds them, and the words before HOST.
_LOGINS = {
    "podman": "podman {} {}",
    "skopeo": "skopeo {} {}",
    "docker": "docker {} {}",
    "buildah": "buildah {} {}",
    "oras": "oras {} {}",
    "crane": "crane auth {} {}",
    "regctl": "regctl registry {} {}",
    "helm": "helm registry {} {}",
}

ELSEWHERE = {
    "pull": "fetch into the cache: `ocifs prefetch REFERENCE`; as a layout: `ocifs export`",
    "cp": "one file: `ocifs cat SOURCE PATH`; an image: `ocifs export REFERENCE oci:DIR`",
    "copy": "one file: `ocifs cat SOURCE PATH`; an image: `ocifs export REFERENCE oci:DIR`",
    "save": "ocifs export REFERENCE oci:DIR",
    "push": "ocifs only reads; use skopeo, oras or crane",
    "delete": "ocifs only reads; use skopeo, oras or crane",
    "rm": "ocifs only reads; to free space: `ocifs cache clear`",
    "tag": "ocifs only reads; `ocifs tags REPOSITORY` lists tags",
    "diff": "mount, then `diff -r MOUNTPOINT/APP:1/rootfs MOUNTPOINT/APP:2/rootfs`",
    "manifest": "ocifs cat REFERENCE manifest.json",
    "digest": "ocifs cat REFERENCE digest",
    "blob": "ocifs cat HOST/REPOSITORY _blobs/DIGEST",
    "catalog": "ocifs ls HOST",
    "repos": "ocifs ls HOST",
    "list": "ocifs ls SOURCE, or `ocifs tags REPOSITORY`",
    "list-tags": "ocifs tags REPOSITORY",
    "discover": "ocifs ls REFERENCE referrers",
    "referrers": "ocifs ls REFERENCE referrers",
    "search": "ocifs find HOST --kind KIND, or --path GLOB",
    "unmount": "ocifs umount MOUNTPOINT",
    "mounts": "ocifs status",
    "du": "ocifs tags -l REPOSITORY; the cache: `ocifs cache list`",
    "prune": "ocifs cache gc",
    "gc": "ocifs cache gc",
    "reload": "ocifs refresh MOUNTPOINT",
    "lsjson": "ocifs ls --json SOURCE",
    "lsl": "ocifs ls -l SOURCE",
    "run": "mount with --view rootfs, then use chroot or bwrap",
}
"""What to use for commands that ocifs does not have."""


def _commands(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Candidates for the first word of `ocifs help`."""
    parent = context.parent
    if parent is None or context.params.get("words"):
        return []
    return parent.command.shell_complete(parent, incomplete)


@click.command("help")
@click.argument("words", metavar="[COMMAND]...", nargs=-1, shell_complete=_commands)
@click.pass_context
def help_command(context: click.Context, words: tuple[str, ...]) -> None:
    """Show the help of ocifs, or of a command.

    \b
        ocifs help mount
        ocifs help cache pin
    """
    current = context.parent
    assert current is not None
    for word in words:
        group = current.command
        command = None
        if isinstance(group, click.Group):
            # Raises an error with a hint for an unknown command.
            command = group.resolve_command(current, [word])[1]
        if command is None:
            raise UsageError(f"{current.command_path} has no commands", hint="ocifs help")
        current = click.Context(command, info_name=word, parent=current)
    write(current.get_help())


@click.command("version")
def version_command() -> None:
    """Show the version."""
    from ocifs import __version__

    write(f"ocifs, version {__version__}")


def _refusal(verb: str, host: str | None) -> UsageError:
    """The error that names the command of another tool."""
    place = shlex.quote(host) if host else "HOST"
    installed = [name for name in _LOGINS if shutil.which(name)]
    commands = [f"`{_LOGINS[name].format(verb, place)}`" for name in installed or _LOGINS]
    return UsageError(
        f"ocifs stores no credentials, but uses those of other tools: cannot {verb}",
        hint=f"use {' or '.join(commands[:3])}; or --authfile, or OCIFS_PASSWORD_FILE",
    )


def _login_command(verb: str) -> click.Command:
    @click.command(
        verb, context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
    )
    @click.argument("words", metavar="[HOST]", nargs=-1, type=click.UNPROCESSED)
    def command(words: tuple[str, ...]) -> None:
        # The host is the last word: options, and their values, are those of another tool.
        host = words[-1] if words and not words[-1].startswith("-") else None
        raise _refusal(verb, host)

    command.help = (
        f"Show how to log {verb.removeprefix('log')} with another tool.\n\n"
        "ocifs uses the credentials that docker, podman, skopeo, oras and crane store."
    )
    return command


login_command = _login_command("login")
logout_command = _login_command("logout")
