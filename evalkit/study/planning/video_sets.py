"""The videos of all models, brought into step: which prompts and seeds can be judged, and what stands in the way."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evalkit.errors import UserError
from evalkit.matching import NAMING, Matching, match
from evalkit.prompts import by_text
from evalkit.study.planning.assignment import Item
from evalkit.types import PromptSuite, Sample

SHOWN = 20
"""Names in a list; the rest is counted."""


@dataclass(frozen=True, slots=True)
class VideoSets:
    """What all models have.

    Args:
        items: prompts and seeds, in the suite's order.
        samples: the video of each model and item.
        prompts: text by id, of the items' prompts.
        notes: what was left out.
    """

    items: tuple[Item, ...]
    samples: Mapping[tuple[str, Item], Sample]
    prompts: Mapping[str, str]
    notes: tuple[str, ...]


def gather(suite: PromptSuite, videos: Mapping[str, Path], *, per_prompt: int = 1, common: bool = False) -> VideoSets:
    """Match every model's folder to the suite, and take the lowest seeds that all models have.

    Args:
        suite: the prompts.
        videos: folder by model label.
        per_prompt: videos of each prompt.
        common: leave out what some models lack, and say so, instead of refusing.

    Raises:
        UserError: a folder cannot be matched; models lack what others have; nothing is common to all.
    """
    matchings = {label: match(folder, suite) for label, folder in videos.items()}
    samples = {(label, (s.prompt.id, s.seed)): s for label, found in matchings.items() for s in found.samples}
    seeds: dict[str, dict[str, set[int | None]]] = {}
    for label, (prompt, seed) in samples:
        seeds.setdefault(prompt, {other: set() for other in videos})[label].add(seed)
    wanted = {prompt: _wanted(by_label.values(), per_prompt) for prompt, by_label in seeds.items()}
    lacking = {label: list(_lacking(label, seeds, wanted, per_prompt)) for label in videos}
    order = [prompt.id for prompt in by_text(suite.prompts).values() if prompt.id in seeds]
    shared = {
        prompt: [seed for seed in wanted[prompt] if all(seed in has for has in seeds[prompt].values())]
        for prompt in order
    }
    n_complete = sum(bool(some) for some in shared.values())
    if any(lacking.values()) and not (common and n_complete):
        raise _unequal(lacking, n_complete)
    items = {(prompt, seed): None for prompt in order for seed in shared[prompt]}
    texts = {prompt.id: prompt.text for prompt in suite.prompts}
    return VideoSets(
        tuple(items),
        {key: sample for key, sample in samples.items() if key[1] in items},
        {prompt: texts[prompt] for prompt, _ in items},
        (*_left_out(suite, shared, lacking), *_unmatched(matchings)),
    )


def _wanted(by_label: Iterable[set[int | None]], per_prompt: int) -> list[int | None]:
    """The seeds of a prompt to be shown: those that most models have, from the lowest."""
    sets = list(by_label)
    return sorted(set().union(*sets), key=lambda seed: (-sum(seed in has for has in sets), seed is None, seed or 0))[
        :per_prompt
    ]


def _lacking(
    label: str,
    seeds: Mapping[str, Mapping[str, Collection[int | None]]],
    wanted: Mapping[str, Sequence[int | None]],
    per_prompt: int,
) -> Iterator[str]:
    """What a model lacks, in words."""
    for prompt, choice in wanted.items():
        for seed in choice:
            if seed not in seeds[prompt][label]:
                yield f"{prompt} " + ("without a seed" if seed is None else f"seed {seed}")
        if len(choice) < per_prompt:
            yield f"{prompt} {per_prompt - len(choice)} more"


def _unequal(lacking: Mapping[str, Sequence[str]], n_complete: int) -> UserError:
    lists = "".join(f"\n  {label} lacks {len(names)}: {listed(names)}" for label, names in lacking.items() if names)
    way_out = f", or add --common to study the {n_complete} prompts that all have" if n_complete else ""
    return UserError(
        f"The models' sets of videos are unequal, which would favour some of them.{lists}\n",
        f"Add or rename videos{way_out}. {NAMING}",
    )


def _left_out(
    suite: PromptSuite, shared: Mapping[str, Sequence[int | None]], lacking: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    if dropped := [prompt for prompt, seeds in shared.items() if not seeds]:
        yield f"{len(dropped)} of {len(shared)} prompts left out, since not all models have a video: {listed(dropped)}"
    elif any(lacking.values()):
        yield "some prompts have fewer videos than asked for"
    prompts = by_text(suite.prompts).values()
    if absent := [prompt.id for prompt in prompts if prompt.id not in shared]:
        yield f"{len(absent)} of the suite's {len(prompts)} prompts have no video of any model: {listed(absent)}"


def _unmatched(matchings: Mapping[str, Matching]) -> Iterator[str]:
    for label, matching in matchings.items():
        if files := [unmatched.file for unmatched in matching.unmatched]:
            yield f"{len(files)} files of {label} belong to no prompt: {listed(files)}"


def listed(names: Sequence[str], between: str = ", ") -> str:
    """The first of many names, and how many more there are."""
    more = [f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return between.join([*names[:SHOWN], *more])
