"""The training loop: one for all systems, on one process or many, exact when resumed.

Every micro-batch draws its clips, noise and times from (seed, step, number) alone and never from global state, so that
a killed run goes on as if nothing had happened, and all variants of an ablation see the same data in the same order.
"""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from m4v.checkpoint import (
    LAST,
    Checkpoint,
    check_same_run,
    has_checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from m4v.data import CachedLatents, Source
from m4v.data.clips import VideoSource
from m4v.data.controls import shuffled_frames
from m4v.flow import draw_text_dropout, flow_loss, training_pair
from m4v.latents import LatentCodec, make_codec
from m4v.optim import Average, gather_state, make_optimizers, restore_state, set_lr
from m4v.parallel import Processes, blocks, distribute, like, processes, whole, without_sync
from m4v.recipe import Recipe, System, TrainConfig, build_system, derived_seed

__all__ = ["LOG", "StepRecord", "TrainConfig", "TrainingFailed", "TrainingInterrupted", "fit_codec", "train"]

LOG = "losses.jsonl"
FIT_BATCHES, FIT_SIZE, FIT_SEED = 16, 16, 0
"""Clips on which a codec's statistics are measured: the same for every run on this data."""


class StepRecord(NamedTuple):
    """One line of the loss log: step counted from 0, loss, learning rate, gradient norm before clipping, seconds."""

    step: int
    loss: float
    lr: float
    grad_norm: float
    seconds: float


Progress = Callable[[StepRecord, int], None]
"""Called after each step with its record and the number of all steps."""


class TrainingFailed(ValueError):
    """Training cannot go on; the message says where it stopped and what to lower."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C: the step was finished and a checkpoint written."""


def train(
    recipe: Recipe,
    source: Source,
    out: Path,
    *,
    init: Mapping[str, Tensor] | None = None,
    progress: Progress | None = None,
    device: str = "auto",
    cache: Path | None = None,
) -> Path:
    """Train a recipe, or go on where an earlier run in `out` stopped.

    Args:
        recipe: everything that decides the result.
        source: the clips.
        out: folder of `last.pt`, `previous.pt` and the loss log.
        init: weights to start from, by the names of `System`; what it lacks starts fresh.
        progress: called after each step.
        device: "cpu", "cuda" or "auto".
        cache: folder that keeps the latents of real videos; without it they are encoded at every visit.

    Returns:
        The last checkpoint.

    Raises:
        ValueError: a checkpoint in `out` belongs to another recipe (the fields are named), or `init` does not fit.
        TrainingFailed: the loss is not finite, memory ran out, or the disk is full; the last good checkpoint is kept.
        TrainingInterrupted: Ctrl-C; a checkpoint was written.
    """
    if is_finished(recipe, source, out):
        return out / LAST
    with processes(device) as where, interruptible() as interrupted, writing_in(out):
        return Run(recipe, source, out, where, init, cache).finish(interrupted, progress)


def is_finished(recipe: Recipe, source: Source, out: Path) -> bool:
    """Whether `last.pt` holds the last step; then the folder is only read, and need not be writable.

    Raises:
        ValueError: it belongs to another recipe.
    """
    try:
        found = load_checkpoint(out / LAST)
    except ValueError:
        return False
    check_same_run(found, recipe, source.describe(), out)
    return found.step >= recipe.train.steps


@contextmanager
def writing_in(out: Path) -> Iterator[None]:
    """Turn what the machine has against a folder into words."""
    try:
        yield
    except OSError as error:
        what = f"{error.filename or out}: {error.strerror or error}"
        raise TrainingFailed(f"{what}; free space, or let this user write in {out}, and run it again") from error


class Run:
    """A training run in the middle: everything that changes from step to step, and how it changes."""

    def __init__(
        self,
        recipe: Recipe,
        source: Source,
        out: Path,
        where: Processes,
        init: Mapping[str, Tensor] | None = None,
        cache: Path | None = None,
    ) -> None:
        self.recipe, self.config, self.source, self.out, self.where = recipe, recipe.train, source, out, where
        self.share = where.share(self.config.micro_batches)
        found = load_checkpoint(out) if has_checkpoint(out) else None
        if found:
            check_same_run(found, recipe, source.describe(), out)
        self.system = build_system(recipe)
        load_weights(self.system, found.model if found else started_from(self.system, init or {}))
        self.system.to(where.device).train()
        self.codec = self._codec(found)
        self.cached = None
        if cache and isinstance(source, VideoSource) and not self.config.shuffle_frames:
            self.cached = CachedLatents(source, self.codec, cache)
        prepare(self.system, self.config)
        self.module = distribute(self.system, recipe, where)
        self.optimizers = make_optimizers(self.system, self.config)
        self.average = Average(self.system, self.config.ema)
        self.step = 0
        if found:
            self._restore(found)
        self.log = Log(out / LOG, self.step) if where.first else None

    def _codec(self, found: Checkpoint | None) -> LatentCodec:
        if found is None:
            return fit_codec(self.recipe, self.source).to(self.where.device)
        codec = make_codec(self.recipe.codec)
        codec.load_state_dict(found.codec, strict=False)
        return codec.to(self.where.device)

    def _restore(self, found: Checkpoint) -> None:
        restore_state(self.system, self.optimizers, found.optimizer, like)
        parameters = dict(self.system.named_parameters())
        self.average.weights = {name: like(parameters[name], value) for name, value in found.ema.items()}
        self.step = found.step

    def finish(self, interrupted: threading.Event, progress: Progress | None) -> Path:
        """All steps that are left."""
        while self.step < self.config.steps:
            record = self._advance()
            if progress and self.where.first:
                progress(record, self.config.steps)
            stop = self.where.mean(float(interrupted.is_set()))[0] > 0
            if stop or self.step % self.config.save_every == 0 or self.step == self.config.steps:
                self.save()
            if stop and self.step < self.config.steps:
                raise TrainingInterrupted(f"stopped after step {self.step} of {self.config.steps}; run again to go on")
        return self.out / LAST

    def _advance(self) -> StepRecord:
        """One step, logged."""
        started, lr = time.perf_counter(), self.config.lr_at(self.step)
        try:
            loss, norm = self._gradients()
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise TrainingFailed(not_finite(self.step, loss, norm, self.config, self.out))
            self._update(lr)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise TrainingFailed(out_of_memory(self.step, self.config)) from error
        record = StepRecord(self.step, loss, lr, norm, time.perf_counter() - started)
        if self.log:
            self.log.write(record)
        self.step += 1
        return record

    def _update(self, lr: float) -> None:
        """Move the weights along the gradients, and their average after them."""
        set_lr(self.optimizers, lr)
        for optimizer in self.optimizers:
            optimizer.step()
        self.average.update(self.system, self.step)

    def _gradients(self) -> tuple[float, float]:
        """Loss of the whole batch and norm of its gradient, which is left in the parameters, clipped."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for number in self.share:
            with without_sync(self.module, last=number == self.share[-1]):
                loss = self._loss(number)
                (loss / len(self.share)).backward()  # type: ignore[no-untyped-call]
            total += loss.item() / len(self.share)
        parameters = [p for p in self.system.parameters() if p.grad is not None]
        norm = whole(nn.utils.clip_grad_norm_(parameters, self.config.clip or math.inf))
        return self.where.mean(total)[0], norm.item()

    def _loss(self, number: int) -> Tensor:
        """Flow-matching loss of one micro-batch of this step."""
        config, device = self.config, self.where.device
        latents_BCTYX, captions, generator = self._draw(number, images=config.is_images(self.step))
        pair = training_pair(latents_BCTYX, self.recipe.flow, generator, image=self.recipe.model.attends_to_image)
        options: dict[str, Any] = {} if pair.image is None else {"image": pair.image}
        if config.mask_ratio:
            own = torch.Generator(device).manual_seed(derived_seed(self._seed(number), "mask"))
            options |= {"mask_ratio": config.mask_ratio, "generator": own}
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            velocity = self.module(pair.units, pair.t_B, captions, stage=pair.stage, **options)
        return flow_loss(velocity, pair)

    def _seed(self, number: int) -> int:
        return derived_seed(self.config.seed, self.step, number)

    def _draw(self, number: int, *, images: bool) -> tuple[Tensor, list[str], torch.Generator]:
        """Latents and captions of a micro-batch, some captions dropped, and the generator of what is drawn next."""
        count = self.config.micro_batches
        size = self.config.batch // count
        latents_BCTYX, said = self._clips(self.step * count + number, size, images=images)
        generator = torch.Generator().manual_seed(self._seed(number))
        dropped_B = draw_text_dropout(size, self.recipe.flow, generator).tolist()
        captions = ["" if drop else caption for drop, caption in zip(dropped_B, said, strict=True)]
        return latents_BCTYX, captions, generator

    def _clips(self, place: int, size: int, *, images: bool) -> tuple[Tensor, list[str]]:
        """Latents and captions of batch number `place`."""
        seed, device = self.config.seed, self.where.device
        if self.cached:
            kept = self.cached.batch(place, size, seed=seed, images=images)
            return kept.latents_BCTYX.to(device), kept.captions
        batch = self.source.batch(place, size, seed=seed, images=images)
        video_BTHWC = batch.video_BTHWC
        if self.config.shuffle_frames:
            video_BTHWC = shuffled_frames(video_BTHWC, derived_seed(seed, place))
        return self.codec.encode(video_BTHWC.to(device)), batch.captions

    def save(self) -> None:
        """Write a checkpoint; all processes must call it together, for shards are gathered."""
        frozen = {name for name, p in self.system.named_parameters() if not p.requires_grad}
        state = self.system.state_dict()
        own = {name for name, _ in self.codec.named_parameters()}
        gathered = Checkpoint(
            recipe=self.recipe,
            step=self.step,
            model={name: whole(value) for name, value in state.items() if name not in frozen},
            ema={name: whole(value) for name, value in self.average.weights.items()},
            optimizer=gather_state(self.system, self.optimizers, whole),
            codec={name: whole(value) for name, value in self.codec.state_dict().items() if name not in own},
            data=self.source.describe(),
        )
        if self.where.first:
            save_checkpoint(gathered, self.out)
        self.where.wait()


class Log:
    """The loss log, a JSON object a line. A resumed run first drops what came after its checkpoint."""

    def __init__(self, path: Path, step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        kept = "".join(line + "\n" for line in _complete(path) if (_checked(line) or {"step": step})["step"] < step)
        fresh = path.with_suffix(".part")
        fresh.write_text(kept, encoding="utf-8")
        fresh.replace(path)

    def write(self, record: NamedTuple) -> None:
        """Append a line at once, with its checksum: a kill may lose the last line, never an earlier one.

        Raises:
            OSError: the disk is full.
        """
        fields = record._asdict()
        line = (json.dumps(fields | {_CHECK: _checksum(fields)}) + "\n").encode()
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            if os.write(handle, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        finally:
            os.close(handle)


_CHECK = "crc32"


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log, a step each; none if there is no log.

    Raises:
        ValueError: a line is damaged; names it.
    """
    records = [_checked(line) for line in _complete(path)]
    if None in records:
        raise ValueError(f"{path}, line {records.index(None) + 1}: damaged on disk")
    return [record for record in records if record is not None]


def _checksum(fields: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(fields).encode()):08x}"


