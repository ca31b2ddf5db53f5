"""A published study, of which only mean ranks are known: standings, duels over prompts, and what they cannot show.

Axes: P prompts, M models.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evalkit.stats import FloatArray
from evalkit.study.forms.mean_ranks import MeanRanks
from evalkit.study.published.rank_table import RankTable, understand
from evalkit.study.statistics.conclude import prompt_level_duels, prompt_level_means, with_holm
from evalkit.study.statistics.intervals import bounded
from evalkit.study.statistics.resampling import resample, spread
from evalkit.study.types import AxisResult, Estimate, Standing, StudyResult


def conclude_published(table: MeanRanks, *, as_printed: bool = False, seed: int = 0) -> StudyResult:
    """The figures of a table of mean ranks; a prompt, not a rater, is the unit of its shares and intervals.

    Args:
        table: as read.
        as_printed: leave misprints as they are; else what one digit explains is mended. Both are listed as faults.
        seed: of the resampling.

    Raises:
        UserError: its figures are no mean ranks.
    """
    found = understand(table, as_printed=as_printed)
    return StudyResult(
        source=_source(table),
        unit="prompt",
        protocol="rank",
        models=found.models,
        axes=with_holm([_axis(axis, found, seed) for axis in found.ranks_PM]),
        screening=None,
        scale=found.scale,
        direction="lower is better",
        faults=found.faults,
        caveats=(*_caveats(found), *_wording(as_printed, found)),
    )


def _source(table: MeanRanks) -> str:
    printed = [source for source in dict.fromkeys(table.sources.values()) if source]
    return f"{table.source} ({'; '.join(printed)})" if printed else table.source


def _axis(axis: str, found: RankTable, seed: int) -> AxisResult:
    ranks_PM = found.ranks_PM[axis]
    n = len(ranks_PM)
    if not n:
        nothing = tuple(Standing(model, 0, None, None, None, None) for model in found.models)
        return AxisResult(axis, 0, None, 0, nothing, (), notes=("No prompt has a figure for every model.",))
    figures = zip(found.models, prompt_level_means(ranks_PM, seed=seed), _win_rates(ranks_PM, seed=seed), strict=True)
    placed = sorted(figures, key=lambda figure: figure[1].value)
    standings = tuple(Standing(model, n, rank, rate, None, None) for model, rank, rate in placed)
    return AxisResult(axis, n, None, n, standings, prompt_level_duels(ranks_PM, found.models, seed=seed))


def _win_rates(ranks_PM: FloatArray, *, seed: int) -> Sequence[Estimate | None]:
    """Each model's share of prompts won, a tie being half, each opponent weighing alike."""
    wins_PMM = (ranks_PM[:, :, None] < ranks_PM[:, None, :]) + 0.5 * (ranks_PM[:, :, None] == ranks_PM[:, None, :])
    rates_PM = (wins_PMM.sum(axis=2) - 0.5) / (ranks_PM.shape[1] - 1)  # a model ties with itself
    prompts_P = np.arange(len(ranks_PM))
    counted = np.concatenate([rates_PM, np.ones((len(rates_PM), 1))], axis=1)
    drawn = resample(counted, np.zeros_like(prompts_P), prompts_P, seed=seed)
    return bounded(spread(drawn, lambda sums_BK: sums_BK[:, :-1] / sums_BK[:, -1:]), 0.0, 1.0)


# ---- what to know ----------------------------------------------------------------------------------------------------


def _caveats(found: RankTable) -> list[str]:
    m = len(found.models)
    total = m * (m + 1) // 2
    if found.scale == 1:
        scale = "The figures are on the scale of ranks"
    else:
        name = "halved ranks" if found.scale == 2 else f"ranks divided by {found.scale:g}"
        scale = f"The printed figures are {name} (rank = {found.scale:g} x figure)"
    return [
        "Win rates are prompt-level, not rater-level: the better mean rank takes the whole prompt, however close the"
        " raters were. They say on how many prompts a model is ahead, and lie further from one half than the share of"
        " raters who prefer it.",
        f"{scale}, found from the sums: those of {found.n_sound} of {found.n_rows} rows (a prompt and axis each) are"
        f" {found.total:g}, and ranks 1 to {m} sum to {total}.",
        *_direction(found),
        *_raters(found),
        "Intervals and tests are over prompts: they hold for other prompts and the same raters. Agreement of raters,"
        " Bradley-Terry and Plackett-Luce need single answers.",
    ]


def _direction(found: RankTable) -> list[str]:
    """The sums cannot tell 1 to M from M to 1, so this rests on what a rank means; say what else it would be."""
    means = {axis: ranks_PM.mean(axis=0) for axis, ranks_PM in found.ranks_PM.items() if len(ranks_PM)}
    last = "; ".join(f"{found.models[int(np.argmax(mean_M))]} on {axis}" for axis, mean_M in means.items())
    return [
        "Lower is better: the figures are ranks, and rank 1 is the best. That is the meaning of a rank and not found"
        f" from the figures, whose sums would be the same the other way round; then the best would be {last}."
    ]


def _raters(found: RankTable) -> list[str]:
    grid = found.grid
    if grid is None or grid.raters < 2:
        return ["How many raters there were cannot be told from the figures."]
    return [
        f"At least {grid.raters} raters ranked each prompt (a multiple of {grid.raters}, if all prompts had the same"
        f" number and no ties): the figures are multiples of {grid.step}. This is inferred, the table does not say it."
    ]


def _wording(as_printed: bool, found: RankTable) -> list[str]:
    if as_printed and found.n_sound < found.n_rows:
        return ["Misprints are used as printed; without --as-printed, those that one digit explains are mended."]
    return [
        f"{fault.where} is used with a misprint mended ({change}); --as-printed uses the table as it is."
        for fault in found.faults
        if fault.repair and "->" in (change := fault.repair.partition(":")[0])
    ]
