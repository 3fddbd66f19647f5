"""Write the manual pages ocifs(1), mount.ocifs(8) and ocifs.toml(5) from click's commands.

    python -m scripts.make_man DIRECTORY [--version VERSION]

Rules that hold here:
- Commands, options, defaults and help texts come from click's commands, and are not repeated here.
- The pages are in the format of man(7), and man(1) prints no warning for them.
- They have no date, so two builds of one version are the same.
"""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import click

from ocifs import __version__
from ocifs.cli.main import COMMANDS, group
from ocifs.cli.mount import command as mount
from ocifs.cli.mount_helper import FAILED, INVALID_USAGE
from ocifs.cli.mount_options import IGNORED, PREFIXES
from ocifs.cli.options import SecondsType

ROFF = str.maketrans(
    {"\\": "\\e", "-": "\\-", "'": "\\(aq", "^": "\\(ha", "~": "\\(ti", "`": "\\(ga"}
)
VERSION = "@VERSION@"
_CODE = re.compile(r"`([^`]+)`")

STATUSES = (
    ("0", "Success."),
    ("1", "Failure: the registry, the network, a missing path, corrupt content."),
    (
        "2",
        "The command cannot be executed: an unknown option, an invalid reference, not a mount.",
    ),
    ("130", "Ctrl-C."),
)
VARIABLES = (
    ("OCIFS_CONFIG", "The only configuration file that is read, see ocifs.toml(5)."),
    (
        "OCIFS_USERNAME, OCIFS_PASSWORD_FILE",
        "A user name, and a file with the password, for the host of the source only.",
    ),
    ("REGISTRY_AUTH_FILE, DOCKER_CONFIG, XDG_RUNTIME_DIR", "Locations of credentials files."),
    ("CONTAINERS_REGISTRIES_CONF", "A containers-registries.conf(5) in place of the usual one."),
    ("SSL_CERT_FILE", "CA certificates in place of the system's (PEM file)."),
    ("http_proxy, https_proxy, all_proxy, no_proxy", "Proxies, as in curl(1)."),
    ("NO_COLOR, CLICOLOR_FORCE", "No colours, or colours also in pipes."),
)
FILES = (
    (
        "/etc/ocifs/config.toml, ~/.config/ocifs/config.toml",
        "Options and named mounts, see ocifs.toml(5).",
    ),
    ("~/.cache/ocifs", "The cache, shared by the mounts of a user."),
    ("MOUNTPOINT/.ocifs/errors", "The last errors of a mount, with their messages."),
    ("MOUNTPOINT/.ocifs/status.json", "The status of a mount, as ocifs status shows it."),
)


def text(words: str) -> str:
    """Text for roff: escaped, with code in backticks in bold."""
    parts = _CODE.split(" ".join(words.split()))
    marked = "".join(
        f"\\fB{part.translate(ROFF)}\\fR" if n % 2 else part.translate(ROFF)
        for n, part in enumerate(parts)
    )
    return f"\\&{marked}" if marked.startswith((".", "\\(aq")) else marked


def item(term: str, words: str) -> str:
    """A term with its description."""
    return f".TP\n\\fB{text(term)}\\fR\n{text(words)}\n"