def _checked(line: str) -> dict[str, Any] | None:
    """The record of a line; None if it is damaged."""
    try:
        fields: dict[str, Any] = json.loads(line)
        check = fields.pop(_CHECK, None)  # logs of earlier versions have none
        return fields if "step" in fields and check in (None, _checksum(fields)) else None
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


def _complete(path: Path) -> list[str]:
    """The lines of a log that were written to their end."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return text.split("\n")[:-1]


def fit_codec(recipe: Recipe, source: Source) -> LatentCodec:
    """The codec with its statistics measured on the source; the same for all runs on the same data."""
    codec = make_codec(recipe.codec)
    codec.fit(source.batch(k, FIT_SIZE, seed=FIT_SEED).video_BTHWC for k in range(FIT_BATCHES))
    return codec


def started_from(system: System, init: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The system's fresh weights, with those of `init` in their place.

    Raises:
        ValueError: `init` names weights that the system lacks.
    """
    own = system.state_dict()
    if extra := sorted(init.keys() - own.keys()):
        raise ValueError(f"initial weights {', '.join(extra[:3])} ({len(extra)} in all): this system has none of them")
    return own | dict(init)


def prepare(system: System, config: TrainConfig) -> None:
    """Activation checkpointing and compilation, block by block; names of parameters stay as they are."""
    for block in blocks(system):
        if config.activation_checkpointing:
            block.forward = partial(recompute, block.forward, use_reentrant=False)
        if config.compile:
            block.compile()


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the second one stops at once. Only the main thread hears signals."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.getsignal(signal.SIGINT)

    def hear(*_: object) -> None:
        event.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, hear)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


def not_finite(step: int, loss: float, norm: float, config: TrainConfig, out: Path) -> str:
    what = f"the loss became {loss}" if not math.isfinite(loss) else f"the gradient's norm became {norm}"
    kept = f"the last good checkpoint is {out / LAST}" if has_checkpoint(out) else "there was no checkpoint yet"
    hints = [f"lower train.lr (now {config.lr:g})"]
    hints += ["raise train.warmup" if config.warmup else "set train.warmup"]
    hints += ["train in float32"] if config.precision == "bfloat16" else []
    return f"{what} at step {step}; {kept}: {', or '.join(hints)}"


def is_out_of_memory(error: Exception) -> bool:
    """Of a GPU or of the machine; PyTorch's allocator for CPUs has no exception of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def out_of_memory(step: int, config: TrainConfig) -> str:
    size = config.batch // config.micro_batches
    hints = [f"lower train.micro_batch to {size // 2} (now {size})" if size > 1 else "train a smaller clip or model"]
    if not config.activation_checkpointing:
        hints.append("set train.activation_checkpointing")
    return f"out of memory at step {step}: {', or '.join(hints)}"
