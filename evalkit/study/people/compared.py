"""Pairs of clips, as people judged them and as one score does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from evalkit.stats import FloatArray
from evalkit.study.people import measures
from evalkit.study.people.judged import JudgedPair, credit
from evalkit.study.people.measures import IntArray
from evalkit.study.people.record import ClipCorrelation, PairAgreement

TIE = 1e-12
"""Scores that differ by less than this share of the larger are equal on paper; sums in another order round so."""

Scores = Mapping[str, float]
Videos = tuple[str | None, str | None]
"""The files of the two clips of a pair; None where the run has none."""


@dataclass(frozen=True, slots=True)
class ComparedPairs:
    """The judged pairs of clips of which both are scored.

    Args:
        gap_J: by how much the first clip scores better.
        margin_J: by how many votes it is preferred, as a share.
        one_rater_J: credit of one rater against the others; NaN with a single rater.
        prompts_J: place of the prompt.
    """

    gap_J: FloatArray
    margin_J: FloatArray
    one_rater_J: FloatArray
    prompts_J: IntArray

    def __len__(self) -> int:
        return len(self.gap_J)

    def agreement(self, seed: int) -> PairAgreement:
        """How often the better-scored clip is the preferred one."""
        credit_J = credit(self.gap_J, self.margin_J)
        again_J = np.isfinite(self.one_rater_J)
        one_rater = None
        if again_J.any():
            one_rater = measures.agreement(self.one_rater_J[again_J], self.prompts_J[again_J], seed)
        return PairAgreement(
            n=len(self),
            n_prompts=len(np.unique(self.prompts_J)),
            share=measures.agreement(credit_J, self.prompts_J, seed),
            tied_people=int(np.sum(self.margin_J == 0)),
            tied_scores=int(np.sum(self.gap_J == 0)),
            p_value=measures.chance_p_value(credit_J - 0.5, self.prompts_J, seed),
            one_rater=one_rater,
            n_one_rater=int(again_J.sum()),
        )

    def correlation(self, counts_RP: FloatArray, seed: int) -> ClipCorrelation | None:
        """How score differences go with majorities; None where either side ties all pairs."""
        rho = measures.clip_correlation(self.gap_J, self.margin_J, self.prompts_J, counts_RP)
        if rho is None:
            return None
        products_J = measures.rank_products(self.gap_J, self.margin_J)
        return ClipCorrelation(rho, measures.chance_p_value(products_J, self.prompts_J, seed))


def compare(
    judged: Iterable[tuple[JudgedPair, Videos]],
    scores: Mapping[str, Scores],
    prompts: Mapping[str, int],
    higher_is_better: bool,
) -> ComparedPairs:
    """Set scores beside the votes.

    Args:
        judged: pairs with the files of their clips.
        scores: by file, by model.
        prompts: place of each prompt.
        higher_is_better: direction of the score.
    """
    kept: list[tuple[JudgedPair, float]] = []
    for pair, (file_a, file_b) in judged:
        a, b = (scores[model].get(file or "") for model, file in ((pair.a, file_a), (pair.b, file_b)))
        if a is not None and b is not None:
            gap = 0.0 if abs(a - b) <= TIE * max(abs(a), abs(b)) else a - b
            kept.append((pair, gap if higher_is_better else -gap))
    return ComparedPairs(
        np.array([gap for _, gap in kept], dtype=np.float64),
        np.array([pair.margin for pair, _ in kept], dtype=np.float64),
        np.array([np.nan if pair.one_rater is None else pair.one_rater for pair, _ in kept], dtype=np.float64),
        np.array([prompts[pair.prompt_id] for pair, _ in kept], dtype=np.intp),
    )
