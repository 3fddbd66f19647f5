"""The paths of credential files. Imports little, because shell completion waits for it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ocifs.directories import config_home, home, runtime_directory

_RUN = Path("/run/containers")


def auth_files(environ: Mapping[str, str], first: Path | None) -> Iterator[Path]:
    """The credential files in the order of use. They need not exist."""
    if first is not None:
        yield first
    if environ.get("REGISTRY_AUTH_FILE"):
        yield Path(environ["REGISTRY_AUTH_FILE"])
    runtime = runtime_directory(environ)
    # Without XDG_RUNTIME_DIR podman, buildah and skopeo have no `containers` in the path.
    yield runtime / "containers" / "auth.json" if runtime else default_login()
    yield config_home(environ) / "containers" / "auth.json"
    yield Path(environ.get("DOCKER_CONFIG") or home(environ) / ".docker") / "config.json"
    yield home(environ) / ".dockercfg"


def default_login() -> Path:
    """The file that podman, buildah and skopeo write without XDG_RUNTIME_DIR."""
    return _RUN / str(os.getuid()) / "auth.json"