def prose(words: str) -> str:
    """The paragraphs of a help text. One that begins with click's mark is preformatted."""
    made = []
    for paragraph in re.split(r"\n\s*\n", words.strip()):
        if not paragraph.lstrip().startswith("\b"):
            made.append(f".PP\n{text(paragraph)}\n")
            continue
        lines = [
            line.strip().translate(ROFF) for line in paragraph.splitlines() if line.strip(" \b")
        ]
        made.append(".PP\n.RS\n.nf\n" + "".join(f"\\&{line}\n" for line in lines) + ".fi\n.RE\n")
    return "".join(made)


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command and subcommand, by its full name, without the configuration file."""
    for name, (place, _) in COMMANDS.items():
        module, _, attribute = place.partition(":")
        command = getattr(importlib.import_module(module), attribute or "command")
        if not isinstance(command, click.Group):
            yield name, command
            continue
        yield from ((f"{name} {below}", inner) for below, inner in command.commands.items())


def records(command: click.Command) -> dict[str, str]:
    """The options of a command, with their values, and their help texts."""
    context = click.Context(command)
    found = [
        option.get_help_record(context)
        for option in command.params
        if isinstance(option, click.Option)
    ]
    return dict(record for record in found if record is not None)


def common() -> dict[str, str]:
    """The options of both `ocifs ls` and `ocifs mount`, which all commands about a source have."""
    ls = records(dict(commands())["ls"])
    return {term: words for term, words in records(mount).items() if ls.get(term) == words}


def head(name: str, section: int, what: str) -> str:
    title = f'.TH "{name.upper()}" "{section}" "" "ocifs {VERSION}" "ocifs"\n.nh\n.ad l\n'
    return f"{title}.SH NAME\n{name} \\- {text(what)}\n"


def ocifs_1() -> str:
    """The page ocifs(1)."""
    assert group.help is not None
    shared = common()
    page = head("ocifs", 1, "a container registry as a read-only filesystem")
    page += ".SH SYNOPSIS\n"
    for name, command in commands():
        usage = " ".join(command.collect_usage_pieces(click.Context(command)))
        page += f".PP\n\\fBocifs {text(name)}\\fR {text(usage)}\n"
    page += ".SH DESCRIPTION\n" + prose(group.help) + ".SH COMMANDS\n"
    for name, command in commands():
        page += f".SS ocifs {text(name)}\n" + prose(command.help or "")
        own = {term: words for term, words in records(command).items() if term not in shared}
        page += "".join(item(term, words) for term, words in own.items())
        if len(own) < len(records(command)):
            part = "" if set(shared) <= set(records(command)) else " that are about the cache"
            page += f".PP\nAlso the options under COMMON OPTIONS{part}.\n"
    page += ".SH COMMON OPTIONS\n" + "".join(item(*row) for row in shared.items())
    page += item("-h, --help", "Show the help of a command.") + item(
        "--version", "Show the version of ocifs."
    )
    page += ".SH ENVIRONMENT\n" + prose(
        "Each common option, and each option of `ocifs mount` except --any, has a variable: OCIFS_"
        " and the name of the option, such as OCIFS_TAG_TTL."
    )
    page += "".join(item(*row) for row in VARIABLES)
    page += ".SH FILES\n" + "".join(item(*row) for row in FILES)
    page += ".SH EXIT STATUS\n" + "".join(item(*row) for row in STATUSES)
    return (
        page
        + ".SH SEE ALSO\n\\fBmount.ocifs\\fR(8), \\fBocifs.toml\\fR(5), \\fBfusermount3\\fR(1)\n"
    )


def as_mount_option(option: click.Option) -> str:
    """An option in the syntax of `mount -o`."""
    name = (option.name or "").replace("-", "_")
    if option.is_flag or option.count:
        return name
    metavar = option.metavar or option.type.get_metavar(option, click.Context(mount))
    return f"{name}={metavar or option.type.name.upper()}"


def mount_8() -> str:
    """The page mount.ocifs(8)."""
    page = head("mount.ocifs", 8, "mount container registries with mount(8) and fstab(5)")
    options = "[\\-o OPTION[,OPTION...]]"
    page += ".SH SYNOPSIS\n.PP\n\\fBmount.ocifs\\fR SOURCE[,SOURCE...] MOUNTPOINT [\\-sfnv] "
    page += f"{options}\n.PP\n\\fBmount \\-t ocifs\\fR SOURCE MOUNTPOINT {options}\n"
    page += ".SH DESCRIPTION\n"
    page += prose(
        "mount(8) runs this program for file systems of the type ocifs. Separate several sources"
        " by commas. With the option any the source can be none. The mount is read-only, nosuid"
        " and nodev. It belongs to root; other users can access it only with allow_other. A line"
        " of fstab(5):\n\n\b\n"
        "registry.example.com /mnt/reg ocifs noauto,x-systemd.automount,_netdev,allow_other 0 0\n\n"
        "Do not put secrets into options: authfile= names a credentials file."
    )
    page += ".SH OPTIONS\nThose of `ocifs mount`, with - or _:\n".replace(
        "`ocifs mount`", "\\fBocifs mount\\fR"
    ).replace("- or", "\\- or")
    for option in mount.params:
        if isinstance(option, click.Option) and option.name != "foreground":
            page += item(as_mount_option(option), option.help or "")
    passed = ", ".join((*sorted(IGNORED), *(f"{prefix}..." for prefix in PREFIXES)))
    page += (
        item("-s", "Ignore unknown options.")
        + item("-f", "Check the arguments, but do not mount.")
        + item("-v", "Print the command that is run.")
    )
    page += f".PP\nIgnored, because they are for mount(8) and systemd.mount(5): {text(passed)}.\n"
    page += ".SH EXIT STATUS\n" + item("0", "Mounted.") + item(str(INVALID_USAGE), "Invalid usage.")
    page += item(str(FAILED), "The mount failed.")
    page += ".SH SEE ALSO\n\\fBocifs\\fR(1), \\fBmount\\fR(8), \\fBfstab\\fR(5), "
    return page + "\\fBsystemd.automount\\fR(5)\n"


def value_of(option: click.Option) -> str:
    """The type of an option's value in TOML."""
    if option.is_flag:
        return "true or false"
    if option.count:
        return "integer"
    if isinstance(option.type, click.Choice):
        return "one of " + ", ".join(f'"{each}"' for each in option.type.choices)
    kind = "number" if isinstance(option.type, SecondsType) else "string"
    return f"list of {kind}s" if option.multiple else kind


