"""Fetching a checkpoint: resumable, verified, never half a file under its final name."""

from __future__ import annotations

import os
import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import httpx

from evalkit.errors import RunFailed, UserError
from evalkit.files import hash_file
from evalkit.weights import Checkpoint

LARGEST = 64 * 2**30
"""Bytes of a download whose size is not published."""

OFFLINE = "M4V_EVAL_OFFLINE"
"""Set to 1 to forbid every download."""


def fetch(
    checkpoint: Checkpoint, root: Path, progress: Callable[[int, int], None], client: httpx.Client | None = None
) -> Path:
    """Download a checkpoint into `root`, going on where an earlier attempt stopped.

    Args:
        checkpoint: what to fetch.
        root: cache folder in the official layout.
        progress: called with the bytes on disk and the total (0 if the server does not say).
        client: the HTTP client to use; a new one by default.

    Raises:
        UserError: offline mode, or the file is not the one its publisher vouches for.
        RunFailed: the network or the disk failed; what arrived is kept for the next attempt.
    """
    if os.environ.get(OFFLINE, "0") not in ("", "0"):
        raise UserError(
            f"${OFFLINE} forbids downloads.",
            f"Unset it, or copy the file from {checkpoint.url} to {root / checkpoint.file}.",
        )
    path = root / checkpoint.file
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with client or httpx.Client(follow_redirects=True, timeout=30) as http:
            _receive(http, checkpoint, part, progress)
        if checkpoint.member is not None:
            part = _unpack(checkpoint.member, checkpoint, part)
        _verify(checkpoint, part)
        part.replace(path)
    except (httpx.HTTPError, httpx.InvalidURL) as e:
        raise RunFailed(
            f"Could not download {checkpoint.url}: {e or type(e).__name__}.",
            f"Check the network and run the command again (it resumes), or copy the file to {path} by hand.",
        ) from None
    except OSError as e:
        raise RunFailed(
            f"Could not write {part}: {e.strerror or e}.",
            "Free space or choose another --weights folder, then run again.",
        ) from None
    return path


def _receive(http: httpx.Client, checkpoint: Checkpoint, part: Path, progress: Callable[[int, int], None]) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with http.stream("GET", checkpoint.url, headers=headers) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # all of it is here already; the checksum decides
        response.raise_for_status()
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            have = 0  # the server ignores ranges: start over
        length = response.headers.get("Content-Length", "")
        total = have + (int(length) if length.isascii() and length.isdecimal() and len(length) < 19 else 0)
        most = _most(checkpoint)
        with part.open("ab" if have else "wb") as file:
            for block in response.iter_bytes():
                file.write(block)
                have += len(block)
                progress(have, total)
                if have > most:
                    raise UserError(
                        f"What {checkpoint.url} sends is larger than {most:,} bytes;"
                        f" {checkpoint.size:,} are published.",
                        f"Delete {part}. If it persists, the publisher or a proxy changed the file.",
                    )


def _most(checkpoint: Checkpoint) -> int:
    """Bytes beyond which a file cannot be the published one: sizes may be rounded, and zip archives hold more."""
    return 2 * checkpoint.size if checkpoint.size and checkpoint.member is None else LARGEST


def _unpack(member: str, checkpoint: Checkpoint, archive: Path) -> Path:
    """Take one file out of a zip and delete the zip; its checksums are verified on the way."""
    file = archive.with_suffix(".unpacked")
    try:
        with zipfile.ZipFile(archive) as zipped:
            if zipped.getinfo(member).file_size > (2 * checkpoint.size or LARGEST):
                raise zipfile.BadZipFile("it would unpack to far more than is published")
            with zipped.open(member) as source, file.open("wb") as target:
                shutil.copyfileobj(source, target)
    except (zipfile.BadZipFile, KeyError, EOFError, RuntimeError, zlib.error) as e:  # RuntimeError: it is encrypted
        file.unlink(missing_ok=True)
        archive.unlink()
        raise UserError(
            f"What {checkpoint.url} sent is not a whole zip archive that holds {member} ({e}).",
            "Nothing was kept. Try again later; if it persists, the publisher or a proxy changed the file.",
        ) from e
    archive.unlink()
    return file


def _verify(checkpoint: Checkpoint, part: Path) -> None:
    if checkpoint.sha256 is None:
        return
    digest = hash_file(part)
    if digest != checkpoint.sha256:
        part.unlink()
        raise UserError(
            f"What {checkpoint.url} sent has sha256 {digest[:12]}..., not {checkpoint.sha256[:12]}... as published.",
            "Nothing was kept. Try again later; if it persists, the publisher or a proxy changed the file.",
        )
