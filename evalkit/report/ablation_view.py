"""An ablation as the page shows it: labelled variants, their scored runs, and the samples that stand side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from evalkit.ablation_record import AblationRecord, ComparedMetric, TrainedVariant, load_ablation
from evalkit.records import load_run
from evalkit.report.view import Shown, ShownRun, Video

TRUTH = "truth/"
"""What the names of metrics begin with that know from the prompt's scene what must be seen."""
N_FIRST, N_DIFFERENT = 3, 5
"""Prompts shown side by side: the first ones of the suite, and those in which the variants differ most."""


@dataclass(frozen=True, slots=True)
class ShownVariant(Shown):
    """A variant with its place on the page: the baseline is A."""

    record: TrainedVariant

    @property
    def name(self) -> str:
        return self.record.name


@dataclass(frozen=True, slots=True)
class SeedRun(ShownRun):
    """A scored run of an ablation: the videos of one variant, trained with one seed. It has its variant's colour."""

    variant: ShownVariant
    seed: int
    alone: bool

    @property
    def label(self) -> str:
        return self.variant.label if self.alone else f"{self.variant.label}{self.seed}"

    @property
    def series(self) -> int:
        return self.variant.series

    @property
    def name(self) -> str:
        return f"{self.variant.name}, training seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Row:
    """The videos of one prompt: of each training seed one a variant, None where there is none.

    `spread` is by how much the variants' truth scores differ (a fraction); None for the first prompts of the suite.
    """

    prompt_id: str
    prompt: str
    spread: float | None
    cells: Mapping[int, tuple[Video | None, ...]]


@dataclass(frozen=True, slots=True)
class ShownAblation:
    """An ablation's record with its variants and scored runs."""

    path: Path
    record: AblationRecord
    variants: tuple[ShownVariant, ...]
    runs: tuple[SeedRun, ...]

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def variant(self, name: str) -> ShownVariant:
        """The variant of that name."""
        return next(variant for variant in self.variants if variant.name == name)

    def compared(self, variant: ShownVariant) -> dict[str, ComparedMetric]:
        """What a variant was found to change, by metric; empty for the baseline."""
        return {c.metric: c for c in self.record.comparisons if c.variant == variant.name}

    @property
    def metrics(self) -> tuple[str, ...]:
        """All metrics of all variants, those that know the truth first."""
        found = list(dict.fromkeys(name for variant in self.record.variants for name in variant.metrics))
        return tuple(sorted(found, key=lambda name: not name.startswith(TRUTH)))


def show_ablation(path: Path) -> ShownAblation:
    """Read an ablation's record and all its scored runs.

    Raises:
        UserError: the record or one of the runs cannot be read.
    """
    record = load_ablation(path)
    variants = tuple(ShownVariant(index, variant) for index, variant in enumerate(record.variants))
    places = [(v, seed, run) for v in variants for seed, run in zip(record.seeds, v.record.runs, strict=True)]
    alone = len(record.seeds) == 1
    runs = (
        SeedRun(index, load_run(path / run, whole=True), variant, seed, alone)
        for index, (variant, seed, run) in enumerate(places)
    )
    return ShownAblation(path, record, variants, tuple(runs))


def sample_rows(shown: ShownAblation, videos: Sequence[Video]) -> tuple[Row, ...]:
    """The first prompts of the suite, then those in which the variants' truth scores differ most, most first."""
    of_prompt: dict[str, list[Video]] = {}
    for video in videos:
        of_prompt.setdefault(video.prompt_id, []).append(video)
    first = sorted(of_prompt)[:N_FIRST]
    spreads = {prompt: truth_spread(shown, found) for prompt, found in of_prompt.items() if prompt not in first}
    different = sorted((p for p in spreads if spreads[p] > 0), key=lambda p: (-spreads[p], p))[:N_DIFFERENT]
    return tuple(_row(shown, of_prompt[prompt], spreads.get(prompt)) for prompt in (*first, *different))


def _row(shown: ShownAblation, videos: Sequence[Video], spread: float | None) -> Row:
    by_run: dict[int, Video] = {}
    for video in videos:
        by_run.setdefault(video.run, video)
    cells = {
        seed: tuple(by_run.get(run.index) for run in shown.runs if run.seed == seed) for seed in shown.record.seeds
    }
    return Row(videos[0].prompt_id, videos[0].prompt, spread, cells)


def truth_spread(shown: ShownAblation, videos: Iterable[Video]) -> float:
    """Best minus worst of the variants' truth scores, each a mean over seeds and facts; 0 unless two have any."""
    of_variant: dict[str, list[float]] = {}
    for video in videos:
        values = [value for name, value in video.scores.items() if name.startswith(TRUTH)]
        if values:
            of_variant.setdefault(shown.runs[video.run].variant.name, []).append(fmean(values))
    means = [fmean(values) for values in of_variant.values()]
    return max(means) - min(means) if len(means) > 1 else 0.0


def moving_mean(values: Sequence[float], half: int = 2) -> list[float]:
    """Each value's mean with `half` neighbours to either side; at the start fewer, where a loss falls fast."""
    return [fmean(values[max(0, i - half) : i + min(half, i) + 1]) for i in range(len(values))]
