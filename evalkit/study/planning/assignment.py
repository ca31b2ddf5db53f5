"""Who judges what: every rater's screens, balanced and seeded.

Screens are dealt from two wheels that turn together, one of the items (a prompt and a seed), one of the blocks of
models that meet, rater after rater, so that whoever comes first is balanced as well. Whenever the wheels would meet as
before, one of them moves on by one, so that every block meets every item before any does a second time.

Guarantees, for R raters with S screens each, N items, M models, K of them on a screen. "Within d" says that the largest
and the smallest count differ by at most d, over all raters and over the first r of them, for every r: raters drop out,
and more are invited than come.

- No rater meets the same item with the same pair of models twice. If S <= N, no rater meets an item twice.
- Every item is shown equally often, within 1.
- K = M: every model stands in every place equally often, in the rows of Williams' squares: within 1 on each item;
  within 1 for each rater and overall if S = N; if S < N, within 2 for a rater and 1 overall if M is even, 3 and 2 if it
  is odd.
- K = 2: every pair of models meets equally often within 1, overall and for each rater; in either order within 1; and on
  every item within 1.
- 2 < K < M, where a balanced design exists whose blocks make every pair meet L times: every pair meets equally often
  within L, overall and for each rater, and exactly so after each whole design; every block stands in each of its rows
  equally often within 1, and meets every item equally often within 1.
- 2 < K < M without such a design of reasonable size: blocks are chosen one by one so as to even out how often pairs
  met. Counts of pairs then differ by about 2, and `Assignment.balanced` is False.

All other counts, such as a model's places for one rater where K < M, are evened out greedily. Which model, item and
block takes which part is drawn from the seed, and so is the order of each rater's screens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from evalkit.study.planning.dealing import block_screens, full_screens
from evalkit.study.types import Protocol, ScreenKind

Item = tuple[str, int | None]
"""A prompt id and a seed: what all clips of a screen share."""


@dataclass(frozen=True, slots=True)
class Showing:
    """One screen before clips are looked up.

    Args:
        item: what its clips share.
        models: in the order shown; one of them twice in a check of kind `identical`.
        kind: a vote, or an attention check (`evalkit.study.planning.planted`).
        spoiled: place of the spoiled clip in a check of kind `degraded`.
    """

    item: Item
    models: tuple[str, ...]
    kind: ScreenKind = "vote"
    spoiled: int | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """The votes asked of each rater.

    Args:
        raters: the screens of each, in order.
        balanced: whether pairs of models meet equally often by design.
    """

    raters: tuple[tuple[Showing, ...], ...]
    balanced: bool


def most_screens(n_items: int, n_models: int, protocol: Protocol) -> int:
    """The most screens that one rater can be given: in `rank` an item once, else an item and pair of models once."""
    return n_items if protocol == "rank" else n_items * comb(n_models, 2)


def assign(
    items: Sequence[Item],
    models: Sequence[str],
    *,
    protocol: Protocol,
    block_size: int,
    n_raters: int,
    screens: int,
    seed: int = 0,
) -> Assignment:
    """Deal the screens.

    Args:
        items: what can be judged; items of one prompt are kept apart as far as possible.
        models: labels.
        protocol: how a screen is answered.
        block_size: models on a screen, K; 2 unless the protocol is `rank`.
        n_raters: R.
        screens: of each rater, S.
        seed: of everything that is drawn.

    Raises:
        ValueError: numbers that cannot be meant; `most_screens` is the limit of `screens`.
    """
    if not 2 <= block_size <= len(models) or (protocol != "rank" and block_size != 2):
        raise ValueError(f"{block_size} of {len(models)} models on a screen in the protocol {protocol}")
    if not 1 <= screens <= most_screens(len(items), len(models), protocol) or n_raters < 1:
        raise ValueError(f"{screens} screens for each of {n_raters} raters from {len(items)} items")
    rng = np.random.default_rng([seed, 0])
    drawn_items = _apart(items, rng)
    labels = [models[n] for n in rng.permutation(len(models))]
    if block_size == len(models):
        dealt, balanced = list(full_screens(len(items), block_size, n_raters * screens)), True
    else:
        dealt, balanced = block_screens(len(items), len(models), block_size, n_raters, screens, rng)
    shown = [Showing(drawn_items[item], tuple(labels[n] for n in order)) for item, order in dealt]
    raters = (shown[r * screens : (r + 1) * screens] for r in range(n_raters))
    return Assignment(tuple(tuple(own[n] for n in rng.permutation(screens)) for own in raters), balanced)


def _apart(items: Sequence[Item], rng: np.random.Generator) -> list[Item]:
    """Random order, all prompts first, then their second seeds: near each other on the wheel are different prompts."""
    shuffled = [items[n] for n in rng.permutation(len(items))]
    prompts = {prompt: n for n, prompt in enumerate(dict.fromkeys(prompt for prompt, _ in shuffled))}
    nth: Counter[str] = Counter()
    keyed = []
    for item in shuffled:
        keyed.append((nth[item[0]], prompts[item[0]], item))
        nth[item[0]] += 1
    return [item for _, _, item in sorted(keyed, key=lambda key: key[:2])]
