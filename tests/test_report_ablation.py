"""The page of an ablation: what it says of variants, seeds and published effects, and that its clips play in step."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait
from typer.testing import CliRunner

from evalkit.ablate.command import Request, prepare
from evalkit.ablate.execute import Setting
from evalkit.ablate.record import make_record
from evalkit.ablation_record import load_ablation
from evalkit.cli import build_app
from evalkit.errors import UserError
from evalkit.records import load_run
from evalkit.report import ablation_plots, compose_ablation, render_ablation, title, write_page
from evalkit.report import media as media_module
from evalkit.report.ablation_plots import Difference, LossCurve
from evalkit.report.ablation_view import N_DIFFERENT, N_FIRST, moving_mean
from tests.browser import chromium, complaints, horizontal_overflow, overlapping_texts, requests
from tests.fabricate import EFFECT, SEVEN, TRUTH, AblationSpec, Spec, write_ablation, write_run
from tests.test_report import Parsed
from tests.test_report_browser import CONTRASTS

PROMPTS = tuple(f"a {colour} {shape}" for colour in ("red", "blue", "green", "grey") for shape in ("circle", "square"))
NAMES = ("baseline", "temp-branch", "text-recomposition")
NO_TRUTH = {"lite/aesthetic_quality": 0.5, "temporal_flickering": 0.9}
ATTACK = "<b>&\"'</b><script>x</script>"
WAIT_S = 10


def page_of(root: Path) -> Parsed:
    return Parsed(compose_ablation(root, root / "report.html"))


def record_of(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "ablation.json").read_text())
    return found


def changed(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Edit the record of an ablation."""
    record = record_of(root)
    change(record)
    (root / "ablation.json").write_text(json.dumps(record))


def signed(fraction: float) -> str:
    return f"{100 * fraction:+.2f}".replace("-", "−")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ablations")


@pytest.fixture(scope="module")
def one(folder: Path) -> Path:
    """One training seed; one fact of one prompt unscored in every variant."""
    unscored = {3: {"truth/motion": "the prompt's scene does not state motion"}}
    return write_ablation(folder / "one", AblationSpec(PROMPTS, unscored=unscored))


@pytest.fixture(scope="module")
def three(folder: Path) -> Path:
    """Three training seeds, each change on top of the one before, with clips."""
    return write_ablation(folder / "three", AblationSpec(PROMPTS, seeds=(0, 1, 2), cumulative=True, clip_size=(48, 48)))


@pytest.fixture(scope="module")
def plain(folder: Path) -> Path:
    """No metric that knows the truth."""
    return write_ablation(folder / "plain", AblationSpec(PROMPTS, scores=NO_TRUTH, published={}))


@pytest.fixture(scope="module")
def official(folder: Path) -> Path:
    """VBench's own dimensions."""
    return write_ablation(folder / "official", AblationSpec(PROMPTS, scores=SEVEN, profile="official"))


@pytest.fixture(scope="module")
def pages(one: Path, three: Path, plain: Path, official: Path) -> dict[str, Parsed]:
    return {path.name: page_of(path) for path in (one, three, plain, official)}


def test_one_page_whatever_the_number_of_runs(pages: dict[str, Parsed]) -> None:
    for name, page in pages.items():
        anchors = [a["href"] for a in page.all("a") if a.get("href") in {f"#{s}" for s in _sections(page)}]
        assert anchors[:5] == ["#overview", "#ablation", "#videos", "#not-scored", "#provenance"], name
        assert not any(words in page.words for words in ("side by side Run", "Paired comparison", "Headline scores"))
        assert [script.get("type") for script in page.all("script")] == ["application/json", None]


def _sections(page: Parsed) -> list[str]:
    return [str(element["id"]) for element in page.all("section") if element.get("id")]


def test_the_header_says_what_was_asked(pages: dict[str, Parsed]) -> None:
    words = pages["three"].words
    assert "m4v · tiny · 3 variants × 3 training seeds (0, 1, 2) · shapes50, 8 prompts · lite profile" in words
    assert "B temp branch , against A baseline Does causal attention over whole frames beside the scan help?" in words
    assert "C text recomposition , against B temp-branch" in words  # cumulative
    assert "both pyramids are off." in words
    assert "Training 1,000 steps" in words
    assert "one attention model, 400 steps" in words


