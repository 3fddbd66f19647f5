"""The credential in OCIFS_USERNAME and OCIFS_PASSWORD_FILE.

Called from the task of a request. The file is read in a worker thread, each time.

- The credential is for the one host that the user has named, and for no other.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from ocifs.concurrency import in_thread
from ocifs.registry.auth.credential import Credential
from ocifs.registry.auth.safety import SafetyCheck
from ocifs.userfiles import read_user_file

log = logging.getLogger("ocifs.registry")

_FILE_BYTES = 4 << 20


class EnvironmentSource:
    """The credential of the environment. `host`: the host that it is for; empty: none."""

    def __init__(self, environ: Mapping[str, str], host: str) -> None:
        self._username = environ.get("OCIFS_USERNAME", "")
        self._path = environ.get("OCIFS_PASSWORD_FILE", "")
        self._host = host
        self._safety = SafetyCheck()

    async def find(self, host: str, repository: str, *, refresh: bool) -> Credential | None:
        if host != self._host or not self._path:
            return None
        return await in_thread(self._read)

    def describe(self) -> str:
        return "OCIFS_USERNAME and OCIFS_PASSWORD_FILE"

    def _read(self) -> Credential | None:
        path = Path(self._path)
        self._safety.check(path)
        if not self._username:
            return None
        try:
            # Editors and `echo` end a file with a line break, which is not part of the password.
            secret = read_user_file(path, _FILE_BYTES).decode().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "invalid UTF-8"
            log.warning("cannot read OCIFS_PASSWORD_FILE, %s: %s", path, reason)
            return None
        return Credential(self._username, secret)
