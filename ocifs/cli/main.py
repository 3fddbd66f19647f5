"""The `ocifs` command: its subcommands, and how errors end it.

- A subcommand's module is imported when it is used, so that `ocifs --help` is fast.
- An OcifsError ends the command with one message and, if there is one, a hint.
- Exit statuses are those of docs/reference/cli.md.
"""

from __future__ import annotations

import importlib
import os
import resource
import sys
from typing import TYPE_CHECKING

import click

from ocifs.cli import errors
from ocifs.cli.terminal import write
from ocifs.errors import OcifsError, UsageError
from ocifs.programs import exclude_current_directory
from ocifs.startup import collect_from_now

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# The sections of --help, each with its commands: name, module and summary. The summaries are here
# so that --help imports no module.
SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Mounts": {
        "mount": ("ocifs.cli.mount", "Mount a registry, repository, image or local source."),
        "refresh": ("ocifs.cli.refresh", "Show tags that were pushed or deleted a moment ago."),
        "umount": ("ocifs.cli.umount", "Unmount, even if the daemon has died."),
        "status": ("ocifs.cli.status", "Show the mounts of this machine and their state."),
    },
    "Without a mount": {
        "ls": ("ocifs.cli.ls", "List a path of a source without mounting it."),
        "tags": ("ocifs.cli.tags", "List the tags of a repository."),
        "tree": ("ocifs.cli.tree", "Show the tree below a path of a source."),
        "cat": ("ocifs.cli.cat", "Write files of a source to standard output."),
        "inspect": ("ocifs.cli.inspect", "Show a manifest's kind and how it was determined."),
        "find": ("ocifs.cli.find", "Find artifacts by kind, or images by a path in them."),
        "prefetch": ("ocifs.cli.prefetch", "Fetch files into the cache before they are read."),
        "export": ("ocifs.cli.export", "Export an image or artifact as an OCI image layout."),
    },
    "Setup": {
        "cache": ("ocifs.cli.cache", "Inspect, verify, pin and clear the cache."),
        "config": ("ocifs.cli.config_show", "Show the configuration and its sources."),
        "doctor": ("ocifs.cli.doctor", "Check FUSE, permissions, credentials and the cache."),
        "login": ("ocifs.cli.other_commands:login_command", "Show how to log in."),
        "logout": ("ocifs.cli.other_commands:logout_command", "Show how to log out."),
        "completion": ("ocifs.cli.completion", "Print a completion script for a shell."),
        "help": ("ocifs.cli.other_commands:help_command", "Show the help of a command."),
        "version": ("ocifs.cli.other_commands:version_command", "Show the version."),
    },
}
COMMANDS = {name: found for section in SECTIONS.values() for name, found in section.items()}


class Commands(click.Group):
    """The subcommands, each imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        # click's own method would import every command for its help text.
        return [
            CompletionItem(name, help=text)
            for name, (_, text) in COMMANDS.items()
            if name.startswith(incomplete)
        ]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute or "command")
        assert isinstance(command, click.Command)
        collect_from_now()
        # Imported here because it imports the settings, which would slow down --help.
        from ocifs.cli.options import configurable

        if configurable(command):
            from ocifs.cli import config

            loaded = config.load(config.options_of_mount)
            ctx.obj = loaded
            subcommands = command.commands if isinstance(command, click.Group) else ()
            # click passes to each subcommand the part of the map below its name.
            ctx.default_map = {
                cmd_name: {**loaded.defaults(), **{name: loaded.defaults() for name in subcommands}}
            }
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            from ocifs.cli.other_commands import ELSEWHERE

            hint = ELSEWHERE.get(name) or errors.nearest(name, COMMANDS, shown=len(COMMANDS))
            raise UsageError(f"unknown command: {name}", hint=hint)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in commands.items()])


def show_version(ctx: click.Context, _: click.Parameter, requested: bool) -> None:
    """Print the version."""
    if requested and not ctx.resilient_parsing:
        from ocifs import __version__

        write(f"ocifs, version {__version__}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-V",
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=show_version,
    help="Show the version and exit.",
)
def group() -> None:
    """Mount container registries as read-only filesystems.

    Repositories, tags, manifests and layers are files and directories, which ls, cat, cp, diff and
    every other program can read:

    \b
        ocifs mount registry.example.com /mnt/reg
        ls /mnt/reg/team/app/_tags
        cat /mnt/reg/team/app:v1/summary.txt
        ocifs umount /mnt/reg
    """


def main() -> None:
    """Run the command line. The only place where errors become messages and exit statuses."""
    exclude_current_directory()
    # Files and directories that ocifs creates are never writable for others.
    # os.umask returns the old mask only when it sets another one.
    os.umask(os.umask(0o077) | 0o022)
    # A core dump would contain credentials.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if request := os.environ.get("_OCIFS_COMPLETE"):
        from ocifs.cli.completion import answer

        answer(group, request)
    sys.excepthook = errors.show_crash
    try:
        # In standalone mode, click prints its errors itself and chooses the exit status.
        status = group(prog_name="ocifs", standalone_mode=False)
    except click.ClickException as error:
        if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
            error.show()  # The help. click 8.1 prints it itself.
        else:
            errors.fail_usage(error)
        sys.exit(errors.status_of(error))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(errors.INTERRUPTED)
    except BrokenPipeError:
        # `ocifs ls … | head`: Python flushes standard output once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(errors.FAILURE)
    except OcifsError as error:
        errors.fail(error)
        sys.exit(errors.status_of(error))
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