def test_without_pre_training_it_says_so(one: Path, tmp_path: Path) -> None:
    root = write_ablation(tmp_path / "fresh", AblationSpec(PROMPTS[:2]))
    changed(root, lambda record: record.update(pretraining=None, data="shapes:easy"))
    words = page_of(root).words
    assert "none: every variant starts from random weights" in words
    assert "1,000 steps on shapes:easy" in words


def test_seeds_decide_what_the_intervals_cover(pages: dict[str, Parsed]) -> None:
    assert "One training seed: the intervals do not cover training again." in pages["one"].words
    assert "3 training seeds. The intervals cover both other prompts and training again." in pages["three"].words
    assert "do not cover training again" not in pages["three"].words


def test_several_seeds_that_could_not_be_compared_are_not_called_covered(tmp_path: Path) -> None:
    root = write_ablation(tmp_path / "two", AblationSpec(PROMPTS[:3], seeds=(4, 5)))
    assert "Two seeds tell the spread between seeds badly" in page_of(root).words
    changed(root, lambda record: record["comparisons"][0].update(covers_training=False))
    assert "Some intervals do not cover training again." in page_of(root).words


@pytest.mark.parametrize("name", ["one", "three", "plain", "official"])
def test_verdicts_are_those_of_the_record(pages: dict[str, Parsed], folder: Path, name: str) -> None:
    record, words = record_of(folder / name), pages[name].words
    for variant in NAMES[1:]:
        compared = [c for c in record["comparisons"] if c["variant"] == variant]
        said = words.partition(f"{variant} against ")[2].partition("A verdict needs")[0].partition(" against ")[0]
        for verdict in {c["verdict"] for c in compared}:
            metrics = [c for c in compared if c["verdict"] == verdict]
            noun = "metric" if len(metrics) == 1 else "metrics"
            listed = said.partition(f"{verdict} in {len(metrics)} {noun}: ")[2]
            for c in metrics:
                shift = f" ({signed(c['delta'])})" if verdict in ("better", "worse") else ""
                assert title(c["metric"]).lower() + shift in listed


def test_verdicts_are_told_in_words_and_signs_not_colour_alone(tmp_path: Path) -> None:
    root = write_ablation(tmp_path / "verdicts", AblationSpec(PROMPTS[:3]))
    kinds = ("worse", "not distinguishable", "not compared", "better", "better")

    def give_verdicts(record: dict[str, Any]) -> None:
        for c in record["comparisons"]:
            place = list(dict.fromkeys(c["metric"] for c in record["comparisons"])).index(c["metric"])
            c["verdict"] = kinds[place]

    changed(root, give_verdicts)
    words = page_of(root).words
    order = [
        words.index(text) for text in ("▲ better in 2", "▼ worse in 1", "≈ not distinguishable in 1", "– not comp")
    ]
    assert order == sorted(order)


@pytest.mark.parametrize("name", ["one", "three", "official"])
def test_the_table_is_the_record(pages: dict[str, Parsed], folder: Path, name: str) -> None:
    record = record_of(folder / name)
    words = pages[name].words.partition("Metrics by variant")[2].partition("Differences with")[0]
    for variant in record["variants"]:
        for found in variant["metrics"].values():
            low, high = (f"{100 * bound:.2f}" for bound in found["ci95"])
            unscored = f", {found['unscored']} unscored" if found["unscored"] else ""
            assert f"{100 * found['mean']:.2f} {low} – {high} n {found['n']}" in words
            assert unscored in words
    for c in record["comparisons"]:
        low, high = map(signed, c["ci95"])
        p = "< 0.001" if c["p_adjusted"] < 0.001 else f"{c['p_adjusted']:.3f}"
        spread = "" if c["seed_spread"] is None else f", seeds ± {100 * c['seed_spread']:.2f}"
        assert re.search(
            rf"{re.escape(signed(c['delta']))} \S {c['verdict']} {re.escape(f'{low} to {high}, p {p}{spread}')}", words
        )


