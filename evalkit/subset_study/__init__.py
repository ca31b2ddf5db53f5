"""Subset science: how well a few prompts predict a whole suite, and how many prompts a difference takes.

From the scored videos of several models, dimension by dimension and for the headline scores: does the subset order the
models as the suite does, does it read high or low, how wide are its intervals, and what can it tell apart? From
published tables only order and bias can be had.

A benchmark on prompts is a sample of items (generalisability theory: Brennan 2001; subsets of benchmarks: Polo et al.,
tinyBenchmarks, 2024). The unit is the prompt, as in `evalkit.compare`: the videos of one prompt are averaged first.

Axes: M models, U prompts of a target, P prompts of one of its dimensions, R random draws, L pairs of models.
"""

from evalkit.subset_study.findings import Settings, Study
from evalkit.subset_study.published import PublishedStudy, study_published
from evalkit.subset_study.record import SCHEMA, to_json
from evalkit.subset_study.study import study_runs
from evalkit.subset_study.target import Target
from evalkit.subset_study.words import label, verdict

__all__ = [
    "SCHEMA",
    "PublishedStudy",
    "Settings",
    "Study",
    "Target",
    "label",
    "study_published",
    "study_runs",
    "to_json",
    "verdict",
]
