"""A file of the derived cache that a pass over a layer writes, and keeps only if it is needed.

The threads of a pass call this. An error of the disk is logged, and never ends the pass.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import BinaryIO

from ocifs.content import DerivedCache
from ocifs.errors import OcifsError
from ocifs.oci.digest import Digest

log = logging.getLogger("ocifs.layers")


class Spool:
    """A file that is created with its first write, and discarded at the end of the block unless it
    is kept.
    """

    def __init__(self, derived: DerivedCache, kind: str, digest: Digest) -> None:
        self.file: BinaryIO | None = None
        self.failed = False
        self._derived = derived
        self._kind = kind
        self._digest = digest
        self._put: AbstractContextManager[BinaryIO] | None = None

    def __enter__(self) -> Spool:
        return self

    def write(self, piece: bytes, *, flush: bool = False) -> bool:
        """Write the next piece. Return whether it was written; `failed` is set if not."""
        if self.failed:
            return False
        try:
            if self.file is None:
                put = self._derived.put(self._kind, self._digest)
                self.file = put.__enter__()
                self._put = put
            self.file.write(piece)
            if flush:
                self.file.flush()
        except (OSError, OcifsError) as error:
            self._fail(error)
        return not self.failed

    def keep(self) -> bool:
        """Complete the file in the cache. Return whether it is there."""
        put, self._put = self._put, None
        if put is None:
            return False
        try:
            put.__exit__(None, None, None)
        except (OSError, OcifsError) as error:
            self._fail(error)
        return not self.failed

    def _fail(self, error: Exception) -> None:
        """Continue without the file."""
        self.failed = True
        log.warning("cannot save %s of %s in the cache: %s", self._kind, self._digest, error)
        put, self._put = self._put, None
        if put is not None:
            with suppress(OSError, OcifsError, _Discarded):
                put.__exit__(_Discarded, _Discarded(), None)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        put, self._put = self._put, None
        if put is not None:
            # An exception makes `put` remove the file.
            reason = error or _Discarded()
            put.__exit__(type(reason), reason, trace)


class _Discarded(Exception):
    """The file is not needed."""
