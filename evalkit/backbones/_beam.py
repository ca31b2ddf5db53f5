"""Beam search as the official package runs it: by the rules of transformers 4.33, whose later versions count otherwise.

A caption's rank is its log-probability divided by its length, prompt included and end token excluded. Finished captions
are kept up to the number of beams; a search ends when no running beam can still outrank the worst of them.

Axes: B frames, S beams, N new tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor | None], Tensor]
"""Reads new tokens `(B, S, N)` and returns the logits `(B, S, V)` of those that follow. Each beam continues the one of
the call before that `parents (B, S)` names; there are none at the first call."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How to search: `shortest` and `longest` are lengths in tokens, the prompt included."""

    beams: int
    shortest: int
    longest: int
    end: int


class Caption(NamedTuple):
    """A finished caption, without its end token."""

    rank: float
    tokens: list[int]


class _Search:
    """The captions of one frame: running ones by falling log-probability, and the best finished ones."""

    def __init__(self, rules: Rules, prompt: Sequence[int]) -> None:
        self.rules = rules
        self.running: list[list[int]] = [list(prompt)]
        self.log_probabilities = [0.0]
        self.finished: list[Caption] = []
        self.done = False

    def extend(self, candidates: Sequence[tuple[float, int, int]]) -> list[int]:
        """Take the next tokens as (log-probability, beam, token), best first; return the beams that the running
        captions continue."""
        beams, end = self.rules.beams, self.rules.end
        going_on = [(p, beam, token) for p, beam, token in candidates if token != end][:beams]
        for log_probability, beam, token in candidates[:beams]:
            if token == end:
                self._finish(log_probability, self.running[beam])
        length = len(self.running[0]) + 1
        self.done = len(self.finished) == beams and self._worst() >= candidates[0][0] / length
        self.running = [[*self.running[beam], token] for _, beam, token in going_on]
        self.log_probabilities = [log_probability for log_probability, _, _ in going_on]
        return [beam for _, beam, _ in going_on]

    def best(self) -> list[int]:
        """The best caption; those still running count with what they have."""
        if not self.done:
            for log_probability, tokens in zip(self.log_probabilities, self.running, strict=True):
                self._finish(log_probability, tokens)
        return max(reversed(self.finished), key=lambda caption: caption.rank).tokens

    def _finish(self, log_probability: float, tokens: list[int]) -> None:
        caption = Caption(log_probability / len(tokens), tokens)
        if len(self.finished) == self.rules.beams:
            if caption.rank <= self._worst():
                return
            self.finished.remove(min(self.finished, key=lambda c: c.rank))
        self.finished.append(caption)

    def _worst(self) -> float:
        return min(caption.rank for caption in self.finished)


@torch.inference_mode()
def beam_search(step: Step, prompt: Sequence[int], frames: int, rules: Rules, device: str = "cpu") -> list[list[int]]:
    """Write a caption for each of `frames` frames, starting with `prompt`; returns tokens without the end token."""
    searches = [_Search(rules, prompt) for _ in range(frames)]
    tokens_BSN = torch.tensor([[list(prompt)]] * frames, device=device)
    parents_BS: Tensor | None = None
    for length in range(len(prompt), rules.longest):
        log_p_BSV = step(tokens_BSN, parents_BS).float().log_softmax(dim=-1)
        if length < rules.shortest:
            log_p_BSV[..., rules.end] = -torch.inf
        parents = []
        for search, found in zip(searches, _candidates(log_p_BSV, searches, rules.beams), strict=True):
            parents.append([0] * rules.beams if search.done else search.extend(found))
        if all(search.done for search in searches):
            break
        parents_BS = torch.tensor(parents, device=device)
        tokens_BSN = torch.tensor([[[t[-1]] for t in search.running] for search in searches], device=device)
    return [search.best() for search in searches]


def _candidates(log_p_BSV: Tensor, searches: Sequence[_Search], beams: int) -> list[list[tuple[float, int, int]]]:
    """Twice as many next tokens as beams for every frame, best first: so many that enough are no end tokens."""
    so_far_BS = torch.tensor([search.log_probabilities for search in searches], device=log_p_BSV.device)
    top = (log_p_BSV + so_far_BS[..., None]).flatten(1).topk(2 * beams)
    vocabulary = log_p_BSV.shape[-1]
    return [
        [(value, index // vocabulary, index % vocabulary) for value, index in zip(values, indices, strict=True)]
        for values, indices in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    ]
