"""A study in plain language: the verdict, and what cannot be said."""

from __future__ import annotations

from collections.abc import Iterator

from evalkit.subset_study.agreement import Agreement, Bounds
from evalkit.subset_study.findings import Study, TargetStudy
from evalkit.subset_study.published import PublishedStudy

LABELS = {
    "mean7": "mean of the seven",
    "lite/mean7": "mean of the seven (lite)",
    "quality": "Quality score",
    "semantic": "Semantic score",
    "total": "Total score",
    "lingen_quality6": "quality of six dimensions",
}
HEADLINES = ("total", "mean7", "lite/mean7", "quality", "semantic")
"""Headline scores, the most telling first."""
FEW_MODELS = 8
"""With fewer, one swapped pair moves the share of kept pairs by more than 3 points."""
ENOUGH = 0.95
"""Share of pairs kept on average from which a random subset is said to suffice."""

PUBLISHED_LIMITS = (
    "Published tables hold one figure a model and dimension: no interval, no interval width and no power can be had"
    " from them, because how scores vary from prompt to prompt was not published.",
    "Few models are in both tables, most of 2022 and 2023: their order says little about models that are close.",
    "Figures that agree to the printed digit are one measurement printed twice, or cannot be told from that; they are"
    " left out of bias and spread, and a pair of two such models is not counted as informative.",
    "The printed quality scores are not compared: one is of six dimensions, the other of seven. The quality of six is"
    " recomputed from both tables' dimensions.",
    "Figures stand as printed; `m4v-eval reference audit` finds misprints among them, such as CogVideo's background"
    " consistency.",
)


def label(name: str) -> str:
    """What people call a dimension or headline score."""
    if name in LABELS:
        return LABELS[name]
    kind, _, dimension = name.rpartition("/")
    return dimension.replace("_", " ") + (f" ({kind})" if kind else "")


def headline(study: Study) -> TargetStudy:
    """The most telling target: a headline score (one that the subset has, if one is given), else a dimension."""
    by_name = {target.name: target for target in study.targets}
    wanted = [by_name[name] for name in HEADLINES if name in by_name] + list(study.targets)
    return next((target for target in wanted if target.subset is not None), wanted[0])


def verdict(study: Study) -> str:
    """The study in one paragraph."""
    target = headline(study)
    sentences: list[str] = []
    if study.subset is None:
        sentences += _enough(target)
    elif target.subset is None:
        sentences.append(f"No score could be compared on {study.subset.name}.")
    else:
        sentences += _order(study, study.subset.name, target, target.subset)
        sentences += _random(target, target.subset)
    return " ".join((*sentences, " ".join(_power(study)).replace(" ;", ";").replace(" .", ".")))


def _order(study: Study, name: str, target: TargetStudy, found: Agreement) -> Iterator[str]:
    score = _score(target)
    if not found.pairs:
        yield f"The full suite ties all {len(target.models)} models in {score}: there is no order to keep."
        return
    own = study.other_suite is not None
    size = f"{found.n_prompts} prompts of its own" if own else f"{found.n_prompts} of {target.n_prompts} prompts"
    by = "" if found.predictor == target.name else f" by its {label(found.predictor)}"
    drawn_anew = f", {_interval(found.tau_range)} if the prompts are drawn anew" if found.tau_range else ""
    tau = "" if found.tau is None else f" (Kendall's tau {found.tau:.2f}{drawn_anew})"
    pairs = f"{found.pairs_kept:g} of {found.pairs} pair{'s' * (found.pairs > 1)} of models"
    full, picked = " and ".join(found.best_full), " and ".join(found.best_subset)
    best = f"finds the same best model, {full}" if full == picked else f"takes {picked} for the best, not {full}"
    yield f"{_named(name, first=True)} ({size}) orders{by} {pairs} as the full suite does in {score}{tau} and {best}."
    if 0 < found.decided < found.pairs:
        yield f"The full suite itself tells {found.decided} pairs apart; {found.decided_kept:g} of those are kept."
    elif not found.decided:
        yield "The full suite itself tells none of the pairs apart, so a swapped pair is no failure."
    if found.bias is not None and (own or found.n_prompts < target.n_prompts):
        yield _bias(name, found.bias, found.bias_range)


def _bias(name: str, bias: float, bounds: Bounds | None) -> str:
    reads = f"{_named(name, first=True)} reads {points(abs(bias))} {'low' if bias < 0 else 'high'} on average"
    if bounds is None:
        return f"{reads}."
    why = "no more than" if bounds[0] <= 0 <= bounds[1] else "more than"
    return f"{reads} (95 %: {100 * bounds[0]:+.2f} to {100 * bounds[1]:+.2f}), {why} the draw of prompts explains."


def _interval(bounds: Bounds) -> str:
    return f"{bounds[0]:.2f} to {bounds[1]:.2f}"


def _random(target: TargetStudy, found: Agreement) -> Iterator[str]:
    """What random subsets of the subset's size do."""
    same = next((point for point in target.curve if point.n == found.n_prompts), None)
    if same is not None and same.pairs_kept is not None and same.n < target.n_prompts:
        yield f"{same.n} random prompts of the suite keep {100 * same.pairs_kept:.0f} % of the pairs on average."