def test_unscored_is_counted_and_left_out(pages: dict[str, Parsed], one: Path) -> None:
    words = pages["one"].words
    assert words.count("n 7, 1 unscored") == 3
    assert words.count("1 prompt left out: not scored in both") == 2
    motion = [c for c in record_of(one)["comparisons"] if c["metric"] == "truth/motion"]
    assert {c["n"] for c in motion} == {7}


def test_complete_runs_stand_in_one_sentence(pages: dict[str, Parsed]) -> None:
    assert "Nothing in A0 A1 A2 B0 B1 B2 C0 C1 C2 : every prompt has a video" in pages["three"].words
    assert "Nothing in" not in pages["one"].words
    assert pages["one"].words.count("1 video unscored: the prompt's scene does not state motion") == 3


def test_nothing_scored_is_not_zero(tmp_path: Path) -> None:
    why = {"truth/shape": "no object is seen"}
    root = write_ablation(tmp_path / "none", AblationSpec(PROMPTS[:3], unscored=dict.fromkeys(range(3), why)))
    words = page_of(root).words.partition("Metrics by variant")[2]
    assert "Shape (truth) – n 0, 3 unscored – n 0, 3 unscored – not compared 3 prompts left out" in words


def test_truth_comes_first_and_stand_ins_are_called_so(pages: dict[str, Parsed]) -> None:
    words = pages["one"].words.partition("Metrics by variant")[2]
    kinds = ("Ground truth of the procedural world", "VBench dimensions", "Lite stand-ins")
    assert [words.index(kind) for kind in kinds] == sorted(words.index(kind) for kind in kinds)
    assert "These are not VBench scores." in pages["one"].words
    assert "Ground truth" not in pages["plain"].words
    assert "Lite stand-ins" not in pages["official"].words
    assert "Official profile." in pages["official"].words


def svgs(root: Path) -> list[str]:
    return re.findall(r"<svg.*?</svg>", compose_ablation(root, root / "report.html"), re.DOTALL)


@pytest.mark.parametrize(("scores", "profile", "drawn"), [(SEVEN, "official", 1), (NO_TRUTH, "lite", 0)])
def test_a_published_effect_is_drawn_only_on_its_own_scale(
    tmp_path: Path, scores: dict[str, float], profile: str, drawn: int
) -> None:
    spec = AblationSpec(PROMPTS[:4], scores=scores, profile=profile)
    root = write_ablation(tmp_path / "published", spec)
    with_effect = svgs(root)
    changed(root, lambda record: [variant.update(published=[]) for variant in record["variants"]])
    without = svgs(root)
    assert len(with_effect) == len(without)
    assert sum(a != b for a, b in zip(with_effect, without, strict=True)) == drawn


@pytest.mark.parametrize(("delta", "words"), [(1.43, "same direction"), (-1.43, "opposite direction")])
def test_directions_are_compared(tmp_path: Path, delta: float, words: str) -> None:
    effects = [{**EFFECT, "delta": delta}, {**EFFECT, "metric": "fvd", "unit": "FVD", "delta": -3.0}]
    root = write_ablation(tmp_path / "x", AblationSpec(PROMPTS[:4], published={"temp-branch": effects}))
    compared = next(c for c in record_of(root)["comparisons"] if c["metric"] == "lite/aesthetic_quality")
    assert compared["delta"] > 0
    changed(root, lambda record: [c.update(verdict="better") for c in record["comparisons"]])
    found = page_of(root).words.partition("Ours and theirs")[2]
    assert f"{signed(delta / 100)} points 49.82 → 51.25 {signed(compared['delta'])} points, ▲ better" in found
    assert f"a stand-in, its points are not VBench's {words} M4V, Table 2" in found
    assert "−3 FVD 49.82 → 51.25 – not measured here M4V, Table 2" in found
    assert "text-recomposition: no effect at all" in found
    assert "temp-branch: temporal flickering" in found


