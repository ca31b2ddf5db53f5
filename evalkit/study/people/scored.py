"""What a run says of the clips that people judged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from evalkit.records import RunRecord
from evalkit.study.people.recipes import Recipe

Clip = tuple[str, int | None]
"""Prompt and seed of one model's clip; the seed is None where nobody knows it."""


def clip_name(clip: Clip) -> str:
    """`p07, seed 2`."""
    prompt, seed = clip
    return prompt if seed is None else f"{prompt}, seed {seed}"


@dataclass(frozen=True, slots=True)
class ScoredClips:
    """The videos of one run, and their scores.

    Args:
        videos: prompt and seed of each file.
        values: score by file by dimension, for what was scored.
        by_prompt: the files of each prompt.
    """

    videos: Mapping[str, Clip]
    values: Mapping[str, Mapping[str, float]]
    by_prompt: Mapping[str, tuple[str, ...]]

    def file(self, clip: Clip) -> str | None:
        """The video that a clip is; None if there is none, or no telling which (see `lack`).

        Where either side does not know the seed, the clip is the only video of its prompt.
        """
        candidates = self._candidates(clip)
        return candidates[0] if len(candidates) == 1 else None

    def lack(self, clip: Clip) -> str:
        """Why a clip is no video of the run."""
        prompt, seed = clip
        if prompt not in self.by_prompt:
            return "no video of this prompt"
        n = len(self._candidates(clip))
        return f"cannot be told from {n} videos" if n else f"no video of seed {seed}"

    def _candidates(self, clip: Clip) -> list[str]:
        prompt, seed = clip
        files = self.by_prompt.get(prompt, ())
        if seed is None or any(self.videos[file][1] is None for file in files):
            return list(files)
        return [file for file in files if self.videos[file][1] == seed]

    def scores(self, recipe: Recipe) -> dict[str, float]:
        """The score of each file that has all dimensions of it."""
        parts = [(slope, self.values.get(dimension, {})) for dimension, slope in recipe.slopes.items()]
        return {
            file: recipe.intercept + sum(slope * values[file] for slope, values in parts)
            for file in self.videos
            if all(file in values for _, values in parts)
        }


def scored_clips(run: RunRecord) -> ScoredClips:
    """Read the clips of a run."""
    videos: dict[str, Clip] = {}
    values: dict[str, dict[str, float]] = defaultdict(dict)
    columns = (run.results[name] for name in ("file", "prompt_id", "seed", "dimension", "value"))
    for file, prompt, seed, dimension, value in zip(*(column.astype(object) for column in columns), strict=True):
        videos[str(file)] = (str(prompt), seed if isinstance(seed, int) else None)
        if isinstance(value, float):  # else missing: unscored
            values[str(dimension)][str(file)] = value
    by_prompt: dict[str, list[str]] = defaultdict(list)
    for file in sorted(videos):
        by_prompt[videos[file][0]].append(file)
    return ScoredClips(videos, values, {prompt: tuple(files) for prompt, files in by_prompt.items()})
