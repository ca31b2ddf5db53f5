"""What is to be decoded, and within which limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evalkit.types import Size, VideoInfo

GIB, MIB = 2**30, 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """What one video may cost.

    Args:
        timeout_s: how long decoding may give no frames, by the monotonic clock; time in which this process itself was
            stopped does not count.
        memory_bytes: that decoding a file may take, beyond what the decoding process takes anyway. Enforced on Linux;
            elsewhere as far as the system goes.
    """

    timeout_s: float = 60.0
    memory_bytes: int = 4 * GIB

    @property
    def too_slow(self) -> str:
        return f"the decoder gave no frame for {self.timeout_s:g} s"

    @property
    def too_large(self) -> str:
        unit, name = (GIB, "GiB") if self.memory_bytes >= GIB else (MIB, "MiB")
        return f"needs more than {self.memory_bytes / unit:g} {name} of memory to decode"


@dataclass(frozen=True, slots=True)
class Job:
    """One video to decode.

    Args:
        path: the file.
        info: what `probe` said about it.
        sizes: other sizes that frames are wanted in as well.
    """

    path: Path
    info: VideoInfo
    sizes: frozenset[Size] = frozenset()