def test_a_difference_that_may_be_none_points_nowhere(pages: dict[str, Parsed], folder: Path) -> None:
    compared = [c for c in record_of(folder / "one")["comparisons"] if c["metric"] == "lite/aesthetic_quality"]
    assert compared[0]["verdict"] == "not distinguishable"
    assert "a stand-in, its points are not VBench's undecided: ours may be none" in pages["one"].words


def test_variants_without_any_published_effect_stand_together(pages: dict[str, Parsed]) -> None:
    assert "B temp-branch, C text-recomposition: no effect at all" in pages["plain"].words
    assert "Ours and theirs" not in pages["plain"].words


def test_changes_and_cost(pages: dict[str, Parsed]) -> None:
    words = pages["three"].words.partition("What was changed, and its cost")[2]
    assert "model.temp_branch false → true attention weights 4.200 0.01230 295.2 1,000 0.1400" in words
    assert "Command: m4v-eval ablate temp-branch text-recomposition" in words


@pytest.mark.parametrize("name", ["one", "three"])
def test_samples_are_the_same_prompt_by_variant(pages: dict[str, Parsed], folder: Path, name: str) -> None:
    page, record = pages[name], record_of(folder / name)
    data, ids = page.data, [element["data-video"] for element in page.all("div") if "data-video" in element]
    n_variants, seeds = len(record["variants"]), record["seeds"]
    assert len(ids) % (n_variants * len(seeds)) == 0
    for start in range(0, len(ids), n_variants):
        videos = [data["videos"][int(str(place))] for place in ids[start : start + n_variants]]
        seed = seeds[start // n_variants % len(seeds)]
        assert len({video[2] for video in videos}) == 1  # one prompt
        assert [data["runs"][v[0]]["name"] for v in videos] == [f"{v}, training seed {seed}" for v in NAMES]
    hidden = [element for element in page.all("ul") if "data-seed" in element and "hidden" in element]
    assert {element["data-seed"] for element in hidden} == {str(seed) for seed in seeds[1:]}


def shown_prompts(page: Parsed) -> list[str]:
    labels = [str(element.get("aria-label")) for element in page.all("section")]
    return [label.removeprefix("Samples of ") for label in labels if label.startswith("Samples of ")]


@pytest.mark.parametrize("name", ["one", "three", "plain"])
def test_prompts_are_the_first_and_those_that_differ_most(pages: dict[str, Parsed], folder: Path, name: str) -> None:
    found = shown_prompts(pages[name])
    assert found[:N_FIRST] == [f"shapes50-{n:02d}" for n in (1, 2, 3)]
    truth: dict[str, dict[str, list[float]]] = {}
    for variant in record_of(folder / name)["variants"]:
        for run in variant["runs"]:
            for video in json.loads((folder / name / run / "vbench.json").read_text())["videos"]:
                values = [value for metric, value in video["scores"].items() if metric in TRUTH]
                if values:
                    of_prompt = truth.setdefault(video["prompt_id"], {})
                    of_prompt.setdefault(variant["name"], []).append(fmean(values))
    spreads = {p: max(map(fmean, v.values())) - min(map(fmean, v.values())) for p, v in truth.items()}
    rest = sorted((p for p in spreads if p not in found[:N_FIRST] and spreads[p] > 0), key=lambda p: (-spreads[p], p))
    assert found[N_FIRST:] == rest[:N_DIFFERENT]
    for prompt in found[N_FIRST:]:
        assert f"truth scores {100 * spreads[prompt]:.2f} points apart" in pages[name].words


def test_marks_say_which_facts_are_right(pages: dict[str, Parsed], one: Path) -> None:
    videos = json.loads((one / "baseline/seed0/scores/vbench.json").read_text())["videos"]
    marks = [f"{'✓' if v else '✗'} {m.removeprefix('truth/')}" for m, v in videos[0]["scores"].items() if m in TRUTH]
    samples = pages["one"].words.partition("Samples side by side")[2]
    assert f"{PROMPTS[0]} shapes50-01, one of the first prompts A baseline {' '.join(marks)} All scores" in samples


def test_marks_in_part_and_videos_that_cannot_be_judged(tmp_path: Path) -> None:
    root = write_ablation(tmp_path / "part", AblationSpec(PROMPTS[:2]))
    path = root / "baseline/seed0/scores/vbench.json"
    summary = json.loads(path.read_text())
    summary["videos"][0]["scores"]["truth/colour"] = 0.5
    summary["videos"][1] |= {"scores": {}, "unscored": dict.fromkeys(TRUTH, "the video cannot be decoded")}
    path.write_text(json.dumps(summary))
    words = page_of(root).words
    assert "~ colour 50 %" in words
    assert "not scored: the video cannot be decoded" in words


def test_a_prompt_without_a_video_in_one_variant(tmp_path: Path) -> None:
    root = write_ablation(tmp_path / "gap", AblationSpec(PROMPTS[:2]))
    path = root / "text-recomposition/seed0/scores/vbench.json"
    summary = json.loads(path.read_text())
    del summary["videos"][1]
    path.write_text(json.dumps(summary))
    assert "C text-recomposition no video" in page_of(root).words


def test_samples_are_embedded_before_other_clips(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = page_of(three)
    wanted = [page.data["videos"][int(str(e["data-video"]))][4] for e in page.all("div") if "data-video" in e]
    first_seed = wanted[: len(NAMES)]
    sizes = [len(page.data["clips"][name][0]) for name in first_seed]
    monkeypatch.setattr(media_module, "CLIP_BUDGET", sum(sizes))
    inside = {name for name, clip in page_of(three).data["clips"].items() if clip[0].startswith("data:")}
    assert set(first_seed) <= inside
    assert len(inside) < len(page.data["clips"]) / 2


def test_losses_are_a_line_a_variant_and_seed(three: Path, tmp_path: Path) -> None:
    drawn = next(svg for svg in svgs(three) if "Training loss by step, 860" in svg)
    n_lines = len(re.findall(r'stroke="var\(--series-\d\)"', drawn))
    assert n_lines == 3 * 3
    root = write_ablation(tmp_path / "lost", AblationSpec(PROMPTS[:2]))
    changed(root, lambda record: [v["train"].update(curves=[[]], final_loss=None) for v in record["variants"]])
    assert "No loss curve was kept." in page_of(root).words


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    root = write_ablation(tmp_path / "hostile", AblationSpec((ATTACK, "a red circle")))

    def attack(record: dict[str, Any]) -> None:
        record["description"] = ATTACK
        for variant in record["variants"]:
            variant["title"] = ATTACK
            variant["changes"] = {ATTACK: [ATTACK, None]}
            variant["published"] = [{**EFFECT, "citation": ATTACK, "unit": ATTACK, "metric": ATTACK}]

    changed(root, attack)
    page = page_of(root)
    assert not {tag for tag, _ in page.elements} & {"b", "i"}
    assert len(page.all("script")) == 2
    assert page.words.count("<b>&\"'</b><script>") >= 8


def test_ids_are_unique_and_references_resolve(pages: dict[str, Parsed]) -> None:
    for page in pages.values():
        ids = [str(attributes["id"]) for _, attributes in page.elements if attributes.get("id")]
        assert len(ids) == len(set(ids))
        links = {str(a["href"])[1:] for a in page.all("a") if str(a.get("href", "")).startswith("#")}
        assert links <= set(ids)


def test_same_directory_same_page(three: Path) -> None:
    assert compose_ablation(three, three / "x.html") == compose_ablation(three, three / "x.html")


def test_command_writes_the_page(one: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    done = CliRunner().invoke(build_app(), ["report", str(one), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert out.read_text(encoding="utf-8") == compose_ablation(one, out)


def test_an_ablation_shares_no_page(one: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Spec(PROMPTS[:2], clip_size=None))
    with pytest.raises(UserError, match="has a page of its own"):
        write_page([run.path, one], tmp_path / "page.html")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.update(schema="m4v-eval/ablation/0"), "has schema"),
        (lambda r: r.pop("seeds"), "seeds: Field required"),
        (lambda r: r["seeds"].append(7), "has not one run for each seed"),
        (lambda r: r["comparisons"][0].update(against="nobody"), "are not those that its comparisons name"),
        (lambda r: r["variants"][1].update(name="baseline"), "are not those that its comparisons name"),
        (lambda r: r["variants"][0].update(parameters="many"), "variants.0.parameters"),
        (lambda r: r["variants"][0].update(runs=["elsewhere"]), "does not exist"),
    ],
)
def test_a_broken_record_is_one_clear_error(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    root = write_ablation(tmp_path / "broken", AblationSpec(PROMPTS[:2]))
    changed(root, change)
    with pytest.raises(UserError, match=re.escape(words)):
        render_ablation(root, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_what_ablate_writes_is_what_the_report_reads(tmp_path: Path) -> None:
    """The record of a real design over made-up runs, training left out."""
    root = write_ablation(tmp_path / "real", AblationSpec(PROMPTS[:3], gains={"temp-branch": 0.2}))
    names = ("temp-branch",)
    request = Request(names, "tiny", 10, 5, (0,), None, None, False, "lite", None, "cpu", 1, root)
    experiment = prepare(request)
    setting = Setting(root, "shapes50", "lite", tmp_path, (0,), "cpu", tmp_path)
    runs = {v.name: [load_run(root / v.name / "seed0/scores")] for v in experiment.variants}
    record = make_record(experiment, setting, runs)
    (root / "ablation.json").write_text(json.dumps(record, ensure_ascii=False))
    assert [v.name for v in load_ablation(root).variants] == ["baseline", *names]
    words = page_of(root).words
    assert record["description"] in words
    assert "Does causal attention over whole frames beside the scan help?" in words
    assert "model.temporal_branch false → true" in words
    assert "Training 10 steps" in words


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30), st.integers(0, 4))
def test_a_moving_mean_stays_within_its_neighbours(values: list[float], half: int) -> None:
    smoothed = moving_mean(values, half)
    assert len(smoothed) == len(values)
    assert smoothed[0] == values[0]
    for i, mean in enumerate(smoothed):
        near = values[max(0, i - half) : i + half + 1]
        assert min(near) - 1e-9 <= mean <= max(near) + 1e-9


@given(st.floats(-10, 10), st.floats(-10, 10), st.integers(1, 4))
def test_a_moving_mean_keeps_a_straight_line(start: float, slope: float, half: int) -> None:
    """Exact but for the last `half` points, whose windows are cut (abs 1e-9)."""
    line = [start + slope * i for i in range(20)]
    assert moving_mean(line, half)[:-half] == pytest.approx(line[:-half], abs=1e-9)


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(0, 20)), min_size=1, max_size=5))
def test_a_forest_plots_axis_holds_zero_and_all_intervals(found: list[tuple[float, float]]) -> None:
    rows = [Difference("x", 0, delta, (delta - half, delta + half), True) for delta, half in found]
    low, high = ablation_plots.span(rows)
    assert low < 0 < high
    assert all(low < delta - half and delta + half < high for delta, half in found)


