"""What a prompt says besides its text: the object, colour, place, style or action that a dimension looks for.

A metric reads `auxiliary[dimension][field]` and declares its fields. The official list nests some entries twice and
leaves others to be cut out of the sentence, and people who write prompt files hand single values over bare; all of that
is settled here, once, before anything is decoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from evalkit.errors import UserError
from evalkit.metrics.base import MetricSpec
from evalkit.types import Prompt, PromptSuite


def asks(prompt: Prompt, metric: MetricSpec) -> bool:
    """Whether a prompt is meant for a metric.

    A prompt that lists no dimensions is meant for all of them, but for those that look for something only if it says
    what to look for.
    """
    if prompt.dimensions or not metric.auxiliary:
        return prompt.asks_for(metric.dimension)
    return not lacking(prompt, metric)


def equip(suite: PromptSuite, metrics: Iterable[MetricSpec]) -> PromptSuite:
    """Bring the prompts' auxiliary entries into the one form that metrics read.

    Raises:
        UserError: a prompt that is meant for a dimension does not say what to look for; names the prompt and the
            field. Also if that is true of every prompt of the suite.
    """
    looking = [metric for metric in metrics if metric.auxiliary]
    equipped = replace(suite, prompts=tuple(_equip(prompt, looking) for prompt in suite.prompts))
    for metric in looking:
        if not any(asks(prompt, metric) for prompt in equipped.prompts):
            asked = [prompt for prompt in equipped.prompts if prompt.asks_for(metric.dimension)]
            if asked:
                raise _lacks(asked[0], metric)
    return equipped


def says_for(prompt: Prompt, metric: MetricSpec) -> bool:
    """Whether a prompt says what the metric is to look for, in whatever form."""
    return not lacking(_equip(replace(prompt, dimensions=()), [metric]), metric)


def lacking(prompt: Prompt, metric: MetricSpec) -> tuple[str, ...]:
    """The fields that a metric needs and the prompt does not have as text."""
    entry = prompt.auxiliary.get(metric.dimension)
    facts = entry if isinstance(entry, Mapping) else {}
    return tuple(name for name in metric.auxiliary if not (isinstance(facts.get(name), str) and facts[name].strip()))


def _equip(prompt: Prompt, metrics: Iterable[MetricSpec]) -> Prompt:
    for metric in metrics:
        name = metric.dimension
        named = name in prompt.dimensions
        if not (named or name in prompt.auxiliary):
            continue
        entry = _unfold(prompt.auxiliary.get(name, {}), metric)
        if metric.read_text is not None and isinstance(entry, Mapping):
            entry = metric.read_text(prompt.text, entry)
        prompt = replace(prompt, auxiliary={**prompt.auxiliary, name: entry})
        if named and lacking(prompt, metric):
            raise _lacks(prompt, metric)
    return prompt


def _unfold(entry: object, metric: MetricSpec) -> Any:
    while isinstance(entry, Mapping) and isinstance(entry.get(metric.dimension), Mapping):
        entry = entry[metric.dimension]  # {"scene": {"scene": {"scene": "alley"}}}
    return {metric.auxiliary[0]: entry} if isinstance(entry, str) and len(metric.auxiliary) == 1 else entry


def _lacks(prompt: Prompt, metric: MetricSpec) -> UserError:
    fields = lacking(prompt, metric)
    example = ", ".join(f'"{name}": "..."' for name in metric.auxiliary)
    return UserError(
        f"The prompt {prompt.id!r} ({prompt.text[:60]!r}) does not say what {metric.dimension} is to look for:"
        f" its `auxiliary` lacks {' and '.join(f'`{name}`' for name in fields)}.",
        f'Add "auxiliary": {{"{metric.dimension}": {{{example}}}}} to the prompt, or list the prompt\'s `dimensions`'
        f" without {metric.dimension}, or choose others with --dimensions.",
    )
