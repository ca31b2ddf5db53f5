"""Latents kept on disk, so that a real video is decoded and encoded once, whatever the number of epochs and runs.

A file is named by what it depends on: the video's bytes, the window and its size, and the codec with its statistics.
Its last bytes are the SHA-256 of all before them: what is damaged is encoded again. A cache that cannot be written is
read as far as it goes.
Axes: B batch, C latent channels, T latent frames, Y rows, X columns.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from m4v.data.clips import Example, VideoSource
from m4v.latents import LatentCodec

log = logging.getLogger(__name__)
_DIGEST = hashlib.sha256().digest_size


class LatentBatch(NamedTuple):
    """Latents of clips, float32, and a caption for each."""

    latents_BCTYX: Tensor
    captions: list[str]


def codec_hash(codec: LatentCodec) -> str:
    """Identity of a codec: its class, its shape, and the bytes of its weights and statistics."""
    digest = hashlib.sha256(f"{type(codec).__name__}:{codec.shape.canonical_json()}".encode())
    for name, tensor in sorted(codec.state_dict().items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class CachedLatents:
    """The latents of a source of videos, from disk where they are there.

    Args:
        source: the videos.
        codec: encodes what is missing; its device is where that happens.
        folder: of the cache; may be shared by sources, codecs and processes.
    """

    def __init__(self, source: VideoSource, codec: LatentCodec, folder: Path) -> None:
        self.source, self.codec = source, codec
        self.folder = folder / codec_hash(codec)[:16]
        self._warned = False

    def batch(self, step: int, size: int, *, seed: int, images: bool = False) -> LatentBatch:
        """Latents `(B, C, T, Y, X)` and captions of what `source.batch` gives for the same arguments.

        Raises:
            ValueError: a video does not decode; names it.
        """
        examples = self.source.examples(step, size, seed=seed, images=images)
        latents_BCTYX = torch.stack([self._latents(example) for example in examples])
        return LatentBatch(latents_BCTYX, [example.item.caption for example in examples])

    def _latents(self, example: Example) -> Tensor:
        path = self.folder / f"{example.key()}.npy"
        kept = _read(path)
        if kept is None:
            kept = self._encode(example)
            self._keep(path, kept)
        return kept

    def _keep(self, path: Path, latents_CTYX: Tensor) -> None:
        try:
            _write(path, latents_CTYX)
        except OSError as error:
            if not self._warned:
                log.warning("%s cannot be written (%s): latents are encoded anew", path.parent, error.strerror)
            self._warned = True

    def _encode(self, example: Example) -> Tensor:
        # One by one, so that what is kept does not depend on the batch it was first asked for in.
        device = next((t.device for t in self.codec.state_dict().values()), torch.device("cpu"))
        clip_1THWC = torch.from_numpy(example.load()[None]).to(device)
        return self.codec.encode(clip_1THWC)[0].float().cpu()


def _read(path: Path) -> Tensor | None:
    """A file of the cache; None if it is not there, or is damaged and must be written anew."""
    try:
        data = path.read_bytes()
        body, digest = data[:-_DIGEST], data[-_DIGEST:]
        if hashlib.sha256(body).digest() != digest:
            return None
        return torch.from_numpy(np.load(io.BytesIO(body), allow_pickle=False))
    except (OSError, ValueError, EOFError):
        return None


def _write(path: Path, latents_CTYX: Tensor) -> None:
    """Write beside and rename: another process sees all of a file or nothing of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".npy")
    try:
        body = io.BytesIO()
        np.save(body, latents_CTYX.numpy(), allow_pickle=False)
        with os.fdopen(handle, "wb") as file:
            file.write(body.getvalue() + hashlib.sha256(body.getbuffer()).digest())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
