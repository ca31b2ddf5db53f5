"""From what a user gives, and what was measured, to the rates and the videos of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from evalkit.budget.measured import Sizes, measure
from evalkit.budget.rates import Clip, Rate, Rates
from evalkit.budget.stated import WORKER_S, stated_rates
from evalkit.budget.work import Work
from evalkit.errors import UserError
from evalkit.flops.work import ModelWork
from evalkit.protocol import FLICKERING


@dataclass(frozen=True, slots=True)
class Resolved:
    """Rates for videos of `clip`, sizes of files, and the commands that were not used."""

    rates: Rates
    clip: Clip
    sizes: Sizes = field(default_factory=Sizes)
    left_out: tuple[str, ...] = ()


def resolve(
    work: Work,
    runs: Sequence[Path],
    asked: Clip,
    models: Sequence[ModelWork] = (),
    decode_fps: float | None = None,
) -> Resolved:
    """Measured rates where there are runs, stated ones for the rest; sizes as asked, as generated, or as measured.

    Raises:
        UserError: a run without timings, nothing measured and nothing stated, or a rate of decoding that is none.
    """
    if decode_fps is not None and not 0 < decode_fps < float("inf"):
        raise UserError(f"--decode-fps {decode_fps:g} is no rate.", "Give the frames that one core decodes a second.")
    if asked.fps is not None and not 0 < asked.fps < float("inf"):
        raise UserError(f"--fps {asked.fps:g} is no rate.", "Give the frames a second, such as 24.")
    if not runs:
        return Resolved(stated_rates(work), _clip(asked, models, Clip()))
    found = measure(runs)
    _require_some(work, found.rates, runs)
    clip = _clip(asked, models, found.rates.clip)
    rates = found.rates.scaled(clip)
    if rates.start is None:
        rates = replace(rates, start=Rate.exactly(WORKER_S[work.profile]))
    if work.profile == "official":
        rates = replace(rates, per_result=stated_rates(work).per_result)
    if decode_fps is not None:
        seconds = (clip.frames or 0.0) / decode_fps
        rates = replace(rates, decode=Rate.exactly(seconds), decode_source=f"given: {decode_fps:g} frames a second")
    return Resolved(rates, clip, found.sizes, found.left_out)


def _require_some(work: Work, rates: Rates, runs: Sequence[Path]) -> None:
    """Flickering is the same in all profiles, and so says nothing of the others' networks."""
    lacking = rates.unmeasured(work)
    others = [dimension for dimension in work.results if dimension != FLICKERING]
    if others and all(dimension in lacking for dimension in others):
        raise UserError(
            f"{', '.join(map(str, runs))}: none of the networks that this plan needs was measured.",
            f"Give --from a run of the {work.profile} profile with some of these dimensions.",
        )


def count_variants(asked: int | None, models: Sequence[ModelWork]) -> int:
    """How many models are scored.

    Raises:
        UserError: a number beside ablations, which say it themselves.
    """
    trained = sum(model.seeds for model in models)
    if models and asked not in (None, trained):
        raise UserError(
            f"--variants {asked}, but the ablations have {trained} with the baseline.", "Leave --variants out."
        )
    return trained or asked or 1


def _clip(asked: Clip, models: Sequence[ModelWork], measured: Clip) -> Clip:
    frames, height, width = models[0].clip if models else (None, None, None)
    return Clip(
        asked.frames or frames or measured.frames,
        asked.width or width or measured.width,
        asked.height or height or measured.height,
        asked.fps or measured.fps,
    )
