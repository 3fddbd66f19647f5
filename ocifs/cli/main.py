"""The `ocifs` command: which subcommands there are, and where each lives.

Rules that hold here: a subcommand's module is imported when it is used, so that `ocifs --help`
answers at once; an error of ours ends the command with one message and, where we know one, a hint
on what to try; exit statuses are those of docs/reference/cli.md.
"""

from __future__ import annotations

import importlib
import os
import resource
import sys
from typing import TYPE_CHECKING

import click

from ocifs.cli import errors as failure
from ocifs.cli.terminal import write
from ocifs.errors import OcifsError, UsageError
from ocifs.programs import exclude_current_directory

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# name: (module, one line for --help). The line stands here so that listing them imports none of
# them.
COMMANDS = {
    "mount": (
        "ocifs.cli.mount",
        "Mount a registry, a part of one, or an image on disk as a directory.",
    ),
    "config": ("ocifs.cli.config_show", "Show the configuration, and where each value comes from."),
    "umount": ("ocifs.cli.umount", "End a mount, also one whose daemon has died."),
    "status": ("ocifs.cli.status", "Show the mounts of this machine and how they are."),
    "doctor": ("ocifs.cli.doctor", "Look for what keeps mounts from working, and say what to do."),
    "ls": ("ocifs.cli.ls", "List a path of a source without mounting it."),
    "cat": ("ocifs.cli.cat", "Write a file of a source to standard output without mounting it."),
    "inspect": ("ocifs.cli.inspect", "Say what a manifest is, and which field said so."),
    "find": ("ocifs.cli.find", "Find artifacts by what they are."),
    "prefetch": ("ocifs.cli.prefetch", "Fetch what is below paths of a source into the cache."),
    "export": ("ocifs.cli.export", "Write an image or artifact as an OCI image layout on disk."),
    "completion": ("ocifs.cli.completion", "Print the script that makes a shell complete."),
    "cache": ("ocifs.cli.cache", "Look at what is kept of registries, check it, pin it, clear it."),
    "tree": ("ocifs.cli.tree", "Show what is below a path of a source without mounting it."),
}


class Commands(click.Group):
    """The subcommands, imported when used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [
            CompletionItem(name, help=text)
            for name, (_, text) in COMMANDS.items()
            if name.startswith(incomplete)
        ]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[cmd_name][0]).command
        assert isinstance(command, click.Command)
        from ocifs.cli.options import (
            configurable,  # here: it brings the settings, and --help would take a third more
        )

        if configurable(command):
            from ocifs.cli import config
            from ocifs.cli.mount import command as mount

            loaded = config.load({each.name: each for each in mount.params if each.name})
            ctx.obj = loaded
            below = command.commands if isinstance(command, click.Group) else ()
            ctx.default_map = {
                cmd_name: {**loaded.defaults(), **{each: loaded.defaults() for each in below}}
            }
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            raise UsageError(f"there is no command {name}", hint=failure.nearest(name, COMMANDS))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def show_version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    """Write the version, which is looked up here and not whenever the command is run."""
    if asked and not ctx.resilient_parsing:
        from ocifs import __version__

        write(f"ocifs, version {__version__}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=show_version,
    help="Show the version and exit.",
)
def group() -> None:
    """A container registry as a filesystem.

    Mount a registry and every repository, tag, manifest and layer in it is a path that ls, cat, cp,
    diff and every other program can read:

    \b
        ocifs mount registry.example.com /mnt/reg
        ls /mnt/reg/team/app/_tags
        cat /mnt/reg/team/app:v1/summary.txt
        ocifs umount /mnt/reg
    """


def main() -> None:
    """Run the command line; the one place where errors become messages and exit statuses."""
    exclude_current_directory()
    os.umask(os.umask(0o077) | 0o022)  # what is made is never for others to write
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would have credentials in it
    if asked := os.environ.get("_OCIFS_COMPLETE"):
        from ocifs.cli.completion import answer

        answer(group, asked)
    sys.excepthook = failure.show_crash
    try:
        ended = group(prog_name="ocifs", standalone_mode=False)
    except click.ClickException as error:
        if isinstance(
            error, getattr(click.exceptions, "NoArgsIsHelpError", ())
        ):  # click 8.1 prints the help itself
            error.show()
        else:
            failure.fail_usage(error)
        sys.exit(failure.status_of(error))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(failure.INTERRUPTED)
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), 1
        )  # `ocifs ls … | head`: Python flushes once more at its end
        sys.exit(failure.FAILURE)
    except OcifsError as error:
        failure.fail(error)
        sys.exit(failure.status_of(error))
    sys.exit(ended if isinstance(ended, int) else 0)


if __name__ == "__main__":
    main()