def test_axis_of_losses() -> None:
    def curve(*losses: float) -> LossCurve:
        return LossCurve("x", 0, list(enumerate(losses)))

    assert ablation_plots.is_logarithmic([curve(1.0, 0.2)])
    assert not ablation_plots.is_logarithmic([curve(1.0, 0.9)])
    assert not ablation_plots.is_logarithmic([curve(1.0, -0.2)])  # reward losses may be negative


TEXTS_OUTSIDE = """
const width = document.documentElement.clientWidth;
const outside = (box) => box.left < 0 || box.right > width;
const fallen = (text) => {
  const [inner, outer] = [text.getBoundingClientRect(), text.closest("svg").getBoundingClientRect()];
  return inner.top < outer.top - 2 || inner.bottom > outer.bottom + 2 || inner.right > outer.right + 2;
};
return [...document.querySelectorAll("#ablation svg text")]
  .filter((t) => t.checkVisibility() && (outside(t.getBoundingClientRect()) || fallen(t))).map((t) => t.textContent);
"""
TIMES = "return [...document.querySelectorAll('.sample video')].map((v) => v.currentTime)"
READY = "return [...document.querySelectorAll('.sample video')].every((v) => v.readyState >= 2 && !v.seeking)"


@pytest.fixture(scope="module")
def written(folder: Path, three: Path) -> Path:
    render_ablation(three, folder / "three.html")
    return folder / "three.html"


