"""The second thread of the indexing pipeline: it lists entries while the first one decompresses.

Rules:

- The thread ends with the block that it was created for, after any error.
- Few pieces wait in memory.
- An error of the thread is raised at the end of the block, unless the block raises one itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import Queue
from types import TracebackType
from typing import Generic, TypeVar

from ocifs.concurrency import start_thread

T = TypeVar("T")

_MAX_WAITING = 8  # pieces


class PipelineWorker(Generic[T]):
    """Runs `work` in a thread, for the length of a block, on the pieces that are passed to `put`.

    `result`: the result of the work, after the block.
    """

    result: T

    def __init__(self, work: Callable[[Iterator[bytes]], T]) -> None:
        self._work = work
        self._pieces: Queue[bytes | None] = Queue(_MAX_WAITING)
        self._ended = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="ocifs-list", daemon=True)

    def __enter__(self) -> PipelineWorker[T]:
        start_thread(self._thread)
        return self

    def put(self, piece: bytes) -> bool:
        """Pass a piece to the work; False if it has failed, so that the caller can stop."""
        if self._error is None:
            self._pieces.put(piece)
        return self._error is None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pieces.put(None)
        self._thread.join()
        if error is None and self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self.result = self._work(self._received())
        # Any error belongs to the caller, which waits at the end of the block.
        except BaseException as error:
            self._error = error
        # Empty the queue, so that `put` never waits for a thread that has ended.
        for _ in self._received():
            pass

    def _received(self) -> Iterator[bytes]:
        while not self._ended:
            piece = self._pieces.get()
            if piece is None:
                self._ended = True
            else:
                yield piece
