"""The page of a human study and its section among the runs: what they say, what they escape, and that they fit."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from evalkit.cli import build_app
from evalkit.errors import UserError
from evalkit.report import HumanStudy, write_page
from evalkit.report.page import compose_parts
from evalkit.report.study_page import compose_study, render_study
from evalkit.report.study_people import left_out_lines
from evalkit.report.study_plots import Bout, Dot, Model, Scale, bouts, dots, scatter
from evalkit.report.study_view import ShownStudy, matrix
from evalkit.report.study_words import verdicts
from evalkit.study.forms import write_csv
from evalkit.study.people import PeopleResult, metrics_against_people
from evalkit.study.statistics.conclude import conclude
from evalkit.study.types import AxisResult, Ballots, Duel, Estimate, Fault, Screening, Standing, StudyResult
from tests.browser import chromium, complaints, horizontal_overflow, overlapping_texts, requests
from tests.fabricate import Spec, write_run
from tests.fabricate_study import AXIS_NAMES, MODELS, Array, ballots, prompt_text, ranked_votes, runs_of
from tests.test_report import HOSTILE, Parsed
from tests.test_report_browser import CONTRASTS
from tests.test_report_cost import extent

FAST = 100
SCREENING = Screening(
    6,
    {"r004": "failed 2 of 3 attention checks"},
    {"r001": (0, 3), "r004": (2, 3)},
    n_unfinished=4,
    n_planned=8,
    n_hasty=1,
)


def worth(n_models: int = 4, n_prompts: int = 8) -> Array:
    """Models far apart: the first is the worst."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(n_models, n_prompts, 1)) + 1.5 * np.arange(n_models)[:, None, None]


def votes_of(worth_MPK: Array, **changes: Any) -> Ballots:
    """Five raters rank everything on all axes."""
    rng = np.random.default_rng(1)
    votes = [vote for axis in AXIS_NAMES for vote in ranked_votes(worth_MPK, 5, rng, axis)]
    return ballots(votes, MODELS[: len(worth_MPK)], screening=SCREENING, **changes)


@pytest.fixture(scope="module")
def study() -> StudyResult:
    return conclude(votes_of(worth()), n_resamples=FAST)


@pytest.fixture(scope="module")
def people() -> PeopleResult:
    """Three of the four models have a run; one score follows people, one is noise."""
    worth_MPK = worth()
    scores = {"color": 0.5 + worth_MPK / 100, "scene": np.random.default_rng(2).uniform(size=worth_MPK.shape)}
    runs = runs_of({name: x_MPK[:3] for name, x_MPK in scores.items()})
    return metrics_against_people(votes_of(worth_MPK), runs, n_resamples=FAST)


@pytest.fixture(scope="module")
def page(study: StudyResult, people: PeopleResult) -> Parsed:
    return parse(study, people=people, prompts={"p000": prompt_text(0)})


def parse(result: StudyResult, **options: Any) -> Parsed:
    return Parsed(compose_study(result, Path("page.html"), **options))


# ---- what the page says ----------------------------------------------------------------------------------------------


def test_every_part_is_there(page: Parsed) -> None:
    sections = [section["aria-label"] for section in page.all("section")]
    assert sections == ["Overview", "Standings", "Duels", "Raters", "Metrics against people", "Method"]
    assert "4 models · blind ranking · 8 prompts · 5 raters · 120 votes" in page.words
    assert "1 rater left out." in page.words
    assert "r004 2 of 3 failed 2 of 3 attention checks" in page.words
    assert "6 of 8 planned" in page.words
    assert prompt_text(0) in page.words
    assert "Models of the study without a run: delta." in page.words


def test_standings_and_duels_are_those_of_the_study(study: StudyResult, page: Parsed) -> None:
    words = page.words
    for axis in study.axes:
        for standing in axis.standings:
            assert standing.mean_rank is not None
            assert standing.bradley_terry is not None
            rank, strength = f"{standing.mean_rank.value:.2f}", f"{standing.bradley_terry.value:+.2f}".replace("-", "−")
            assert re.search(rf"{standing.model} {re.escape(rank)} [\d. to]+ {re.escape(strength)} ", words)
        for duel in axis.duels:
            figures = "".join(rf"{100 * found.value:.0f} \d+ to \d+ " for found in (duel.win, duel.tie, duel.lose))
            assert re.search(rf"{duel.a} {duel.b} {duel.n} {figures}", words)