@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["wide", "narrow"])
def test_the_page_is_readable(folder: Path, width: int, dark: bool) -> None:
    """Nothing overlaps or leaves the window; text has 4.5 : 1 (WCAG 2.2, success criterion 1.4.3)."""
    root = folder / f"many-{width}"
    names = ("mm-recomposition", "text-recomposition", "temp-branch", "review-tokens", "rotary-positions", "gate")
    scores = {**TRUTH, **SEVEN}
    spec = AblationSpec(PROMPTS[:4], gains=dict.fromkeys(names, 0.1), scores=scores, profile="official", seeds=(0, 1))
    write_ablation(root, spec)
    if width > 800:  # losses that are all alike, on a linear axis
        alike = [[[0.0, 1.7], [1.0, 1.6]]] * 2
        changed(root, lambda record: [variant["train"].update(curves=alike) for variant in record["variants"]])
    render_ablation(root, root / "page.html")
    with chromium(width, dark=dark, touch=width < 800) as browser:
        browser.get((root / "page.html").as_uri())
        assert horizontal_overflow(browser) == 0
        assert overlapping_texts(browser, "#ablation") == []
        assert browser.execute_script(TEXTS_OUTSIDE) == []
        assert [entry for entry in browser.execute_script(CONTRASTS) if entry[0] < 4.5] == []
        assert complaints(browser) == []
        assert requests(browser) == [(root / "page.html").as_uri()]