def _enough(target: TargetStudy) -> Iterator[str]:
    """The smallest studied size of random subsets that keeps the order."""
    enough = next((p for p in target.curve if p.pairs_kept is not None and p.pairs_kept >= ENOUGH), None)
    if enough is None or enough.pairs_kept is None:
        return
    kept = f"{100 * enough.pairs_kept:.0f} % of the pairs of models in their order in {label(target.name)}"
    if enough.n == target.n_prompts:
        yield f"Of the sizes studied, only all {enough.n} prompts keep {kept}."
    else:
        best = f"the best model stays best in {100 * enough.best_kept:.0f} % of draws"
        yield f"{enough.n} random prompts of {target.n_prompts} keep {kept} on average; {best}."


def _power(study: Study) -> Iterator[str]:
    """How many prompts a difference takes in the headline, and between which numbers the dimensions lie."""
    target = headline(study)
    if target.subset is not None:  # another headline may stand in for one that the subset cannot have
        target = next((other for other in study.targets if other.name == target.subset.predictor), target)
    needed = target.power.needed
    if needed is None:
        return
    planned = sorted(
        (other.power.needed, label(other.name))
        for other in study.targets
        if other.planned == target.planned and other.name not in HEADLINES and other.power.needed is not None
    )
    asked = f"To see a difference of {points(study.settings.difference)} with {100 * study.settings.power:g} % power"
    yield f"{asked} you need {needed:,} prompts with {videos(target.power.videos)} each in {_score(target)}"
    if len(planned) > 1:
        (least, easy), (most, hard) = planned[0], planned[-1]
        yield f"(dimensions: from {least:,} in {easy} to {most:,} in {hard})"
    shown = target.plan_least
    given = study.subset is not None and target.subset is not None and target.plan_size == target.subset.n_prompts
    who = (
        _named(study.subset.name)
        if study.subset is not None and given
        else f"the suite with {target.n_planned} prompts"
    )
    yield f"; {who} is too small to show any." if shown is None else f"; {who} shows {points(shown)} or more."


def _score(target: TargetStudy) -> str:
    return f"the {label(target.name)}" if target.name in HEADLINES else label(target.name)


def _named(subset: str, first: bool = False) -> str:
    """A suite goes by its name; a draw or a list of prompts takes the article."""
    return f"{'The' if first else 'the'} {subset}" if " " in subset else subset


def points(fraction: float) -> str:
    """`1 point`, `0.45 points`."""
    value = f"{100 * fraction:.2f}".rstrip("0").rstrip(".")
    return f"{value} point{'s' * (value != '1')}"


def videos(number: float) -> str:
    """`1 video`, `4.8 videos`."""
    value = f"{number:.1f}".removesuffix(".0")
    return f"{value} video{'s' * (value != '1')}"


def limits(study: Study) -> list[str]:
    """How the figures came about, and what they do not say."""
    return [*_method(), *_few(len(study.models)), *_kinship(study), *_single_videos(study)]


def _method() -> Iterator[str]:
    yield (
        "The unit is the prompt: a prompt's videos are averaged first and every prompt counts alike, so a dimension"
        " that VBench weighs by frames may differ slightly from its published score."
    )
    yield (
        "Ranges of tau draw the prompts anew, with replacement, those of the subset and the others apart: they say how"
        " much the agreement owes to these very prompts. The models stay as they are."
    )
    yield (
        "Random subsets are drawn without replacement from the suite that they are compared with, so they agree with it"
        " fully once they hold all of it. Interval widths and power are for prompts at large, of the suite's kind."
    )


def _few(n_models: int) -> Iterator[str]:
    if n_models < FEW_MODELS:
        pairs = n_models * (n_models - 1) // 2
        there = "there is one pair" if pairs == 1 else f"there are {pairs} pairs"
        yield (
            f"With {n_models} models {there}: no interval over models is given, because it would span nearly all."
            " What holds for these models need not hold for others."
        )


def _kinship(study: Study) -> Iterator[str]:
    if study.other_suite is not None:
        yield (
            "The subset is a suite of other prompts, scored on other videos: the two are independent, and a bias says"
            " how much easier one suite is than the other."
        )
    elif study.subset is not None:
        yield (
            "The subset's videos are part of the full suite, which makes the two agree more than fresh prompts would;"
            " the tau with the other prompts (`tau_rest`) leaves them out."
        )


def _single_videos(study: Study) -> Iterator[str]:
    if all(target.components.within is None for target in study.targets):
        yield "With one video a prompt, what more videos of each prompt would bring cannot be told."


def published_verdict(study: PublishedStudy) -> str:
    """The published tables in one paragraph."""
    dimensions = [target for target in study.targets if target.name != "lingen_quality6"]
    figures = [score for target in dimensions for score in target.scores]
    same = sum(score.same for score in figures)
    differing = ", ".join(dict.fromkeys(score.model for score in figures if not score.same))
    informative = sum(target.pairs_informative for target in dimensions)
    kept = sum(target.pairs_informative_kept for target in dimensions)
    return (
        f"{len(study.models)} models are in both published tables. {same} of their {len(figures)} pairs of figures"
        " agree to the printed digit: one measurement printed twice, and no evidence that customised prompts predict"
        f" the official ones. Where a figure does differ ({differing}), {kept:g} of {informative} pairs of models keep"
        f" their order, over {len(dimensions)} dimensions. Interval widths and power cannot be told without the scores"
        " of single videos: score the models and give their runs."
    )