def toml_5() -> str:
    """The page ocifs.toml(5)."""
    page = head("ocifs.toml", 5, "configuration of ocifs: options and named mounts")
    page += ".SH SYNOPSIS\n.PP\n/etc/ocifs/config.toml\n.PP\n"
    page += "$XDG_CONFIG_HOME/ocifs/config.toml, \\(ti/.config/ocifs/config.toml\n"
    page += ".SH DESCRIPTION\n" + prose(
        "The files are TOML. Values of the second file take precedence. If OCIFS_CONFIG is set,"
        " only the file that it names is read. The top level contains options of commands, by"
        " their long names, with - or _. A table mounts.NAME is a mount for"
        " `ocifs mount NAME`.\n\n\b\n"
        'timeout = 10\n\n\b\n[mounts.work]\nsource = "registry.example.com/team"\n'
        'mountpoint = "/mnt/work"\ntag-ttl = 300\n\n'
        "A value comes from the command line, else from the variable OCIFS_ with the name of the"
        " option, else from the named mount, else from the top level of the file, else it is the"
        " default. `ocifs config show` shows the origin of each value. Paths can begin with ~/."
        " An unknown name is an error. The file contains no secrets: authfile names the"
        " credentials file."
    )
    page += ".SH OPTIONS\n"
    for option in mount.params:
        if isinstance(option, click.Option) and option.name != "any":
            page += item(
                f"{(option.name or '').replace('_', '-')} = {value_of(option)}", option.help or ""
            )
    page += ".SH NAMED MOUNTS\nA table mounts.NAME can contain the options above, and\n"
    page += item("source = string", "The source; or")
    page += item(
        "sources = list of strings", "several sources, each in a directory named after its host; or"
    )
    page += item("any = true", "every host, in addition to the sources.")
    page += item("mountpoint = string", "The mount point, unless it is on the command line.")
    return page + ".SH SEE ALSO\n\\fBocifs\\fR(1), \\fBcontainers\\-registries.conf\\fR(5)\n"


PAGES = {"man1/ocifs.1": ocifs_1, "man8/mount.ocifs.8": mount_8, "man5/ocifs.toml.5": toml_5}


def write(directory: Path, version: str) -> None:
    """Write all pages below a directory."""
    for name, page in PAGES.items():
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page().replace(VERSION, version))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument(
        "--version",
        default=__version__,
        help="version in the pages (default: the installed one)",
    )
    options = parser.parse_args()
    write(options.directory, options.version)


if __name__ == "__main__":
    main()
