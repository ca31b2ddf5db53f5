"""A decoding process that misbehaves on files of certain names: `python tests/broken_decoder.py CONTROL SLOTS ...`."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from evalkit.decoding import child
from evalkit.types import FrameChunk, VideoInfo
from evalkit.video import VideoError, decode, probe

COMMAND = (sys.executable, "-P", __file__)


def misbehave(path: Path) -> None:
    """What the name says."""
    match path.stem.split("-")[0]:
        case "hang":
            time.sleep(3600)
        case "seize":  # in C, with the interpreter's lock held
            ctypes.PyDLL(None).sleep(3600)
        case "segv":
            ctypes.string_at(0)
        case "abort":
            os.abort()
        case "exit":
            os._exit(7)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "eat":
            kept = []
            while True:
                kept.append(bytearray(2**24))
        case "write":
            deny(path)
        case "babble":
            os.write(int(sys.argv[1]), b"\x00not json\n")
        case "flood":
            while True:
                os.write(int(sys.argv[1]), b"[" * 65536)
        case "lie":
            os.write(int(sys.argv[1]), b'{"task": 2, "says": "filled", "slot": 77}\n' * 3)
        case "cut":
            for handle in sys.argv[2].split(","):
                os.ftruncate(int(handle), 0)


def deny(path: Path) -> None:
    """Report what could be written or reached; nothing may be."""
    import socket

    done = []
    for name, act in {
        "create": lambda: path.with_name("created").touch(),
        "append": lambda: path.open("ab").write(b"more"),
        "remove": path.unlink,
        "folder": lambda: path.with_name("folder").mkdir(),
        "link": lambda: path.with_name("link").symlink_to(path),
        "connect": lambda: socket.create_connection(("127.0.0.1", 9), 1),
        "start": lambda: os.execv("/bin/true", ["true"]),
    }.items():
        try:
            act()
            done.append(name)
        except PermissionError:
            pass
        except OSError as e:
            done.append(f"{name}: {e}")
    raise VideoError(path, f"it did: {', '.join(done) or 'nothing'}")


def breaking_decode(path: Path, info: VideoInfo, **options: Any) -> Generator[FrameChunk, None, None]:
    """Misbehaves in the second chunk, or as soon as there is none."""
    after = int(path.stem.partition("-")[2] or 0)
    for n, chunk in enumerate(decode(path, info, **options)):
        if n == after:
            misbehave(path)
        yield chunk


def breaking_probe(path: Path) -> VideoInfo:
    if path.stem.endswith("-probe"):
        misbehave(path)
    return probe(path)


if __name__ == "__main__":
    child.decode = breaking_decode
    child.probe = breaking_probe
    child.GRACE_S = 1.0
    if sys.argv[1] == "never":
        sys.exit(3)
    child.main(sys.argv[1:])
