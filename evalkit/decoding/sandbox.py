"""What the decoding process may not do: take endless memory, write files, use the network.

All of it is what the system offers to a program without privileges, and each part is left out where there is none: the
limit on memory and Landlock (files, TCP) are Linux's.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Generator
from pathlib import Path

_SYS_CREATE, _SYS_RESTRICT = 444, 446  # linux/landlock.h; the same numbers on all architectures
_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_NO_NEW_PRIVILEGES = 38  # linux/prctl.h

_WRITE_FILE = 1 << 1
_CHANGES = 0b1_1111_1111_0000  # bits 4 to 12: remove and make whatever a folder can hold
_EXECUTE = 1 << 0
_SINCE = ((2, 1 << 13), (3, 1 << 14), (5, 1 << 15))  # refer, truncate, ioctl on devices
_TCP = 0b11  # bind and connect, since version 4
_SCOPES = 0b11  # abstract sockets and signals of processes outside, since version 6


def close_in() -> None:
    """Deny, for good, what decoding never needs: core files, writing files, starting programs, TCP."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            _landlock()


def memory_taken() -> int:
    """Bytes of this process's address space; 0 where that is not known."""
    return _status("VmSize")


def memory_peak() -> int:
    """The most that it ever was."""
    return _status("VmPeak")


def _status(name: str) -> int:
    if sys.platform != "linux":
        return 0
    lines = Path("/proc/self/status").read_text(errors="replace").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


@contextlib.contextmanager
def memory_limited(ceiling: int) -> Generator[None, None, None]:
    """Let this process take so many bytes of address space and no more (Linux)."""
    if sys.platform != "linux":
        yield
        return
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (ceiling if hard == resource.RLIM_INFINITY else min(ceiling, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))


class _Ruleset(ctypes.Structure):
    """`struct landlock_ruleset_attr`. No rule is added to it, so that nothing it handles is allowed anywhere."""

    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


def landlock_version() -> int:
    """Of the kernel's Landlock; 0 if it has none."""
    if sys.platform != "linux":
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    version: int = libc.syscall(_SYS_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))
    return max(0, version)


def _landlock() -> None:
    version = landlock_version()
    if not version:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    files = _EXECUTE | _WRITE_FILE | _CHANGES | sum(bit for since, bit in _SINCE if version >= since)
    ruleset = _Ruleset(files, _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    handle = libc.syscall(_SYS_CREATE, ctypes.byref(ruleset), ctypes.c_size_t(size), ctypes.c_uint32(0))
    if handle < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    try:
        libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        if libc.syscall(_SYS_RESTRICT, ctypes.c_int(handle), ctypes.c_uint32(0)):
            raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    finally:
        os.close(handle)