def wait(browser: Chrome, script: str) -> None:
    WebDriverWait(browser, WAIT_S).until(lambda b: b.execute_script(script))


@pytest.mark.browser
def test_samples_play_in_step_and_follow_the_seed(written: Path) -> None:
    with chromium() as browser:
        browser.get(written.as_uri())
        wait(browser, READY)
        button = browser.find_element(By.ID, "sample-play")
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        wait(browser, "return document.querySelector('.sample video').currentTime > 0.2")
        button.click()
        assert button.get_attribute("aria-pressed") == "false"
        wait(browser, READY)
        times = browser.execute_script(TIMES)
        assert len(times) == len(NAMES) * len(browser.find_elements(By.CSS_SELECTOR, "section.row"))
        assert max(times) - min(times) < 1e-6
        set_slider = (
            "const s = document.getElementById('sample-time'); s.value = 0.5; s.dispatchEvent(new Event('input'))"
        )
        browser.execute_script(set_slider)
        duration = browser.execute_script("return document.querySelector('.sample video').duration")
        assert browser.execute_script(TIMES) == pytest.approx([duration / 2] * len(times), abs=0.02)
        before = browser.execute_script("return document.querySelector('.sample video').src")
        Select(browser.find_element(By.ID, "sample-seed")).select_by_value("2")
        assert browser.execute_script("return document.querySelector('.sample video').src") != before
        visible = [e for e in browser.find_elements(By.CSS_SELECTOR, ".samples") if e.is_displayed()]
        assert {e.get_attribute("data-seed") for e in visible} == {"2"}
        assert complaints(browser) == []
        assert requests(browser) == [written.as_uri()]


@pytest.mark.browser
def test_all_scores_of_a_sample(written: Path) -> None:
    with chromium() as browser:
        browser.get(written.as_uri())
        browser.find_element(By.CSS_SELECTOR, "[data-scores]").click()
        dialog = browser.find_element(By.ID, "player")
        assert "run A0" in dialog.text
        assert "Colour (truth)" in dialog.text
        assert complaints(browser) == []
