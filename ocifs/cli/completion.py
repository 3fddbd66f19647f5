"""`ocifs completion`: the script for a shell, and the answers that the script requests.

- An answer is a list of words, possibly empty: no error and no message, within SECONDS.
- bash splits words at colons, so it gets only the part after the last one.
- A candidate that continues (a host, a namespace) gets no space after it.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    ShellComplete,
    ZshComplete,
    split_arg_string,
)
from click.shell_completion import FishComplete as Fish

VARIABLE = "_OCIFS_COMPLETE"
SECONDS = 4
"""The deadline of an answer, even if something hangs, such as a home directory on a dead server."""

# Each script runs the program at an absolute path in the PATH, not the word on the command line.
# With `./ocifs <TAB>` in another user's directory, that word would be their program.

_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' kind value last="" program
    COMPREPLY=()
    program=$(type -P %(prog_name)s) && [[ $program == /* ]] || return
    while IFS=, read -r kind value; do
        case $kind in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            *) printf -v value %%q "$value"; COMPREPLY+=("$value"); last=$kind ;;
        esac
    done < <(COMP_WORDS="${COMP_LINE:0:COMP_POINT}" OCIFS_BREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$program" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && $last == open ]]; then compopt -o nospace; fi
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

_ZSH = """\
#compdef %(prog_name)s
%(complete_func)s() {
    local -a plain more
    local kind key
    [[ ${commands[%(prog_name)s]-} == /* ]] || return 1
    while IFS=, read -r kind key; do
        case $kind in
            dir) _path_files -/ ;;
            file) _path_files -f ;;
            open) more+=("$key") ;;
            *) plain+=("$key") ;;
        esac
    done < <(COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) %(complete_var)s=zsh_complete \\
        ${commands[%(prog_name)s]} 2>/dev/null)
    (( $#more )) && compadd -U -S '' -V more -a more
    (( $#plain )) && compadd -U -V plain -a plain
    return 0
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""


_FISH = """\
function %(complete_func)s
    set -l program (command -s %(prog_name)s)
    string match -q '/*' -- $program; or return
    set -l response (env %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp) \\
        COMP_CWORD=(commandline -t) $program 2>/dev/null)
    for completion in $response
        set -l metadata (string split -m 1 "," $completion)
        switch $metadata[1]
            case dir
                __fish_complete_directories $metadata[2]
            case file
                __fish_complete_path $metadata[2]
            case plain
                echo $metadata[2]
        end
    end
end
complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


class Printable(ShellComplete):
    """Drops names that would act on the terminal: shells print candidates unescaped."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        return [
            item
            for item in super().get_completions(args, incomplete)
            if str(item.value).isprintable()
        ]


class Bash(Printable, BashComplete):
    """Completes the line up to the cursor, in which references are not split at colons."""

    source_template = _BASH

    @staticmethod
    def _check_version() -> None:
        """Skip click's check: the script needs bash 4.4, but packages are built with any bash."""

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)[1:]
        incomplete = "" if line[-1:].isspace() or not words else words.pop()
        return words, incomplete

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """The part of each candidate after the last character at which bash splits words."""
        # The other word breaks of bash, such as blanks and quotes, do not occur within a word.
        breaks = set(os.environ.get("OCIFS_BREAKS", "")) & set(":=@")
        start = max((incomplete.rfind(character) for character in breaks), default=-1) + 1
        items = super().get_completions(args, incomplete)
        for item in items:
            if start and item.value.startswith(incomplete[:start]):
                item.value = item.value[start:]
        return items


class Zsh(Printable, ZshComplete):
    """Prints one candidate per line."""

    source_template = _ZSH

    def format_completion(self, item: CompletionItem) -> str:
        return f"{item.type},{item.value}"


class FishComplete(Printable, Fish):
    """Prints plain candidates: fish adds no space after a slash or colon."""

    source_template = _FISH

    def format_completion(self, item: CompletionItem) -> str:
        kind = "plain" if item.type == "open" else item.type
        return f"{kind},{item.value}"


SHELLS: dict[str, type[ShellComplete]] = {"bash": Bash, "zsh": Zsh, "fish": FishComplete}


@click.command("completion")
@click.argument("shell", type=click.Choice(list(SHELLS)))
def command(shell: str) -> None:
    """Print a completion script for a shell.

    It completes commands, options, hosts, repositories, tags and paths.

    \b
        eval "$(ocifs completion bash)"                  # in ~/.bashrc
        eval "$(ocifs completion zsh)"                   # in ~/.zshrc, after compinit
        ocifs completion fish > ~/.config/fish/completions/ocifs.fish
    """
    click.echo(script(shell), nl=False)


def script(shell: str) -> str:
    """The script for a shell."""
    return SHELLS[shell](click.Command("ocifs"), {}, "ocifs", VARIABLE).source()


def answer(group: click.Group, request: str) -> NoReturn:
    """Print the candidates for a shell, and exit. `request` is SHELL_complete."""
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.alarm(SECONDS)
    # A warning of a library would appear in the line that the user is typing.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        shell = SHELLS[request.partition("_")[0]](group, {}, "ocifs", VARIABLE)
        sys.stdout.buffer.write(shell.complete().encode(errors="surrogateescape") + b"\n")
        sys.stdout.flush()
    except Exception:  # noqa: S110 (the user is in the middle of a line)
        pass
    # Not sys.exit, which would wait for threads that wait for a name server.
    os._exit(0)