def test_agreement_is_that_of_the_comparison(people: PeopleResult, page: Parsed) -> None:
    words = page.words
    for axis in people.axes:
        for score in axis.scores:
            assert score.pairs is not None
            assert score.pairs.one_rater is not None
            name, share = score.name.capitalize(), f"{100 * score.pairs.share.value:.0f}"
            assert re.search(rf"{name} {share} \d+ to \d+ [\d.< ]+ {100 * score.pairs.one_rater.value:.0f} ", words)
    assert "3 models: not told apart from chance" in words, "no bare correlation over three models"
    assert "Spearman +" not in words


def test_a_published_study_says_what_its_shares_count(study: StudyResult) -> None:
    axes = tuple(
        replace(
            axis,
            n_raters=None,
            standings=tuple(replace(s, bradley_terry=None, plackett_luce=None) for s in axis.standings),
        )
        for axis in study.axes
    )
    faults = (Fault("prompt 8, motion", "the figures sum to 8.5", "2.27 -> 1.27"), Fault("prompt 9", "a rank of 9"))
    printed = replace(
        study, unit="prompt", axes=axes, screening=None, scale=2.0, faults=faults, caveats=("Figures are halved.",)
    )
    page = parse(printed)
    assert "Shares count prompts, not raters." in page.words
    assert "2 faults found in the input." in page.words
    assert "prompt 8, motion the figures sum to 8.5 2.27 -> 1.27 prompt 9 a rank of 9 nothing" in page.words
    assert "Figures are halved." in page.words
    assert "Raters" not in [section["aria-label"] for section in page.all("section")]
    best = study.axes[0].standings[0]
    assert best.mean_rank is not None
    assert f"{best.mean_rank.value / 2:.4f}" in page.words


def test_lite_stand_ins_say_so(study: StudyResult) -> None:
    worth_MPK = worth()
    runs = runs_of({"lite/subject_consistency": 0.5 + worth_MPK / 100}, profile="lite")
    page = parse(study, people=metrics_against_people(votes_of(worth_MPK), runs, n_resamples=FAST))
    assert "lite stand-ins, not VBench's" in page.words
    assert "Subject consistency (lite)" in page.words
    assert any("Subject consistency (lite)" in str(plot["aria-label"]) for plot in page.all("svg"))


def test_axes_without_votes_and_levels(study: StudyResult) -> None:
    """Of three axes one has no vote; another asks for levels."""
    first, second, third = study.axes
    silent = AxisResult(third.axis, 0, 0, 0, (), (), notes=("No vote counts on this axis.",))
    levelled = replace(second, duels=tuple(replace(duel, level=Estimate(0.75, 0.5, 1.0)) for duel in second.duels))
    page = parse(replace(study, axes=(first, levelled, silent), protocol="likert5"))
    assert "Semantic coherence No vote counts." in page.words
    assert "Semantic coherence: No vote counts on this axis." in page.words
    assert "+0.75 +0.50 to +1.00" in page.words
    assert "Mean level" in page.words
    empty = parse(replace(study, axes=(silent,), screening=None))
    assert [section["aria-label"] for section in empty.all("section")] == ["Overview", "Method"]


def test_published_ranks_are_compared_over_models_only(study: StudyResult) -> None:
    """Of four models: no plot of clips, no column of them, a correlation without an interval."""
    ranked = tuple(
        replace(axis, standings=tuple(replace(s, bradley_terry=None) for s in axis.standings)) for axis in study.axes
    )
    printed = replace(study, unit="prompt", axes=ranked, screening=None)
    people = metrics_against_people(printed, runs_of({"color": 0.5 + worth() / 100}))
    page = parse(printed, people=people)
    assert "Single clips could not be compared" in page.words
    assert "One more rater" not in page.words
    assert "Spearman +1.00, p\u00a0=\u00a00.083" in " ".join(page.text)
    assert not any("Agreement with people" in str(plot["aria-label"]) for plot in page.all("svg"))


def test_left_out_is_listed_by_reason() -> None:
    worth_MPK = worth(3, 12)
    score_PK = np.full((2, 1), 0.5)
    runs = runs_of({"color": np.stack([score_PK, score_PK + 0.1, score_PK + 0.2])})
    lines = left_out_lines(metrics_against_people(votes_of(worth_MPK), runs, n_resamples=FAST).left_out)
    (amber,) = [line for line in lines if "amber" in line]
    assert amber.startswith("10 judged clips of amber not in its run (no video of this prompt: p002, seed 0, ")
    assert amber.endswith("and 2 more).")


