"""A function as a CUDA graph: its kernels are launched at once, where launching them one by one is slow."""

import contextlib
import functools
from collections.abc import Callable, Iterator

import torch

Tensors = tuple[torch.Tensor, ...]


class Graph:
    """Replays ``function`` on tensors of the same shapes.

    ``function`` has run before, so that nothing is left to set up; it must not read values on the host. What
    a call returns holds until the next call.

    Raises:
        RuntimeError: the function cannot be captured.
    """

    def __init__(self, function: Callable[..., Tensors], *inputs: torch.Tensor) -> None:
        self._inputs = tuple(tensor.clone() for tensor in inputs)
        self._graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        # NCCL's watchdog asks CUDA from a thread of its own, which must not end the capture.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._outputs = function(*self._inputs)

    def __call__(self, *inputs: torch.Tensor) -> Tensors:
        """What the function makes of ``inputs``."""
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._outputs


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all: memory that is free on a stream is not on another."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def side_stream(device: torch.device) -> Iterator[None]:
    """Work on a stream of its own, as what is captured later must have run; nothing where there is no GPU."""
    if device.type != "cuda":
        yield
        return
    before, stream = torch.cuda.current_stream(device), _side_stream(device)
    stream.wait_stream(before)
    with torch.cuda.stream(stream):
        yield
    before.wait_stream(stream)


class Leash:
    """Keeps the host at most two steps ahead of the GPU, so that its clock tells how far the work is."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._events: list[torch.cuda.Event] = []

    def step(self) -> None:
        """Wait for the step before the last one."""
        if not self._on_gpu:
            return
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._events.append(event)
        if len(self._events) > 2:
            self._events.pop(0).synchronize()
