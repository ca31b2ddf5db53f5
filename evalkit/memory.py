"""Give memory back: where glibc's allocator puts weights and activations."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
MIB = 2**20


@contextmanager
def tensors_in_own_mappings() -> Iterator[None]:
    """While networks load, every tensor gets a mapping of its own, which goes when the tensor goes.

    By default glibc puts tensors of up to 32 MiB on its heap, where those that are freed while a network is built
    leave holes among those that stay: a quarter more memory for the seven networks than their weights take.
    Afterwards activations may stay on the heap, so that their pages are not faulted in anew for every batch.
    """
    _set_threshold(MIB)
    try:
        yield
    finally:
        _set_threshold(1024 * MIB)


def _set_threshold(size: int) -> None:
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # musl has none
            libc.mallopt(M_MMAP_THRESHOLD, size)
            libc.mallopt(M_TRIM_THRESHOLD, 2 * size - 1)
