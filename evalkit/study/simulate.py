"""Simulated raters with known preferences, to test what is concluded from votes and what stores them.

To a rater, a clip is worth

    log-worth = its model's on the axis + rater's effect on the model + prompt's effect on the model,

the effects being normal with mean 0, drawn once for each axis, model, and rater or prompt. Given the worths, an answer
follows the Davidson-Luce model (Firth, Kosmidis and Turner 2019, "Davidson-Luce model for multi-item choice with
ties"): of the clips left, one comes next with weight w, or two tie for next with weight v sqrt(w w'). Without ties
(v = 0) that is Plackett-Luce, of two clips it is Davidson's model, of both Bradley-Terry. In `likert5` a preference is
called strong with probability 1 / (1 + exp(1 - gap)), gap being by how much the preferred clip's log-worth is greater.

Careless raters answer as if all clips were worth the same. The others see through attention checks: a clip shown twice
is put beside itself, and a spoiled clip loses so much of its worth that it comes last.

Axes: M models or clips, V answers, W ways to go on with a ranking.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from evalkit.stats import FloatArray
from evalkit.study.answers import competition
from evalkit.study.types import Answer, Protocol, Screen, StudyClip, Vote

SPOILED = 24.0
"""Log-worth that a clip loses when it is spoiled."""

_NODES = 61  # of the quadrature over a normal distribution

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Raters:
    """Simulated raters.

    Args:
        models: labels.
        log_worths: of the models, by axis.
        rater_sd: standard deviation of a rater's effect on a model.
        prompt_sd: standard deviation of a prompt's effect on a model.
        tie: weight v of a tie; two clips of equal worth have weight 1 each.
        careless: share of raters who answer at random.
        seed: of everything drawn; a rater answers a screen the same way whenever asked.
    """

    models: tuple[str, ...]
    log_worths: Mapping[str, tuple[float, ...]]
    rater_sd: float = 0.0
    prompt_sd: float = 0.0
    tie: float = 0.0
    careless: float = 0.0
    seed: int = 0

    def is_careless(self, rater: str) -> bool:
        """Whether a rater answers at random."""
        return bool(self._rng("careless", rater).random() < self.careless)

    def answer(
        self, rater: str, screen: Screen, clips: Mapping[str, StudyClip], protocol: Protocol, *, ties: bool = True
    ) -> dict[str, Answer]:
        """What a rater answers to one screen of a plan, by axis.

        Args:
            rater: pseudonym.
            screen: the screen.
            clips: of the plan, by id.
            protocol: how it is answered.
            ties: whether clips may be called equal.
        """
        careless = self.is_careless(rater)
        seen = list(range(len(screen.clips))) if careless else [screen.clips.index(clip) for clip in screen.clips]
        places = [self.models.index(clips[clip].model) for clip in screen.clips]
        spoiled_M = np.array([SPOILED * clips[clip].degraded for clip in screen.clips])
        answers: dict[str, Answer] = {}
        for axis in self.log_worths:
            worths_M = self._rater_worths(axis, rater)[places] + self._prompt_worths(axis, screen.prompt_id)[places]
            worths_M = np.zeros(len(places)) if careless else worths_M - spoiled_M
            rng = self._rng("answer", axis, rater, screen.prompt_id, *screen.clips)
            first_seen = sorted(set(seen))
            ranks_1M = _ranks(worths_M[None, first_seen], self.tie if ties else 0.0, rng)
            rank = dict(zip(first_seen, ranks_1M[0].tolist(), strict=True))
            ranks = competition([(rank[clip], 0 if ties else place) for place, clip in enumerate(seen)])
            if protocol == "rank":
                answers[axis] = ranks
            else:
                answers[axis] = (int(_levels(np.array([ranks]), worths_M[None], protocol, rng)[0]),)
        return answers

    def votes(
        self,
        protocol: Protocol,
        prompts: Sequence[str],
        *,
        n_raters: int,
        n_screens: int,
        shown: int | None = None,
        ties: bool = True,
    ) -> tuple[Vote, ...]:
        """Votes of a whole study; each rater sees prompts and models drawn at random.

        Args:
            protocol: how screens are answered.
            prompts: prompt ids.
            n_raters: raters, called r001 and so on.
            n_screens: prompts that each rater sees, none twice.
            shown: models on a screen; by default all in `rank`, two in the other protocols.
            ties: whether clips may be called equal.
        """
        shown = shown or (len(self.models) if protocol == "rank" else 2)
        rng = self._rng("screens")
        raters = [f"r{r + 1:03d}" for r in range(n_raters)]
        rater_V = np.repeat(np.arange(n_raters), n_screens)
        prompt_V = np.concatenate([rng.permutation(len(prompts))[:n_screens] for _ in raters])
        models_VM = rng.permuted(np.tile(np.arange(len(self.models)), (len(rater_V), 1)), axis=1)[:, :shown]
        attentive_V = ~np.array([self.is_careless(rater) for rater in raters])[rater_V]
        found: list[Vote] = []
        for axis in self.log_worths:
            by_rater = np.stack([self._rater_worths(axis, rater) for rater in raters])
            by_prompt = np.stack([self._prompt_worths(axis, prompt) for prompt in prompts])
            worths_VM = np.take_along_axis(by_rater[rater_V] + by_prompt[prompt_V], models_VM, axis=1)
            worths_VM *= attentive_V[:, None]
            draws = self._rng("votes", axis)
            ranks_VM = _ranks(worths_VM, self.tie if ties else 0.0, draws)
            levels_V = _levels(ranks_VM, worths_VM, protocol, draws).tolist() if protocol == "likert5" else None
            for v, (models, ranks) in enumerate(zip(models_VM.tolist(), ranks_VM.tolist(), strict=True)):
                names = tuple(self.models[m] for m in models)
                level = None if levels_V is None else levels_V[v]
                found.append(Vote(raters[rater_V[v]], prompts[prompt_V[v]], None, axis, names, tuple(ranks), level))
        return tuple(found)

    def chances(self, axis: str, *, ties: bool = True) -> tuple[FloatArray, FloatArray]:
        """Probabilities (M, M) that a random rater prefers the model of the row, and calls the two equal.

        For two clips of a random prompt, and for pairs within rankings without ties; by quadrature over the effects.
        These are what shares and win rates estimate; Bradley-Terry strengths fitted to them are what fitted strengths
        estimate.
        """
        worths_M = np.array(self.log_worths[axis])
        nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
        spread = np.sqrt(2 * (self.rater_sd**2 + self.prompt_sd**2))
        gaps_MMN = worths_M[:, None, None] - worths_M[:, None] + spread * nodes
        v, share_N = self.tie if ties else 0.0, weights / weights.sum()
        total_MMN = np.exp(gaps_MMN / 2) + np.exp(-gaps_MMN / 2) + v
        win_MM = (np.exp(gaps_MMN / 2) / total_MMN) @ share_N
        tie_MM = (v / total_MMN) @ share_N
        other_MM = ~np.eye(len(worths_M), dtype=bool)
        return (
            other_MM * ((1 - self.careless) * win_MM + self.careless / (2 + v)),
            other_MM * ((1 - self.careless) * tie_MM + self.careless * v / (2 + v)),
        )

    def _rater_worths(self, axis: str, rater: str) -> FloatArray:
        return np.array(self.log_worths[axis]) + self._effects(self.rater_sd, "rater", axis, rater)

    def _prompt_worths(self, axis: str, prompt_id: str) -> FloatArray:
        return self._effects(self.prompt_sd, "prompt", axis, prompt_id)

    def _effects(self, sd: float, *words: str) -> FloatArray:
        return sd * self._rng(*words).standard_normal(len(self.models))

    def _rng(self, *words: str) -> np.random.Generator:
        """Random numbers for one purpose: the same in whatever order they are asked for."""
        text = "\0".join((str(self.seed), *words))
        return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()))


def _ranks(worths_VM: FloatArray, tie: float, rng: np.random.Generator) -> IntArray:
    """Rankings of the Davidson-Luce model, ties of two at most; 1 is best, and the rank after a tie is skipped."""
    n_answers, n_clips = worths_VM.shape
    pairs = list(combinations(range(n_clips), 2)) if tie > 0 else []
    ways_WM = np.array([[m in way for m in range(n_clips)] for way in [*((m,) for m in range(n_clips)), *pairs]])
    size_W = ways_WM.sum(axis=1)
    log_weight_VW = worths_VM @ (ways_WM / size_W[:, None]).T
    log_weight_VW[:, size_W == 2] += np.log(tie) if tie > 0 else 0.0
    ranks_VM, place_V = np.zeros((n_answers, n_clips), dtype=np.int64), np.ones(n_answers, dtype=np.int64)
    for _ in range(n_clips):
        open_VW = (ranks_VM > 0).astype(np.float64) @ ways_WM.T == 0
        noisy_VW = np.where(open_VW, log_weight_VW + rng.gumbel(size=open_VW.shape), -np.inf)
        next_VM = ways_WM[noisy_VW.argmax(axis=1)] & open_VW.any(axis=1)[:, None]
        ranks_VM[next_VM] = np.broadcast_to(place_V[:, None], ranks_VM.shape)[next_VM]
        place_V += next_VM.sum(axis=1)
    return ranks_VM


def _levels(ranks_V2: IntArray, worths_V2: FloatArray, protocol: Protocol, rng: np.random.Generator) -> IntArray:
    """Levels of pairs, negative where the first clip is preferred."""
    side_V = np.sign(ranks_V2[:, 0] - ranks_V2[:, 1])
    gap_V = side_V * (worths_V2[:, 1] - worths_V2[:, 0])
    strong_V = rng.random(len(side_V)) < 1 / (1 + np.exp(1 - gap_V))
    return np.asarray(side_V * (1 + strong_V) if protocol == "likert5" else side_V)
