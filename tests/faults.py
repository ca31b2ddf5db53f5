"""Real faults for tests: disks of a few kilobytes, folders that cannot be written, bytes that change on disk."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PAGE = 4096
FILLER = "filler"


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A disk of `size` bytes in memory at `folder`; the test is skipped where none may be mounted."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def leave_free(disk: Path, free: int) -> None:
    """Fill a disk but for `free` bytes (rounded up to whole pages)."""
    stat = os.statvfs(disk)
    (disk / FILLER).write_bytes(bytes(max(0, stat.f_bavail * stat.f_bsize - free)))


def give_back(disk: Path) -> None:
    (disk / FILLER).unlink()


def unprivileged() -> list[str]:
    """What to put before a command so that the permissions of files count for it, even if it is root's."""
    if os.geteuid():
        return []
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv")
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]


def run_unprivileged(*args: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """`m4v-eval ARGS` without the right to write where only root can."""
    command = [*unprivileged(), sys.executable, "-c", "from evalkit.cli import main; main()", *map(str, args)]
    environment = os.environ | {"COLUMNS": "140", "NO_COLOR": "1"} | env
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)


@contextmanager
def read_only(*folders: Path) -> Iterator[None]:
    """Take the right to write from folders and all that is in them."""
    paths = [path for folder in folders for path in (folder, *folder.rglob("*")) if not path.is_symlink()]
    modes = {path: path.stat().st_mode for path in paths}
    try:
        for path in paths:
            path.chmod(modes[path] & 0o555)
        yield
    finally:
        for path in paths:
            path.chmod(modes[path])


def damaged(data: bytes, seed: int) -> bytes:
    """The same bytes but for one."""
    rng = random.Random(seed)
    spoilt = bytearray(data)
    spoilt[rng.randrange(len(data))] ^= rng.randrange(1, 256)
    return bytes(spoilt)


def change_quietly(path: Path, data: bytes) -> None:
    """Other bytes of the same size under the same mtime."""
    before = path.stat()
    assert len(data) == before.st_size
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
