"""One declaration of an option makes the command line, the environment, the configuration file, the
Python API and the documents.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypedDict

import click
import pytest
from click.testing import CliRunner

import ocifs
from ocifs.cli import config
from ocifs.cli.mount import command as mount
from ocifs.cli.options import click_option, own_options
from ocifs.errors import InvalidReference, UsageError
from ocifs.oci.platform import Platform
from ocifs.options import CacheOptions, MountOptions, Options, mount_flags, settings_of
from ocifs.options.declaration import Flag, Option, Seconds, Size, Texts, ValueKind, declared
from ocifs.settings import MountFlags, Settings
from scripts.generate_options import key_default, meaning, spelled, value


class NewOptions(TypedDict, total=False):
    """Options that do not exist, as a developer would declare them."""

    lukewarm: Annotated[Flag, Option(help="Serve content lukewarm.", short="-w")]
    grace: Annotated[Seconds, Option(help="Wait SECONDS first.", default=1.5)]
    colour: Annotated[
        Literal["red", "blue"],
        Option(help="Colour of the mount.", default="red", doc="the `colour`"),
    ]
    room: Annotated[Size, Option(help="Room to use.", default_text="all of it")]
    tags: Annotated[Texts, Option(help="A tag.", everywhere=False)]


@pytest.fixture
def command() -> click.Command:
    function = lambda **values: click.echo(repr(sorted(values.items())))  # noqa: E731
    for item in reversed(declared(NewOptions)):
        function = click_option(item)(function)
    return click.command("new")(function)


def test_a_declaration_makes_the_option_of_the_command_line(command: click.Command) -> None:
    runner = CliRunner()
    words = ["-w", "--grace", "3", "--colour", "blue", "--room", "2K", "--tags", "a", "--tags", "b"]
    shown = runner.invoke(command, words).output
    assert shown.strip() == repr(
        [
            ("colour", "blue"),
            ("grace", 3.0),
            ("lukewarm", True),
            ("room", 2048),
            ("tags", ("a", "b")),
        ]
    )
    default = runner.invoke(command, []).output
    assert default.strip() == repr(
        [("colour", "red"), ("grace", 1.5), ("lukewarm", False), ("room", None), ("tags", ())]
    )
    text = " ".join(runner.invoke(command, ["--help"]).output.split())
    assert "Wait SECONDS first. [default: 1.5]" in text
    assert "--room SIZE Room to use. [default: all of it]" in text


def test_a_declaration_makes_the_variable_of_the_environment(command: click.Command) -> None:
    environment = {"OCIFS_COLOUR": "blue", "OCIFS_LUKEWARM": "1", "OCIFS_TAGS": "a"}
    shown = CliRunner(env=environment).invoke(command, []).output
    assert (
        "('colour', 'blue')" in shown and "('lukewarm', True)" in shown and "('tags', ())" in shown
    )


def test_a_declaration_makes_the_key_of_the_file(
    command: click.Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.toml"
    monkeypatch.setenv("OCIFS_CONFIG", str(path))
    known = {param.name: param for param in command.params if param.name and param.expose_value}
    path.write_text('colour = "blue"\nroom = "1M"\n')
    assert config.load(lambda: known).defaults() == {"colour": "blue", "room": "1M"}
    path.write_text('colour = "green"\n')
    with pytest.raises(UsageError, match="colour"):
        config.load(lambda: known)


def test_a_declaration_makes_the_rows_of_the_documents() -> None:
    lukewarm, grace, colour, room, tags = declared(NewOptions)
    assert (
        spelled(lukewarm) == "`-w`, `--lukewarm`" and meaning(lukewarm) == "serve content lukewarm"
    )
    assert spelled(colour) == "`--colour red\\|blue`" and meaning(colour) == "the `colour`"
    assert (value(colour), key_default(colour)) == ('`"red"`, `"blue"`', '`"red"`')
    assert (value(grace), key_default(grace)) == ("seconds", "1.5")
    assert key_default(room) == "all of it"
    assert tags.variable == "" and grace.variable == "OCIFS_GRACE"


@pytest.mark.parametrize("item", declared(MountOptions), ids=lambda item: item.name)
def test_an_option_names_a_field_that_exists_and_has_its_default(item) -> None:
    """No type checker finds a misspelt setting, or two defaults that differ."""
    if not item.option.setting:
        assert item.name in ("any", "foreground", "log_file", "log_format", "metrics", "verbose")
        return
    section, _, field = item.option.setting.partition(".")
    holder = MountFlags() if section == "flags" else getattr(Settings(), section)
    default = getattr(holder, field)
    if item.option.convert is None and item.option.default is not None:
        assert item.option.default == default
    if item.kind is ValueKind.FLAG:
        assert not default


def test_options_without_values_mean_the_default_settings() -> None:
    assert settings_of((), {}) == Settings()
    assert settings_of((), {}, MountOptions) == Settings()
    assert mount_flags({}) == MountFlags()


def test_values_reach_their_settings(tmp_path: Path) -> None:
    settings = settings_of(
        ["r.example.com"],
        {"plain_http": True, "platform": "linux/arm64", "verify": "full", "repo": ["a", "b"],
         "cache_dir": str(tmp_path), "timeout": 3, "cache_size": 5, "links": "raw"},
    )  # fmt: skip
    assert settings.network.plain_http == {"r.example.com"}
    assert settings.network.insecure_tls == frozenset()
    assert settings.network.named_host == "r.example.com"
    assert settings.view.platform == Platform.parse("linux/arm64")
    assert settings.view.repositories == ("a", "b") and settings.view.links == "raw"
    assert settings.cache.verify_full and settings.cache.size == 5
    assert settings.cache.directory == tmp_path
    assert settings.timing.timeout == 3 and settings.timing.connect_timeout == 1
    assert mount_flags({"noexec": True, "fsname": "x"}) == MountFlags(noexec=True, fsname="x")


def test_wrong_options_of_a_program_are_errors() -> None:
    with pytest.raises(UsageError, match="unknown option: noexec, nonsense"):
        settings_of((), {"nonsense": 1, "noexec": True})
    with pytest.raises(UsageError, match="invalid value for owner: me"):
        settings_of((), {"owner": "me"})
    with pytest.raises(InvalidReference):
        settings_of((), {"platform": "?"})
    with pytest.raises(UsageError):
        ocifs.open("oci:./nowhere", nonsense=True)  # type: ignore[call-arg]


def test_every_command_has_the_options_of_its_declaration() -> None:
    names = {param.name for param in mount.params if param.expose_value}
    assert names == {item.name for item in declared(MountOptions)} | {"source", "mountpoint"}
    assert {item.name for item in own_options(MountOptions, Options)} == (
        MountOptions.__annotations__.keys() - Options.__annotations__.keys()
    )
    assert CacheOptions.__annotations__.keys() < Options.__annotations__.keys()
