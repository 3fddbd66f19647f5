"""Two threads for one stream: who makes pieces goes on while another works on those that were made.

Rules that hold here: the second thread ends with the block that it was made for, whatever was
raised where; pieces that wait are few; an error of the second thread's comes out of the block,
unless the first has one, which cut the stream for the second.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import Queue
from types import TracebackType
from typing import Generic, TypeVar

from ocifs.concurrency import start_thread

T = TypeVar("T")

_WAITING = 8


class PipelineWorker(Generic[T]):
    """Runs `work` on an iterator of the pieces that are given to `put`, in a thread of its own, for
    the length of a block.

    Afterwards `result` is what it gave. `put` is False once the work has failed: nothing more is
    wanted.
    """

    result: T

    def __init__(self, work: Callable[[Iterator[bytes]], T]) -> None:
        self._work = work
        self._pieces: Queue[bytes | None] = Queue(_WAITING)
        self._ended = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="ocifs-list", daemon=True)

    def __enter__(self) -> PipelineWorker[T]:
        start_thread(self._thread)
        return self

    def put(self, piece: bytes) -> bool:
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
            self.result = self._work(self._given())
        except (
            BaseException
        ) as error:  # whatever it was, it belongs to whoever waits for the end of the block
            self._error = error
        for _ in self._given():  # whoever puts pieces must not wait for ever
            pass

    def _given(self) -> Iterator[bytes]:
        while not self._ended:
            piece = self._pieces.get()
            if piece is None:
                self._ended = True
            else:
                yield piece