# ---- words -----------------------------------------------------------------------------------------------------------


def axis_of(rates: dict[tuple[str, str], tuple[float, float]], models: tuple[str, ...]) -> AxisResult:
    """An axis with these win rates and corrected p-values."""
    nothing = Estimate(0.0)
    duels = tuple(
        Duel(a, b, 9, Estimate(rate), nothing, Estimate(1 - rate), Estimate(rate), None, p, p)
        for (a, b), (rate, p) in rates.items()
    )
    standings = tuple(Standing(model, 9, None, Estimate(0.5, 0.4, 0.6), None, None) for model in models)
    return AxisResult("aesthetic_quality", 9, 3, 3, standings, duels)


def said(axis: AxisResult, unit: Literal["vote", "prompt"] = "vote") -> str:
    models = tuple(standing.model for standing in axis.standings)
    ((_, sentence),) = verdicts(ShownStudy(StudyResult("s", unit, "pairwise", models, (axis,), None)))
    return sentence.replace("\u00a0", " ")


SURE, OPEN = 0.01, 0.3
"""P-values of a duel that is decided and of one that is not."""


@pytest.mark.parametrize(
    ("ab", "ac", "bc", "words"),
    [
        ((0.9, SURE), (0.9, SURE), (0.8, SURE), "each of the other 2 models beyond chance."),
        ((0.6, OPEN), (0.9, SURE), (0.8, SURE), "preferred to c beyond chance. It cannot be told apart from b."),
        ((0.6, OPEN), (0.6, OPEN), (0.6, OPEN), "told apart from b and c. Also not told apart: b and c."),
        ((0.2, SURE), (0.9, SURE), (0.4, OPEN), "In their own duels, b is preferred to it."),
        (None, (0.9, SURE), None, "preferred to c beyond chance."),
    ],
)
def test_the_verdict_says_no_more_than_the_tests(
    ab: tuple[float, float] | None, ac: tuple[float, float], bc: tuple[float, float] | None, words: str
) -> None:
    given = {("a", "b"): ab, ("a", "c"): ac, ("b", "c"): bc}
    axis = axis_of({pair: found for pair, found in given.items() if found is not None}, ("a", "b", "c"))
    sentence = said(axis)
    assert sentence.startswith("a leads (wins 50 % of its duels; 95 %: 40 to 60).")
    assert words in sentence
    assert ("each of the other" in sentence) == words.startswith("each of the other")
    assert said(axis, "prompt") == sentence.replace("preferred to", "ahead of")


def test_two_models_and_one() -> None:
    assert "preferred to the other model beyond chance" in said(axis_of({("a", "b"): (0.9, 0.01)}, ("a", "b")))
    assert said(axis_of({}, ("a",))) == "a leads (wins 50 % of its duels; 95 %: 40 to 60)."


# ---- the matrix and the plots ----------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_the_matrix_adds_up_across_its_diagonal(rates: list[float]) -> None:
    pairs = (("a", "b"), ("a", "c"), ("b", "c"))
    rows = matrix(axis_of({pair: (rate, 1.0) for pair, rate in zip(pairs, rates, strict=True)}, ("a", "b", "c")))
    for i, (_, row) in enumerate(rows):
        assert row[i] is None
        for j in range(i):
            first, second = row[j], rows[j][1][i]
            assert first is not None
            assert second is not None
            assert int(first.text) + int(second.text) in (99, 100, 101)  # both are rounded
            assert first.tint == -second.tint


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 1000))
def test_bars_are_as_long_as_their_shares(a: int, b: int) -> None:
    """Read back from the SVG, which holds six decimals; a share of nothing is no rectangle."""
    shares = win, tie, lose = min(a, b) / 1000, abs(a - b) / 1000, (1000 - max(a, b)) / 1000
    row = Bout("amber", "birch", 0, 1, win, tie, lose, Estimate(win + tie / 2))
    paths = Parsed(str(bouts([row], "Duels"))).all("path")
    rectangles = [
        path for path in paths if len(re.findall("[ML] ", str(path["d"]))) == 4 and path.get("fill") != "none"
    ]
    lengths = [high - low for low, high in map(extent, rectangles)]
    assert lengths == pytest.approx([share * (350 - 28) for share in shares if share], abs=1e-4)


