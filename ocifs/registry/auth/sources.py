"""The standard credential sources, in their order (docs/reference/credentials.md).

`app` and `probe` call `standard_sources` once. To add a source, write a class with `find` and
`describe` and put it into this list: see docs/how-to/extend.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ocifs.registry.auth.environment import EnvironmentSource
from ocifs.registry.auth.files import FileSource
from ocifs.registry.auth.helpers import HelperRunner, HelperSource
from ocifs.registry.auth.places import auth_files
from ocifs.registry.auth.source import CredentialSource, CredentialSources
from ocifs.settings import Settings

# The name of the credential files in `credential-helpers` (containers-registries.conf(5)).
AUTH_FILES = "containers-auth.json"


def standard_sources(
    settings: Settings, environ: Mapping[str, str], order: tuple[str, ...] = ()
) -> CredentialSources:
    """The sources of this machine and user.

    `order`: `credential-helpers` of registries.conf, helpers and the name of the credential files;
    empty: the files alone.
    """
    return tuple(_sources(settings, environ, order or (AUTH_FILES,)))


def _sources(
    settings: Settings, environ: Mapping[str, str], order: tuple[str, ...]
) -> Iterator[CredentialSource]:
    network = settings.network
    runner = HelperRunner(settings.timing.helper_timeout)
    yield EnvironmentSource(environ, network.named_host)
    if network.authfile is not None and AUTH_FILES not in order:
        # The file that the user names counts even if registries.conf lists helpers alone.
        yield FileSource(network.authfile, runner)
    for name in order:
        if name == AUTH_FILES:
            for path in auth_files(environ, network.authfile):
                yield FileSource(path, runner)
        else:
            yield HelperSource(name, runner)
