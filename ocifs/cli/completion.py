"""`ocifs completion`: the script for a shell, and the answers that the script requests.

- An answer is a list of words, possibly empty: no error and no message, within SECONDS.
- Answers are cached (docs/decisions/0321-cached-completions.md). An outdated one is the answer as
  well, and a detached process replaces it.
- bash splits words at colons, so it gets only the part after the last one.
- A candidate that continues (a host, a namespace) gets no space after it.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    ShellComplete,
    ZshComplete,
    split_arg_string,
)
from click.shell_completion import FishComplete as Fish

if TYPE_CHECKING:
    from ocifs.cli.completion_cache import CompletionCache
    from ocifs.cli.completion_key import CompletionKeys

VARIABLE = "_OCIFS_COMPLETE"
SECONDS = 4
"""The deadline of an answer, even if something hangs, such as a home directory on a dead server."""
_REFRESH_SECONDS = 10
"""The deadline of a process that replaces an outdated answer."""
_MAX_CANDIDATES = 2000

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


class CacheableItem(CompletionItem):
    """A candidate that can be cached: it may not start with the word, but has the same stem."""


class CachedComplete(ShellComplete):
    """Answers from the cache. Else it requests candidates and stores them.

    Drops names that would act on the terminal: shells print candidates unescaped.
    """

    def __init__(self, cli: click.Command, ctx_args: dict[str, object], prog: str, var: str):
        super().__init__(cli, ctx_args, prog, var)
        # The key, the words before and the word of an answer from the cache that is outdated.
        self._outdated: tuple[str, list[str], str] | None = None

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        keys = _keys(args)
        if keys is not None:
            # The word itself has an answer if it is complete and can be continued, like a
            # repository by its tags.
            for word in dict.fromkeys((incomplete, stem(incomplete))):
                items = self._cached(keys.key(word), args, incomplete, is_own=word == incomplete)
                if items:
                    return items
        return self._requested(args, incomplete)[0]

    def _cached(
        self, key: str, args: list[str], incomplete: str, *, is_own: bool
    ) -> list[CompletionItem]:
        cached = _cache().find(key)
        if cached is None:
            return []
        known: list[CompletionItem] = [
            CacheableItem(word, type=kind) for word, kind in cached.words
        ]
        items = _offered(known, incomplete)
        if not is_own and _is_complete(items, incomplete):
            return []
        if items and cached.outdated:
            self._outdated = (key, args, incomplete)
        return items

    def _requested(self, args: list[str], incomplete: str) -> tuple[list[CompletionItem], str]:
        """The candidates, and the key under which they were stored, if they were."""
        keys = _keys(args)
        items = [
            item
            for item in super().get_completions(args, incomplete)
            if str(item.value).isprintable()
        ]
        offered = _offered(items, incomplete)
        is_option = incomplete.startswith("-") and all(item.value[:1] == "-" for item in items)
        if keys is None or not (
            is_option or all(isinstance(item, CacheableItem) for item in items)
        ):
            return offered, ""
        own, common = keys.key(incomplete), keys.key(stem(incomplete))
        # Credentials that changed meanwhile: it is unknown which of them saw the names.
        current = _keys(args)
        if not offered or current is None or current.key(incomplete) != own:
            return offered, ""
        if not is_option and not _is_complete(offered, incomplete) and self._store(common, items):
            return offered, common
        return offered, own if self._store(own, offered) else ""

    def _store(self, key: str, items: list[CompletionItem]) -> bool:
        return _cache().store(key, [(item.value, item.type) for item in items])

    def refresh(self) -> None:
        """Replace the answer that was outdated, in a detached process.

        The caller is the only thread, and exits now: the new process is not its zombie.
        """
        if self._outdated is None:
            return
        key, args, incomplete = self._outdated
        lock = _cache().lock_outdated(key)
        if lock is None or os.fork():
            return
        _detach(lock)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_REFRESH_SECONDS)
        stored = self._requested(args, incomplete)[1]
        if stored and stored != key:
            _cache().remove(key)


def _cache() -> CompletionCache:
    # Imported here because names of commands do not need it.
    from ocifs.cli.completion_cache import CompletionCache

    return CompletionCache.of_user(os.environ)


def _keys(args: list[str]) -> CompletionKeys | None:
    """The keys of a command line, or None if its candidates are not cached."""
    # Without words before, it is the name of a command: quicker than the cache.
    if not args:
        return None
    from ocifs.cli.completion_key import CompletionKeys

    try:
        return CompletionKeys(args, os.environ)
    except OSError:
        return None


def stem(word: str) -> str:
    """A word up to its last slash or colon. Words with the same stem share a listing."""
    return word[: max(word.rfind("/"), word.rfind(":")) + 1]


def _offered(items: list[CompletionItem], incomplete: str) -> list[CompletionItem]:
    """The candidates for a word, among those for its stem."""
    return [
        item
        for item in items
        if not isinstance(item, CacheableItem) or item.value.startswith(incomplete)
    ][:_MAX_CANDIDATES]


def _is_complete(items: list[CompletionItem], word: str) -> bool:
    """Whether a word is a complete name, so that other candidates may follow it."""
    return stem(word) != word and word in [item.value for item in items]


def _detach(kept: int) -> None:
    """Leave the session of the shell, and close all files but one."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    # The shell waits until its pipe is closed.
    for descriptor in range(3):
        os.dup2(null, descriptor)
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))


class Bash(CachedComplete, BashComplete):
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


class Zsh(CachedComplete, ZshComplete):
    """Prints one candidate per line."""

    source_template = _ZSH

    def format_completion(self, item: CompletionItem) -> str:
        return f"{item.type},{item.value}"


class FishComplete(CachedComplete, Fish):
    """Prints plain candidates: fish adds no space after a slash or colon."""

    source_template = _FISH

    def format_completion(self, item: CompletionItem) -> str:
        kind = "plain" if item.type == "open" else item.type
        return f"{kind},{item.value}"


SHELLS: dict[str, type[CachedComplete]] = {"bash": Bash, "zsh": Zsh, "fish": FishComplete}


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
    # Ctrl-C ends it at once. Files that are being written are temporary files.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.alarm(SECONDS)
    # A warning of a library would appear in the line that the user is typing.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        shell = SHELLS[request.partition("_")[0]](group, {}, "ocifs", VARIABLE)
        sys.stdout.buffer.write(shell.complete().encode(errors="surrogateescape") + b"\n")
        sys.stdout.flush()
        shell.refresh()
    except Exception:  # noqa: S110 (the user is in the middle of a line)
        pass
    # Not sys.exit, which would wait for threads that wait for a name server.
    os._exit(0)
