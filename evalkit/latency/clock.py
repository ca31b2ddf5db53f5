"""How long one call takes: CUDA events on a GPU, the monotonic clock on a CPU, the device idle before and after."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import torch


class Stopwatch(Protocol):
    """A running measurement; `seconds` waits for the device and returns the elapsed time."""

    def seconds(self) -> float: ...


class Clock(Protocol):
    """Where time comes from."""

    name: str

    def start(self) -> Callable[[], Stopwatch]:
        """Begin a measurement without waiting for the device; the returned function ends it, also without waiting."""

    def idle(self) -> None:
        """Wait until the device has nothing left to do."""


def time_call(clock: Clock, run: Callable[[], object]) -> float:
    """Seconds that `run` takes from an idle device to an idle device."""
    clock.idle()
    stop = clock.start()
    run()
    watch = stop()
    clock.idle()
    return watch.seconds()


class _Elapsed:
    def __init__(self, nanoseconds: int) -> None:
        self.nanoseconds = nanoseconds

    def seconds(self) -> float:
        return self.nanoseconds / 1e9


class CpuClock:
    """`time.perf_counter_ns`; a CPU runs operators to their end before they return."""

    name = "perf_counter_ns"

    def start(self) -> Callable[[], _Elapsed]:
        begun = time.perf_counter_ns()
        return lambda: _Elapsed(time.perf_counter_ns() - begun)

    def idle(self) -> None:
        """Nothing to wait for."""


class _Events:
    def __init__(self, start: torch.cuda.Event, end: torch.cuda.Event) -> None:
        self.start, self.end = start, end

    def seconds(self) -> float:
        self.end.synchronize()
        return float(self.start.elapsed_time(self.end)) / 1e3  # milliseconds


class CudaClock:
    """Events on the current stream of one GPU, resolution about half a microsecond.

    Kernels run after the host has queued them: an event is queued with them and takes its time on the device, so that
    the gaps in which the device waits for the host are counted and the host's own run-ahead is not.
    """

    name = "CUDA events"

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def start(self) -> Callable[[], _Events]:
        begun = self._mark()
        return lambda: _Events(begun, self._mark())

    def idle(self) -> None:
        torch.cuda.synchronize(self.device)

    def _mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return event


def clock_for(device: torch.device) -> Clock:
    return CudaClock(device) if device.type == "cuda" else CpuClock()
