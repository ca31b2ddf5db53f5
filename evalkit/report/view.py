"""Run records as the page shows them: labelled runs, and one flat list of videos that sections refer to by index."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.cost_record import CostRecord
from evalkit.records import RunRecord

N_COLOURS = 6
"""Series colours that page.css defines; further runs start again."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A run directory, or a variant of an ablation, with its place on the page."""

    index: int

    @property
    def label(self) -> str:
        """A, B, ..., Z, AA, ...: short enough for column heads and legends."""
        letters, n = "", self.index
        while n >= 0:
            letters, n = chr(ord("A") + n % 26) + letters, n // 26 - 1
        return letters

    @property
    def series(self) -> int:
        """Which series colour stands for the run."""
        return self.index % N_COLOURS


@dataclass(frozen=True, slots=True)
class ShownCost(Shown):
    """The cost of a model; `run` is the scored run of the same directory, None if nothing was scored there."""

    record: CostRecord
    run: ShownRun | None

    @property
    def name(self) -> str:
        return self.record.name


@dataclass(frozen=True, slots=True)
class ShownRun(Shown):
    """A scored run."""

    record: RunRecord

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def summary(self) -> dict[str, Any]:
        return self.record.summary

    @property
    def manifest(self) -> dict[str, Any]:
        return self.record.manifest

    @property
    def lite(self) -> bool:
        return bool(self.summary["profile"] == "lite")

    @property
    def caveats(self) -> list[dict[str, str]]:
        """What keeps the scores from being comparable with the leaderboard's."""
        return list(self.summary.get("comparability", []))

    @property
    def reduced(self) -> bool:
        """Whether the networks ran in less than float32."""
        return bool(self.summary["precision"] != "fp32")

    @property
    def imported(self) -> bool:
        """Whether the scores were read from files of the official package; then nobody recorded how they came about."""
        return self.manifest.get("imported") is not None

    @property
    def dimensions(self) -> dict[str, dict[str, Any]]:
        return dict(self.summary["dimensions"])


@dataclass(frozen=True, slots=True)
class Video:
    """One video of one run.

    `media` names its poster and clip; None if it could not be decoded. `scores` are raw fractions.
    """

    index: int
    run: int
    file: str
    prompt_id: str
    prompt: str
    seed: int | None
    media: str | None
    facts: str
    scores: Mapping[str, float]
    unscored: Mapping[str, str]


def place(runs: Sequence[RunRecord], costs: Sequence[CostRecord]) -> tuple[tuple[ShownRun, ...], tuple[ShownCost, ...]]:
    """Label scored runs, then directories that hold nothing but cost; a run and its own cost share one label."""
    shown = tuple(ShownRun(index, run) for index, run in enumerate(runs))
    by_path = {run.record.path.resolve(): run for run in shown}
    beside = [(cost, by_path[cost.path.resolve()]) for cost in costs if cost.path.resolve() in by_path]
    alone = [cost for cost in costs if cost.path.resolve() not in by_path]
    return shown, (
        *(ShownCost(run.index, cost, run) for cost, run in sorted(beside, key=lambda pair: pair[1].index)),
        *(ShownCost(len(shown) + n, cost, None) for n, cost in enumerate(alone)),
    )


def list_videos(runs: Sequence[ShownRun]) -> tuple[Video, ...]:
    """All videos of all runs, in the order of their records."""
    return tuple(
        Video(
            index,
            run.index,
            row["file"],
            row["prompt_id"],
            row["prompt"],
            row["seed"],
            row["sha256"][:16] if row["sha256"] else None,
            facts,
            row["scores"],
            row["unscored"],
        )
        for index, (run, row, facts) in enumerate(_rows(runs))
    )


def _rows(runs: Sequence[ShownRun]) -> Iterator[tuple[ShownRun, dict[str, Any], str]]:
    for run in runs:
        facts = _facts(run.record)
        for row in run.summary["videos"]:
            yield run, row, facts.get(row["file"], "")


def _facts(record: RunRecord) -> dict[str, str]:
    """Size, length and rate of each file, in words."""
    opened = record.results.dropna(subset=["width", "height", "n_frames", "fps"]).drop_duplicates("file")
    columns = (opened[name] for name in ("file", "width", "height", "n_frames", "fps"))
    return {
        file: f"{width} × {height}, {frames} {'frame' if frames == 1 else 'frames'}, {fps:.4g} fps"
        for file, width, height, frames, fps in zip(*columns, strict=True)
    }


def video_path(run: ShownRun, file: str) -> Path | None:
    """Where a video of the run lies; None if its name leads out of the videos folder."""
    folder = Path(run.manifest["videos_dir"])
    inside = Path(file)
    return None if inside.is_absolute() or ".." in inside.parts else folder / inside


def all_dimensions(runs: Sequence[ShownRun]) -> tuple[str, ...]:
    """The dimensions of all runs, each once, in the order in which the records list them."""
    return tuple(dict.fromkeys(name for run in runs for name in run.dimensions))


def extremes(videos: Sequence[Video], run: ShownRun, dimension: str, n: int) -> tuple[list[Video], list[Video]]:
    """The `n` best and the `n` worst videos of a run, best and worst first; no video is in both."""
    scored = [video for video in videos if video.run == run.index and dimension in video.scores]
    sign = 1 if run.dimensions[dimension]["higher_is_better"] else -1
    n_best = min(n, (len(scored) + 1) // 2)
    best = heapq.nlargest(n_best, scored, key=lambda v: (sign * v.scores[dimension], -v.index))
    worst = heapq.nsmallest(min(n, len(scored) - n_best), scored, key=lambda v: (sign * v.scores[dimension], -v.index))
    return best, worst
