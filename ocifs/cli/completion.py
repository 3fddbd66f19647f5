"""`ocifs completion`: the script that makes a shell complete, and the answers that the shell then
asks for.

Rules that hold here: an answer is words or nothing: no error, no message, within SECONDS; bash,
which splits words at colons, is given what follows the last one; what more is to follow (a host, a
namespace) gets no space after it.
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
"""After which an answer is given up, whatever hangs: a home directory on a dead server, too."""

# Each script runs the program that the PATH has at an absolute place, and not the word on the
# command line: with `./ocifs <TAB>` in a directory of somebody else that would be their program.
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
    done < <(COMP_WORDS="${COMP_LINE:0:COMP_POINT}" OCIFS_BREAKS="$COMP_WORDBREAKS" %(complete_var)s=bash_complete "$program" 2>/dev/null)
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
    done < <(COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) %(complete_var)s=zsh_complete ${commands[%(prog_name)s]} 2>/dev/null)
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
    set -l response (env %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp) COMP_CWORD=(commandline -t) $program 2>/dev/null)
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
    """Offers no name that would act on the terminal: shells write candidates as they are."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        return [
            item
            for item in super().get_completions(args, incomplete)
            if str(item.value).isprintable()
        ]


class Bash(Printable, BashComplete):
    """The line up to the cursor, in which references are still whole."""

    source_template = _BASH

    @staticmethod
    def _check_version() -> None:
        """A package is built where another bash may be; the script needs 4.4."""

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)[1:]
        incomplete = "" if line[-1:].isspace() or not words else words.pop()
        return words, incomplete

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """What follows the last character at which bash splits words."""
        breaks = set(os.environ.get("OCIFS_BREAKS", "")) & set(":=@")
        begins = max((incomplete.rfind(each) for each in breaks), default=-1) + 1
        found = super().get_completions(args, incomplete)
        for item in found:
            if begins and item.value.startswith(incomplete[:begins]):
                item.value = item.value[begins:]
        return found


class Zsh(Printable, ZshComplete):
    """One candidate a line."""

    source_template = _ZSH

    def format_completion(self, item: CompletionItem) -> str:
        return f"{item.type},{item.value}"


class FishComplete(Printable, Fish):
    """fish asks for plain candidates, and writes no space after a slash or a colon by itself."""

    source_template = _FISH

    def format_completion(self, item: CompletionItem) -> str:
        kind = "plain" if item.type == "open" else item.type
        return f"{kind},{item.value}"


SHELLS: dict[str, type[ShellComplete]] = {"bash": Bash, "zsh": Zsh, "fish": FishComplete}


@click.command("completion")
@click.argument("shell", type=click.Choice(list(SHELLS)))
def command(shell: str) -> None:
    """Print the script that makes SHELL complete commands, options, repositories, tags and paths.

    \b
        eval "$(ocifs completion bash)"                                    # in ~/.bashrc eval
        "$(ocifs completion zsh)"                                     # in ~/.zshrc, after compinit
        ocifs completion fish > ~/.config/fish/completions/ocifs.fish
    """
    click.echo(script(shell), nl=False)


def script(shell: str) -> str:
    """The script for a shell."""
    return SHELLS[shell](click.Command("ocifs"), {}, "ocifs", VARIABLE).source()


def answer(group: click.Group, asked: str) -> NoReturn:
    """Answer a shell that asks, and end. `asked`: SHELL_complete."""
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.alarm(SECONDS)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        shell = SHELLS[asked.partition("_")[0]](group, {}, "ocifs", VARIABLE)
        sys.stdout.buffer.write(shell.complete().encode(errors="surrogateescape") + b"\n")
        sys.stdout.flush()
    except Exception:  # noqa: S110 (whatever it is: a person is in the middle of a line)
        pass
    os._exit(0)  # a thread may still wait for a name server
