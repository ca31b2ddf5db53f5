"""What stays on disk, in bytes; what is not known is named, not counted as nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evalkit.budget import stated
from evalkit.budget.measured import Sizes
from evalkit.budget.models import checkpoint_bytes
from evalkit.budget.rates import Clip
from evalkit.budget.work import Work
from evalkit.flops.work import ModelWork
from evalkit.runner import checkpoints_of

CLIP_UNKNOWN = "the size of the videos is not known: give --frames, --width and --height"
LATENTS_UNKNOWN = "the cache of latents grows with your training data"


@dataclass(frozen=True, slots=True)
class Item:
    """One kind of file.

    Args:
        name: what it is.
        files: how many.
        bytes: of all of them; None if unknown.
        source: where the size of one comes from, or why it is not known.
    """

    name: str
    files: int
    bytes: int | None
    source: str


def storage(
    work: Work, runs: int, clip: Clip, sizes: Sizes, models: tuple[ModelWork, ...] = (), seeds: int = 1
) -> tuple[Item, ...]:
    """The files of all runs together."""
    items = [_videos(work, runs, clip, sizes), _posters(work, runs, sizes), _records(work, runs, sizes)]
    weights = _weights(work)
    if weights.files:
        items.append(weights)
    if models:
        trained = sum(seeds if model.seeds else 1 for model in models)
        total = sum(checkpoint_bytes(model) * (seeds if model.seeds else 1) for model in models)
        items.append(Item("checkpoints", 2 * trained, total, "16 bytes a parameter: weights, moving average, moments"))
        items.append(Item("latents", 0, None, LATENTS_UNKNOWN))
    return tuple(items)


def _videos(work: Work, runs: int, clip: Clip, sizes: Sizes) -> Item:
    files = work.files * runs
    if clip.frames is None or clip.pixels is None:
        return Item("videos", files, None, CLIP_UNKNOWN)
    each = clip.frames * clip.pixels
    if sizes.per_pixel is not None:
        return Item("videos", files, round(files * each * sizes.per_pixel), "measured bytes a pixel")
    return Item("videos", files, round(files * each * stated.BYTES_PER_PIXEL), f"stated: {stated.BYTES_SOURCE}")


def _posters(work: Work, runs: int, sizes: Sizes) -> Item:
    each, source = (
        (stated.POSTER_BYTES, f"stated: {stated.RECORD_SOURCE}") if sizes.poster is None else (sizes.poster, "measured")
    )
    return Item("posters", work.videos * runs, round(work.videos * runs * each), source)


def _records(work: Work, runs: int, sizes: Sizes) -> Item:
    """Journal, table and summary grow with the results."""
    results = sum(work.results.values()) * runs
    if sizes.per_result is None:
        size, source = stated.RECORD_BYTES_PER_RESULT, f"stated: {stated.RECORD_SOURCE}"
        return Item("journal, tables", 3 * runs, results * size, source)
    return Item("journal, tables", 3 * runs, round(results * sizes.per_result), "measured bytes a result")


def _weights(work: Work) -> Item:
    """The networks' checkpoints, once for all runs."""
    if work.profile == "lite":
        return Item("networks", 0, 0, "none")
    from evalkit.metrics import registry

    metrics = [metric for metric in registry(work.profile).values() if metric.name in work.features]
    if work.static_filter:
        from evalkit.static_filter import STATIC_FILTER

        metrics.append(STATIC_FILTER)
    files = {c.file: c.size for c in checkpoints_of(metrics).values()}
    known = sum(files.values()) if all(files.values()) else None
    unknown = [Path(file).name for file, size in files.items() if not size]
    return Item(
        "networks", len(files), known, f"no size is published of {', '.join(unknown)}" if unknown else "published"
    )