def test_plots_have_distinct_accessible_names(page: Parsed) -> None:
    names = [str(plot["aria-label"]) for plot in page.all("svg")]
    assert all(plot["role"] == "img" for plot in page.all("svg"))
    assert all(names)
    assert max(Counter(names).values()) == 1
    assert any(name.startswith("Agreement with people, Motion smoothness: Color ") for name in names)
    ids = [str(element["id"]) for _, element in page.elements if element.get("id")]
    assert max(Counter(ids).values()) == 1


def test_one_point_without_intervals_is_drawn() -> None:
    one = Estimate(3.0)
    assert "3.00" in dots([Dot("amber", 0, one, "3.00")], Scale("rank", 1, 5), "Mean rank")
    assert "amber" in scatter([Model("amber", 0, one, one), Model("birch", 1, one, one)], "score", "rank", "Alike")


# ---- safety and sameness ---------------------------------------------------------------------------------------------


def hostile() -> tuple[StudyResult, PeopleResult, dict[str, str]]:
    """Everything that comes from outside is hostile: models, prompts, raters, source, reasons, faults."""
    worth_MPK = worth(3, 6)
    names = dict(zip(MODELS, HOSTILE, strict=False))
    votes = votes_of(worth_MPK)
    renamed = replace(
        votes,
        source=HOSTILE[0],
        models=tuple(names[model] for model in votes.models),
        votes=tuple(replace(v, models=tuple(names[model] for model in v.models)) for v in votes.votes),
        screening=replace(SCREENING, excluded={HOSTILE[1]: HOSTILE[2]}, checks={HOSTILE[1]: (3, 3)}),
    )
    runs = {names[model]: run for model, run in runs_of({"color": 0.5 + worth_MPK / 100}).items()}
    result = replace(conclude(renamed, n_resamples=FAST), faults=(Fault(*HOSTILE[:3]),), caveats=HOSTILE)
    people = metrics_against_people(renamed, runs | {HOSTILE[3]: next(iter(runs.values()))}, n_resamples=FAST)
    return result, people, dict(zip(HOSTILE, reversed(HOSTILE), strict=True))


def test_hostile_text_stays_text() -> None:
    result, people, prompts = hostile()
    page = parse(result, people=people, prompts=prompts)
    assert len(page.all("script")) == 2
    assert not page.all("img")
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    for text in HOSTILE[:4]:
        assert " ".join(text.split()) in page.words
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv"))
    assert str(policy).startswith("default-src 'none'")
    assert not any("style" in attributes for _, attributes in page.elements), "the policy forbids style attributes"


def test_the_same_study_gives_the_same_bytes(study: StudyResult, people: PeopleResult, tmp_path: Path) -> None:
    small = replace(people, axes=people.axes[:1]), {"p000": "x"}
    render_study(study, tmp_path / "a.html", *small)
    render_study(study, tmp_path / "b.html", *small)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_headings_do_not_skip_levels(page: Parsed) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_many_duels_are_folded() -> None:
    models = tuple("abcdefg")
    axis = axis_of({(a, b): (0.6, 0.2) for n, a in enumerate(models) for b in models[n + 1 :]}, models)
    result = StudyResult("s", "vote", "pairwise", models, (axis,), None)
    assert "Bars of all duels 21" in parse(result).words
    assert ShownStudy(result).series("g") == 0, "colours start again"


def test_parts_make_a_page() -> None:
    assert "<h1" not in compose_parts("Nothing", Path("x.html"), ())


# ---- among the runs --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of three models and the votes on their videos, as a user has them."""
    root = tmp_path_factory.mktemp("study")
    worth_MPK = worth(3, 6)
    ids = [f"custom50-{n + 1:02d}" for n in range(6)]
    for place, model in enumerate(MODELS[:3]):
        spec = Spec(
            [prompt_text(n) for n in range(6)],
            {"imaging_quality": 0.5 + place / 20},
            seed=place,
            clip_size=None,
        )
        write_run(root / model, spec)
    votes = votes_of(worth_MPK)
    named = [replace(vote, prompt_id=ids[int(vote.prompt_id[1:])]) for vote in votes.votes]
    texts = {id_: prompt_text(n) for n, id_ in enumerate(ids)}
    write_csv(replace(votes, votes=tuple(named), prompts=texts), root / "votes.csv")
    return root


