"""Reduction of gradients: they wait in a bucket until the next one does not fit, and are then sent together."""

from sft.sizing.setting import Setting

_FLOAT32 = 4


class ReduceBucket:
    """DeepSpeed's bucket. A larger gradient waits outside it, alone, in its original dtype.

    The plain engine has none: all gradients wait, in their original dtype, for the end of the backward pass. Those of a
    float32 model wait for the update; if a step has several micro-batches, they are counted with the states.
    """

    def __init__(self, setting: Setting) -> None:
        self._is_plain = setting.is_plain
        self._waits_in_states = setting.is_own_master and not setting.is_one_micro_batch
        self._limit = setting.buckets.reduce
        self._made_bytes = setting.numbers.num_bytes
        # gloo sends a copy of its input.
        self._num_copies = 1 if setting.numbers.on_gpu else 2
        self._waiting = 0
        self.most_waiting = 0
        """The most elements that were in the bucket at the same time."""

    @property
    def outside(self) -> int:
        """Bytes of a waiting gradient that is too large for the bucket, or of all without one."""
        if self._is_plain:
            return 0 if self._waits_in_states else self._made_bytes * self._waiting
        return self._made_bytes * self._waiting if self._waiting > self._limit else 0

    def add(self, size: int) -> int:
        """Add a gradient of `size` elements; returns the bytes that this needs temporarily."""
        if self._is_plain:
            self._waiting += size
            return self.outside
        taken = self.outside
        if self._waiting and self._waiting + size > self._limit:
            taken += self.send()
        self._waiting += size
        if self._waiting <= self._limit:
            self.most_waiting = max(self.most_waiting, self._waiting)
        return taken

    def send(self) -> int:
        """Send what waits; returns the bytes that this needs temporarily, all in float32."""
        if self._is_plain:
            return 0
        size, self._waiting = self._waiting, 0
        # A single float32 gradient is sent as it is; several are copied into one piece.
        is_sent_as_it_is = size > self._limit and self._made_bytes == _FLOAT32
        return _FLOAT32 * size * (self._num_copies - is_sent_as_it_is)
