"""One axis: every score against the votes on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evalkit.stats import FloatArray
from evalkit.study.people import measures
from evalkit.study.people.compared import Videos, compare
from evalkit.study.people.judged import JudgedPair, judged_pairs, wins_by_prompt
from evalkit.study.people.means import Counted, model_means
from evalkit.study.people.models import ModelScores, model_correlation
from evalkit.study.people.recipes import Recipe
from evalkit.study.people.record import AxisAgainstPeople, ClipCorrelation, PairAgreement, ScoreAgainstPeople
from evalkit.study.people.scored import ScoredClips
from evalkit.study.people.standing import Standings, voted_standings
from evalkit.study.types import Vote


@dataclass(frozen=True)
class JudgedAxis:
    """The votes on one axis, beside the clips that they are about.

    Args:
        axis: its name.
        votes: on it.
        everybody: all models of the study.
        clips: of the models with a run, in the order of the study.
        seed: of the resampling.
        n_resamples: bootstrap resamples of the prompts.
    """

    axis: str
    votes: tuple[Vote, ...]
    everybody: tuple[str, ...]
    clips: Mapping[str, ScoredClips]
    seed: int
    n_resamples: int

    @cached_property
    def prompts(self) -> dict[str, int]:
        """The place of each prompt: sorted, so that a seeded resample does not depend on the order of the votes."""
        return {prompt: place for place, prompt in enumerate(sorted({vote.prompt_id for vote in self.votes}))}

    @cached_property
    def counts_RP(self) -> FloatArray:
        """The resamples of the prompts, the same for all scores."""
        return measures.draw_prompts(len(self.prompts), self.n_resamples, self.seed)

    @cached_property
    def pairs(self) -> list[tuple[JudgedPair, Videos]]:
        """What people compared, with the files of the clips."""
        judged = judged_pairs(self.votes, tuple(self.clips))
        asked = {pair.clip for pair in judged}
        files = {model: {clip: clips.file(clip) for clip in asked} for model, clips in self.clips.items()}
        return [(pair, (files[pair.a][pair.clip], files[pair.b][pair.clip])) for pair in judged]

    @cached_property
    def counted(self) -> dict[str, Counted]:
        """The judged videos of each model."""
        prompts: dict[str, dict[str, int]] = {model: {} for model in self.clips}
        for pair, files in self.pairs:
            for model, file in zip((pair.a, pair.b), files, strict=True):
                if file is not None:
                    prompts[model][file] = self.prompts[pair.prompt_id]
        return {model: Counted(clips, prompts[model]) for model, clips in self.clips.items()}

    @cached_property
    def standings(self) -> Standings:
        """Of the models with a run, from the votes on all models."""
        wins_PMM, ties_PMM = wins_by_prompt(self.votes, self.everybody, self.prompts)
        found = voted_standings(wins_PMM, ties_PMM, self.counts_RP)
        return found.of([self.everybody.index(model) for model in self.clips])

    @property
    def compares_clips(self) -> bool:
        """Whether any pair of clips that people compared is in the runs."""
        return any(a is not None and b is not None for _, (a, b) in self.pairs)

    def conclude(self, recipes: Sequence[Recipe]) -> AxisAgainstPeople:
        """Every score against the votes."""
        n_votes = sum(sum(model in self.clips for model in vote.models) > 1 for vote in self.votes)
        return AxisAgainstPeople(self.axis, self.standings.kind, n_votes, tuple(map(self._score, recipes)))

    def _score(self, recipe: Recipe) -> ScoreAgainstPeople:
        scores = {model: clips.scores(recipe) for model, clips in self.clips.items()}
        unscored = {m: sum(file not in scores[m] for file in counted.prompts) for m, counted in self.counted.items()}
        compared = compare(self.pairs, scores, self.prompts, recipe.higher_is_better)
        pairs = compared.agreement(self.seed) if len(compared) else None
        clips = compared.correlation(self.counts_RP, self.seed) if len(compared) else None
        models = model_correlation(tuple(self.clips), self._means(recipe), self.standings, seed=self.seed)
        return ScoreAgainstPeople(
            name=recipe.name,
            is_total=recipe.is_total,
            higher_is_better=recipe.higher_is_better,
            pairs=pairs,
            clips=clips,
            models=models,
            unscored={model: n for model, n in unscored.items() if n},
            notes=tuple(_notes(recipe, pairs, clips, models is not None)),
        )

    def _means(self, recipe: Recipe) -> ModelScores:
        weights_RP = np.concatenate([np.ones((1, len(self.prompts))), self.counts_RP])
        means_RM = model_means(recipe, list(self.counted.values()), weights_RP)
        return ModelScores(means_RM[0], means_RM[1:], len(self.prompts), recipe.higher_is_better)


def _notes(
    recipe: Recipe, pairs: PairAgreement | None, clips: ClipCorrelation | None, over_models: bool
) -> Iterator[str]:
    """Why a figure is missing."""
    if pairs is None and len(recipe.slopes) > 1:
        yield (
            f"No pair of judged clips is scored in all of its {len(recipe.slopes)} dimensions (a prompt may ask for"
            " some of them only): it is a score of models, not of clips."
        )
    elif pairs is None:
        yield "No pair of judged clips has this score."
    elif clips is None:
        side = "The scores tie" if pairs.tied_scores == pairs.n else "People tie"
        yield f"{side} all pairs of clips: no correlation can be told."
    if not over_models:
        yield "Fewer than two models have this score."