def test_the_runs_page_has_a_section(scored: Path, tmp_path: Path) -> None:
    """Runs are given in another order than the study's models: colours are those of the runs."""
    given = [str(scored / model) for model in ("birch", "amber", "cedar")]
    out = tmp_path / "page.html"
    result = CliRunner().invoke(
        build_app(), ["report", *given, "--study", str(scored / "votes.csv"), "--out", str(out)], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    page = Parsed(out.read_text(encoding="utf-8"))
    assert "Human preference" in [section["aria-label"] for section in page.all("section")]
    assert "3 models with a run on custom50 · official profile · fp32" in page.words
    swatches = re.findall(
        r'<span class="swatch (series-\d)"></span><span>(\w+)</span>', out.read_text(encoding="utf-8")
    )
    assert {name: series for series, name in swatches} == {
        "birch": "series-0",
        "amber": "series-1",
        "cedar": "series-2",
    }
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    without = tmp_path / "without.html"
    write_page([Path(path) for path in given], without)
    assert "Human preference" not in Parsed(without.read_text(encoding="utf-8")).words


def test_runs_are_matched_by_name_or_as_told(scored: Path, tmp_path: Path) -> None:
    other = tmp_path / "a run of mine"
    other.symlink_to(scored / "cedar")
    paths = [scored / "amber", scored / "birch", other]
    write_page(paths, tmp_path / "page.html", HumanStudy(scored / "votes.csv", {"cedar": other}))
    assert "3 models with a run" in Parsed((tmp_path / "page.html").read_text(encoding="utf-8")).words
    with pytest.raises(UserError, match="not one of the runs of this page"):
        write_page(paths[:2], tmp_path / "page.html", HumanStudy(scored / "votes.csv", {"cedar": scored / "cedar"}))
    with pytest.raises(UserError, match=r"1 of the runs.*two are needed") as caught:
        write_page(paths[:1], tmp_path / "page.html", HumanStudy(scored / "votes.csv", {}))
    assert "--study-models" in caught.value.remedy


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--study-models", "amber=x"], "there is no study"),
        (["--study", "votes.csv", "--study-models", "amber"], "no pair of a model and a run"),
        (["--study", "votes.csv", "--study-models", "a=x", "--study-models", "a=y"], "names a twice"),
    ],
)
def test_bad_pairs_are_one_clear_error(scored: Path, tmp_path: Path, options: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        CliRunner().invoke(
            build_app(),
            ["report", str(scored / "amber"), *options, "--out", str(tmp_path / "x.html")],
            catch_exceptions=False,
        )


def test_an_ablation_has_no_study(tmp_path: Path) -> None:
    (tmp_path / "ablation.json").write_text(json.dumps({}))
    with pytest.raises(UserError, match="no human study"):
        write_page([tmp_path], tmp_path / "page.html", HumanStudy(tmp_path / "votes.csv", {}))


# ---- in the browser --------------------------------------------------------------------------------------------------

TEXTS_OUTSIDE = """
const width = document.documentElement.clientWidth;
return [...document.querySelectorAll("main svg text")].filter((t) => t.checkVisibility())
  .filter((t) => { const box = t.getBoundingClientRect(); return box.left < 0 || box.right > width; })
  .map((t) => t.textContent);
"""


@pytest.mark.browser
def test_the_page_fits_and_keeps_to_itself(study: StudyResult, people: PeopleResult, tmp_path: Path) -> None:
    """A phone, then a dark desk: nothing overlaps or leaves the window, text has 4.5 : 1; hostile names do nothing."""
    pages = {"plain": (study, people, {"p000": "x"}), "hostile": hostile()}
    for name, (result, compared, prompts) in pages.items():
        render_study(result, tmp_path / f"{name}.html", compared, prompts)
    for width, dark in ((360, False), (1280, True)):
        with chromium(width, dark=dark, touch=width < 800) as browser:
            for name in pages:
                url = (tmp_path / f"{name}.html").as_uri()
                browser.get(url)
                if name == "plain":
                    assert overlapping_texts(browser, "main") == []
                    assert browser.execute_script(TEXTS_OUTSIDE) == []
                browser.execute_script("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
                assert horizontal_overflow(browser) == 0
                assert [entry for entry in browser.execute_script(CONTRASTS) if entry[0] < 4.5] == []
                assert complaints(browser) == []
                assert requests(browser) == [url]
                assert browser.execute_script("return window.hacked") is None
