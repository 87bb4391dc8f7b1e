"""Two buffers on a device, filled in turn by a thread: one is in use while the next content arrives."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch

Fill = Callable[[int, torch.Tensor], None]


class Slots:
    """Contents by number, at most two at once on ``device``.

    On a GPU a content goes through pinned CPU memory and over the bus on a stream of its own, so that
    neither reading nor copying waits for what is computed.
    """

    def __init__(self, device: torch.device, nbytes: int, fill: Fill) -> None:
        """Take the memory.

        Args:
            device: where contents are wanted.
            nbytes: of the largest content.
            fill: writes content ``number`` into a uint8 tensor [nbytes] of the CPU; called from the thread.
        """
        self.device = device
        self._fill = fill
        self._buffers = [torch.empty(nbytes, dtype=torch.uint8, device=device) for _ in range(2)]
        self._gpu = device.type == "cuda"
        self._staged = self._buffers
        if device.type != "cpu":
            self._staged = [torch.empty(nbytes, dtype=torch.uint8, pin_memory=self._gpu) for _ in range(2)]
        self._numbers: list[int | None] = [None, None]
        self._arriving: list[Future[None] | None] = [None, None]
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="slots")
        if self._gpu:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._stream.wait_stream(torch.cuda.current_stream(device))  # what had the memory before
            self._sent, self._left = ([torch.cuda.Event() for _ in range(2)] for _ in range(2))  # type: ignore[no-untyped-call]

    def send(self, number: int, besides: int | None = None) -> int:
        """Have ``number`` come into a slot, not into the slot ``besides``, and say which; do not wait."""
        if number in self._numbers:
            return self._numbers.index(number)
        slot = 1 - besides if besides is not None else int(self._arriving[0] is not None)
        self._wait(slot)
        self._numbers[slot] = number
        self._arriving[slot] = self._thread.submit(self._load, slot, number)
        return slot

    def take(self, number: int) -> tuple[int, torch.Tensor]:
        """The slot that ``number`` is in, and the bytes, there for all that is computed from now on."""
        slot = self.send(number)
        self._wait(slot)
        if self._gpu:
            torch.cuda.current_stream(self.device).wait_event(self._sent[slot])
        return slot, self._buffers[slot]

    def leave(self, slot: int) -> None:
        """What was computed up to now is the last that reads the slot; it may be filled anew."""
        if self._gpu:
            self._left[slot].record(torch.cuda.current_stream(self.device))

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _wait(self, slot: int) -> None:
        arriving, self._arriving[slot] = self._arriving[slot], None
        if arriving is not None:
            try:
                arriving.result()
            except BaseException:
                self._numbers[slot] = None
                raise

    def _load(self, slot: int, number: int) -> None:
        if self._gpu:
            self._sent[slot].synchronize()  # the copy before this one has left the pinned memory
        self._fill(number, self._staged[slot])
        if self._gpu:
            with torch.cuda.stream(self._stream):
                self._stream.wait_event(self._left[slot])
                self._buffers[slot].copy_(self._staged[slot], non_blocking=True)
                self._sent[slot].record(self._stream)
        elif self.device.type != "cpu":
            self._buffers[slot].copy_(self._staged[slot])
