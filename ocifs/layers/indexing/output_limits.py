"""Limits on the output of decompression: its size, its ratio to the input, and empty streams.

The thread that decompresses a layer calls this for each piece of output and each stream.
"""

from __future__ import annotations

from ocifs.concurrency import check_cancelled
from ocifs.errors import LimitExceeded
from ocifs.settings import MIB, Limits

_CHECK_INTERVAL = 1 << 8  # streams between two checks for cancellation
# The ratio is ignored below this output: a small layer of zeros is not a bomb.
_RATIO_FREE = 64 * MIB


class OutputLimits:
    """Counts the output and the streams of one layer. `size`: the output so far."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # The number of complete streams, and of those without content.
        self._streams = self._empty = 0
        self.size = 0

    def add(self, length: int, input_size: int) -> None:
        """Count output, given the input so far. Raises LimitExceeded."""
        limits = self._limits
        self.size += length
        if self.size > limits.layer_bytes:
            raise LimitExceeded(
                f"the layer unpacks to more than limits.layer_bytes ({limits.layer_bytes})"
            )
        if self.size > _RATIO_FREE and self.size > input_size * limits.layer_ratio:
            raise LimitExceeded(
                f"the layer unpacks to over {limits.layer_ratio} times its size"
                " (limits.layer_ratio)"
            )

    def add_stream(self, *, empty: bool) -> None:
        """Count a complete stream. Raises LimitExceeded.

        Streams without content also cost time: 2,000,000 empty frames are 16 MB, and took a minute.
        """
        self._streams += 1
        self._empty += empty
        limits = self._limits
        if self._streams > limits.layer_streams:
            raise LimitExceeded(
                f"the layer has more than limits.layer_streams ({limits.layer_streams}) streams"
            )
        # One empty stream is allowed for each stream with content.
        if self._empty > limits.layer_empty_streams + self._streams - self._empty:
            raise LimitExceeded(
                "the layer has more empty streams than limits.layer_empty_streams"
                f" ({limits.layer_empty_streams}) allows"
            )
        if not self._streams % _CHECK_INTERVAL:
            check_cancelled()
