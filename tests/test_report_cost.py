"""The cost section of the report, and pages of directories that hold nothing but cost."""

from __future__ import annotations

import json
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from evalkit.cli import build_app
from evalkit.cost_record import CostRecord, CostRow, FlopsRecord, Sweep, load_cost
from evalkit.errors import UserError
from evalkit.records import RESULT_COLUMNS, RunRecord, load_run
from evalkit.report import ShownRun, compose, cost_plots, load, quality_of, undominated
from evalkit.report.format import significant
from evalkit.report.labels import Box, fold, place_labels, spread, text_size
from evalkit.scoring import BOUNDS, totals
from evalkit.stats import bootstrap_mean
from tests.browser import chromium, complaints, horizontal_overflow, overlapping_texts, requests
from tests.fabricate import (
    FAILED,
    SEVEN,
    Spec,
    block_sweep,
    cost_row,
    frame_sweep,
    latency_row,
    m4v_rows,
    write_flops,
    write_latency,
    write_run,
)
from tests.test_report import Parsed
from tests.test_report_browser import CONTRASTS

PROMPTS = tuple(f"prompt number {n}" for n in range(8))
NEEDS_SCORES = ("Summary", "Scores", "Distributions", "Videos", "Best and worst", "Published rows", "Not scored")


def page_of(*paths: Path) -> Parsed:
    runs, costs = load(paths)
    return Parsed(compose(runs, paths[0] / "report.html", costs))


def section(page: Parsed) -> str:
    """The words of the cost section."""
    return page.words.rpartition("Counted cost ")[2] if "Counted cost " in page.words else page.words


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("costs")


@pytest.fixture(scope="module")
def counted(folder: Path) -> Path:
    """Everything a flops.json can hold."""
    write_flops(folder / "counted", m4v_rows(), sweep=frame_sweep())
    return folder / "counted"


@pytest.fixture(scope="module")
def timed(folder: Path) -> Path:
    """Only a latency.json."""
    ratio = {"to": "attention", "value": 0.5, "ci95": [0.48, 0.52]}
    rows = [
        latency_row("attention", 1.624),
        latency_row("mamba", 0.812, ratio=ratio),
        latency_row("mamba+temporal", 1.0, **FAILED),
    ]
    write_latency(folder / "timed", rows)
    return folder / "timed"


@pytest.fixture(scope="module")
def scored(folder: Path) -> Path:
    """A scored run without a cost."""
    write_run(folder / "scored", Spec(PROMPTS, clip_size=None))
    return folder / "scored"


@pytest.fixture(scope="module")
def both(folder: Path) -> Path:
    """A scored run whose cost lies beside it."""
    write_run(folder / "both", Spec(PROMPTS, seed=1, clip_size=None))
    write_flops(folder / "both", m4v_rows())
    return folder / "both"


@pytest.fixture(scope="module")
def dear(folder: Path) -> Path:
    """A scored run that costs more and scores less."""
    worse = {name: mean - 0.03 for name, mean in SEVEN.items()}
    write_run(folder / "dear", Spec(PROMPTS, seed=2, scores=worse, clip_size=None))
    write_flops(folder / "dear", [cost_row("attention", 55.2)])
    return folder / "dear"


def test_a_directory_of_cost_alone_is_a_page(counted: Path, timed: Path) -> None:
    for path in (counted, timed):
        page = page_of(path)
        anchors = [link["href"] for link in page.all("a") if link.get("href") != "#main"]
        assert anchors == ["#overview", "#cost", "#provenance"]
        assert page.all("h1")
        assert "no video was scored" in page.words
        assert not any(f" {name} " in page.words for name in NEEDS_SCORES)
        assert "Official profile." not in page.words
        assert "VBench scores" not in page.words
        assert page.data["videos"] == []


def test_a_page_without_cost_has_no_section(scored: Path) -> None:
    page = page_of(scored)
    assert {"href": "#cost"} not in page.all("a")


def test_rows_are_as_recorded(counted: Path) -> None:
    words = section(page_of(counted))
    assert "attention m4v, 241 frames of 768 × 1280 8 + 16 15,360 1,900 55.20 90.13 18,025 55.44 M4V, Table 6" in words
    assert "−0.4 reproduced mamba " in words
    assert "29.52 M4V, Table 6 +6.4 not reproduced" in words
    assert "12,365 – –" in words  # nothing is published for that row
    assert "this model" in words
    assert "A multiply-add counts as 2 FLOPs. Attention counts in full (no mask)." in words
    assert "text tokens 128" in words
    assert "89abcdef0123456789abcdef0123456789abcdef, with uncommitted changes" in words


def test_the_table_of_parts_adds_up(counted: Path) -> None:
    words = page_of(counted).words
    assert "Variant, TFLOPs mixer mlp out embed head modulation sum" in words
    assert "attention 55.20 30.25 4.600 0.06000 0.01500 0.001000 90.13" in words


amounts = st.floats(0, 1e6).map(lambda x: 0.0 if x < 1e-6 else x)


@given(parts=st.dictionaries(st.sampled_from("abcdefghij"), amounts, max_size=10), others=st.lists(amounts, max_size=3))
def test_segments_stand_end_to_end_and_sum_to_the_total(parts: dict[str, float], others: list[float]) -> None:
    bars = [cost_plots.Bar("x", parts), cost_plots.Bar("y", dict(zip("aez", others, strict=False)))]
    found = cost_plots.segments(bars[0], cost_plots.part_order(bars))
    total, end = math.fsum(parts.values()), 0.0
    for _, start, length in found:
        assert start == pytest.approx(end, rel=1e-12)
        end = start + length
    assert end == pytest.approx(total, rel=1e-12)
    assert {name for name, *_ in found} == {name for name, tflops in parts.items() if tflops > 0}


def extent(attributes: dict[str, str | None]) -> tuple[float, float]:
    xs = [float(x) for x, _ in re.findall(r"[ML] ([\d.]+) ([\d.]+)", str(attributes["d"]))]
    return min(xs), max(xs)


def test_drawn_bars_are_as_long_as_their_totals() -> None:
    """The rectangles of each bar, read back from the SVG, span its total on one scale."""
    bars = [cost_plots.Bar(row["variant"], row["breakdown"]) for row in m4v_rows()]
    drawn = Parsed(str(cost_plots.stacked(bars, 860, 180, 24)))
    rectangles = [p for p in drawn.all("path") if str(p.get("fill")).startswith("var(--series-")]
    n = len(bars[0].parts)
    assert len(rectangles) == 3 * n
    scales = []
    for place, bar in enumerate(bars):
        spans = [extent(p) for p in rectangles[place * n : (place + 1) * n]]
        scales.append((max(high for _, high in spans) - min(low for low, _ in spans)) / sum(bar.parts.values()))
    assert scales == pytest.approx([scales[0]] * 3, rel=1e-5)  # SVG holds six decimals


def test_seven_parts_do_not_share_a_look(folder: Path) -> None:
    breakdown = {name: 7.0 - place for place, name in enumerate("abcdefg")}
    write_flops(folder / "parts", [cost_row("x", 28.0, breakdown=breakdown, total_tflops=28.0)])
    swatches = [str(s["class"]) for s in page_of(folder / "parts").all("span") if "swatch" in str(s.get("class"))]
    assert len(set(swatches)) == len(swatches) == 7


def test_the_crossing_is_marked_and_named(counted: Path, folder: Path) -> None:
    words = page_of(counted).words
    assert "attention and mamba cost the same at 2,000 tokens (14 frames): the ring." in words
    assert "both axes are logarithmic" in words
    assert "Dashes" not in words
    traced = frame_sweep()
    both = [{"tokens": n, "mixer_tflops": {"attention": n**2 / 1e6, "mamba": n / 500}} for n in (500, 2000, 8000)]
    traced["crossing"] |= {"tflops": None, "frames": None, "curve": both}
    write_flops(folder / "traced", m4v_rows(), sweep=traced)
    page = page_of(folder / "traced")
    assert "at 2,000 tokens, fewer than any clip of this size has: the ring. Dashes trace the two" in page.words
    assert len([path for path in page.all("path") if path.get("stroke-dasharray")]) >= 4  # two, wide and narrow
    write_flops(folder / "blocks", m4v_rows()[2:], sweep=block_sweep())
    words = page_of(folder / "blocks").words
    assert "both axes are linear" in words
    assert "dual-stream blocks L" in words
    assert "the ring" not in words


def test_a_crossing_of_unknown_height_lies_on_the_curve() -> None:
    """Attention is 4 (tokens / 2000)^2 in the fabricated sweep: a power law, which interpolation follows exactly."""
    found = frame_sweep()
    found["crossing"] |= {"tokens": 5000.0, "tflops": None}
    place = cost_plots.meeting(Sweep.model_validate(found))
    assert place == pytest.approx((5000, 4 * 2.5**2), rel=1e-12)
    found["crossing"]["tokens"] = 50.0  # outside of the sweep
    assert cost_plots.meeting(Sweep.model_validate(found)) is None
    found["crossing"]["curve"] = [{"tokens": n, "mixer_tflops": {"attention": n / 5, "mamba": 10}} for n in (10, 80)]
    assert cost_plots.meeting(Sweep.model_validate(found)) == pytest.approx((50, 10), rel=1e-12)


def test_latency_is_named_by_its_hardware(timed: Path) -> None:
    words = page_of(timed).words
    assert "Latency on Example GPU (cuda)" in words
    assert (
        "attention m4v, 241 frames of 768 × 1280 15,360 1.624 1.592 – 1.673 20 12.5 55.4 17.8 of 312 TFLOP/s –" in words
    )
    assert "0.500 × attention 0.480 – 0.520" in words
    assert "mamba+temporal m4v, 241 frames of 768 × 1280 not measured: out of memory after 79 GiB" in words
    assert "compile no, batch 1" in words
    assert "Memory: largest allocation of the CUDA allocator. Peak: data sheet, dense bf16." in words
    assert "do not compare" not in words


def test_hardware_never_shares_a_table(timed: Path, folder: Path) -> None:
    unknown = {"utilisation": None, "peak_tflops_per_s": None, "peak_source": None}
    write_latency(folder / "cpu", [latency_row("attention", 162.4, **unknown)], "Example CPU", "cpu")
    page = page_of(timed, folder / "cpu")
    labels = [str(div.get("aria-label")) for div in page.all("div")]
    assert [label for label in labels if label.startswith("Latency on")] == [
        "Latency on Example CPU",
        "Latency on Example GPU",
    ]
    assert "measured on different hardware: do not compare" in page.words
    assert "peak unknown" in page.words
    settings = {"dtype": "fp32", "compile": True, "batch": 1, "threads": 2, "warmup": 3}
    write_latency(folder / "other", [latency_row("attention", 3.0)], settings=settings)
    assert "under different settings: do not compare" in page_of(timed, folder / "other").words


def test_a_network_of_ones_own_has_dashes_not_zeros(folder: Path) -> None:
    unknown = dict.fromkeys(("dual_blocks", "single_blocks", "frames", "height", "width", "tokens", "clip_tflops"))
    breakdown = {"model": 3.5}
    row = cost_row("mine", 3.5, **unknown, breakdown=breakdown, total_tflops=3.5) | {"mixer_tflops": None}
    write_flops(folder / "own", [row])
    timed_row = latency_row("mine", 0.25) | dict.fromkeys(("frames", "height", "width", "tokens"))
    hardware = {"kind": "cpu", "cpu": "Example CPU", "cores": 2, "gpu": None}
    write_latency(folder / "own", [timed_row])
    record = json.loads((folder / "own" / "latency.json").read_text()) | {"hardware": hardware}
    (folder / "own" / "latency.json").write_text(json.dumps(record))
    words = page_of(folder / "own").words
    assert "mine m4v, inputs of its own – – 1,900 – 3.500 – – –" in words
    assert "Latency on Example CPU, 2 cores (cpu)" in words
    assert "mine m4v, inputs of its own – 0.2500" in words


def test_same_hardware_and_settings_share_a_table(timed: Path, folder: Path) -> None:
    write_latency(folder / "again", [latency_row("attention", 1.63)])
    page = page_of(timed, folder / "again")
    assert [str(d.get("aria-label")) for d in page.all("div")].count("Latency on Example GPU") == 1


def test_quality_stands_against_cost(both: Path, dear: Path, scored: Path, timed: Path) -> None:
    words = section(page_of(both, dear, scored, timed))
    tail = words.rpartition("Quality against cost")[2]
    runs = [load_run(path) for path in (both, dear)]
    assert "Mean of the seven customised dimensions, custom50" in words
    for run, clip, best in zip(runs, ("13,265", "18,025"), ("yes", "no"), strict=True):
        value = run.summary["aggregate"]["mean7"]
        assert re.search(rf"{run.name} {value:.2f} \d\d\.\d\d – \d\d\.\d\d {clip} [\w+]+ m4v, .{{5,40}} {best} ", tail)
    assert "C scored: no cost recorded" in tail
    assert "D timed: no quality recorded" in tail


def test_one_run_is_a_point_without_a_verdict(both: Path) -> None:
    words = page_of(both).words
    assert "Quality against cost" in words
    assert "Not beaten in both" not in words
    assert "A ring marks" not in words


def test_cost_and_quality_of_different_runs_make_no_point(scored: Path, counted: Path) -> None:
    words = page_of(scored, counted).words
    assert "No run on this page has both" in words
    assert "A scored: no cost recorded" in words


def test_different_scores_share_no_plot(both: Path, folder: Path) -> None:
    write_run(folder / "elsewhere", Spec(PROMPTS[:6], suite="my-prompts", clip_size=None))
    write_flops(folder / "elsewhere", [cost_row("mamba", 26.9)])
    page = page_of(both, folder / "elsewhere")
    assert "A ring marks" not in page.words
    labels = [str(d.get("aria-label")) for d in page.all("div")]
    assert labels.count("Quality against cost") == 2


def test_conventions_that_differ_are_told_apart(counted: Path, folder: Path) -> None:
    write_flops(folder / "causal", m4v_rows()[:1], convention={"mask": "causal", "notes": ["Masked."]})
    words = page_of(counted, folder / "causal").words
    assert "Counting convention of A" in words
    assert "Counting convention of B Masked. As recorded: mask causal." in words
    assert "different conventions: do not compare" in words


def test_hostile_text_stays_text(folder: Path) -> None:
    attack = "<script>window.hacked = 1</script> $\\frac{1}{2}$ {{ 7 * 7 }}"
    swept = frame_sweep()
    swept["rows"] = [row | {"variant": f"{attack} {row['variant']}"} for row in swept["rows"]]
    swept["crossing"] |= {"a": attack}
    root = folder / "<b>cost"
    write_flops(root, [cost_row(attack, 9.0, published_source=attack)], sweep=swept, convention={"notes": [attack]})
    write_latency(root, [latency_row(attack, 1.0, failed=attack), latency_row("x", 1.0, peak_source=attack)], attack)
    page = page_of(root)
    assert not {tag for tag, _ in page.elements} & {"b", "i"}
    assert len(page.all("script")) == 2
    assert page.words.count(attack) >= 6


def test_same_directories_same_page(counted: Path, both: Path) -> None:
    runs, costs = load([counted, both])
    assert compose(runs, counted / "x.html", costs) == compose(runs, counted / "x.html", costs)


@pytest.mark.parametrize("name", ["flops", "latency"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read"),
        ('{"schema": "m4v-eval/other/1"}', "has schema 'm4v-eval/other/1', not 'm4v-eval/{}/1'"),
        ('{"schema": "m4v-eval/NAME/1", "rows": []}', "is not a whole cost record"),
        ("[1]", "has schema None"),
    ],
)
def test_a_broken_file_is_one_clear_error(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / f"{name}.json").write_text(text.replace("NAME", name))
    done = CliRunner().invoke(build_app(), ["report", str(tmp_path), "--out", str(tmp_path / "page.html")])
    assert isinstance(done.exception, UserError)
    assert words.format(name) in str(done.exception)
    assert f"{name}.json" in str(done.exception)
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, "55", None])
def test_a_total_must_be_a_number(tmp_path: Path, value: Any) -> None:
    (tmp_path / "flops.json").write_text(
        json.dumps({"schema": "m4v-eval/flops/1", "convention": {}, "rows": [cost_row("x", 1.0, total_tflops=value)]})
    )
    with pytest.raises(UserError, match=r"rows\.0\.total_tflops"):
        load_cost(tmp_path)


def test_a_broken_run_is_not_taken_for_cost(tmp_path: Path) -> None:
    write_flops(tmp_path, m4v_rows())
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match="schema"):
        load([tmp_path])


def test_command_mixes_kinds(counted: Path, both: Path, timed: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    done = CliRunner().invoke(build_app(), ["report", str(counted), str(both), str(timed), "--out", str(out)])
    assert done.exit_code == 0, done.output
    page = Parsed(out.read_text(encoding="utf-8"))
    assert "3 runs side by side" in page.words
    assert "A both" in page.words  # scored runs come first
    assert "B counted" in page.words
    assert [run["name"] for run in page.data["runs"]] == ["both"]


def own(name: str, rows: list[dict[str, Any]]) -> str | None:
    flops = FlopsRecord(convention={}, rows=tuple(CostRow.model_validate(row) for row in rows))
    row = CostRecord(path=Path(name), flops=flops).own_row
    return None if row is None else row.variant


def test_which_row_is_the_runs_own() -> None:
    assert own("run", [cost_row("attention", 1.0)]) == "attention"
    assert own("mamba", m4v_rows()) == "mamba"  # the directory is named after it
    assert own("run", m4v_rows()) == "mamba+temporal"  # marked
    assert own("m4v", m4v_rows()) == "mamba+temporal"  # the model's name fits all rows: the mark decides
    assert own("run", m4v_rows()[:2]) is None
    assert own("run", []) is None


def test_the_interval_of_one_dimension_is_the_ordinary_one(folder: Path) -> None:
    """If seven dimensions have the same scores, their mean is any of them, and so is its interval (abs 1e-9)."""
    run = write_run(folder / "alike", Spec(PROMPTS, videos_per_prompt=2, clip_size=None, seed=3))
    first = next(iter(SEVEN))
    table = run.results
    values = dict(table[table["dimension"] == first].set_index("file")["value"])
    table["value"] = table["file"].map(values).astype("Float64")
    score = float(np.mean(list(values.values())))
    for found in run.summary["dimensions"].values():
        found["score"] = score
    run.summary["aggregate"]["mean7"] = 100 * score
    found = quality_of(ShownRun(0, run))
    rows = table[table["dimension"] == first]
    plain = bootstrap_mean(rows["value"].to_numpy(dtype=float), rows["prompt_id"].to_numpy(dtype=str), seed=3)
    assert found is not None
    assert found.ci95 is not None
    assert plain.low is not None
    assert plain.high is not None
    assert found.value == 100 * score
    assert found.ci95 == pytest.approx((100 * plain.low, 100 * plain.high), abs=1e-9)


def test_the_interval_is_that_of_the_prompts_own_totals(folder: Path) -> None:
    """Where every prompt is scored in all dimensions, the total is the mean of the prompts' totals (rel 1e-9)."""
    means = {name: bounds.low + 0.6 * (bounds.high - bounds.low) for name, bounds in BOUNDS.items()}
    run = write_run(folder / "full", Spec(PROMPTS, scores=means, suite="full", clip_size=None))
    scores = {name: found["score"] for name, found in run.summary["dimensions"].items()}
    run.summary["aggregate"] |= {"total": totals(scores).total}
    videos = run.summary["videos"]
    plain = bootstrap_mean([totals(v["scores"]).total for v in videos], [v["prompt_id"] for v in videos])
    found = quality_of(ShownRun(0, run))
    assert found is not None
    assert found.name == "VBench total score"
    assert (found.value, *(found.ci95 or ())) == pytest.approx((plain.estimate, plain.low, plain.high), rel=1e-9)


def test_the_interval_weighs_as_the_score_was_pooled(folder: Path) -> None:
    """A dimension pooled over frames: long clips weigh more, as in the recorded score (rel 1e-9)."""
    run = write_run(folder / "pooled", Spec(PROMPTS, clip_size=None, seed=4))
    n_terms = np.tile(np.arange(5, 5 + len(PROMPTS)), len(SEVEN)).astype(float)
    table = run.results.sort_values(["dimension", "file"], ignore_index=True)
    table["n_terms"] = n_terms.astype(int)
    run = RunRecord(run.path, run.manifest, run.summary, table.astype(RESULT_COLUMNS))
    by_prompt = np.zeros(len(PROMPTS))
    for name, found in run.summary["dimensions"].items():
        x_P = table.loc[table["dimension"] == name, "value"].to_numpy(dtype=float)
        found["score"] = float(np.average(x_P, weights=n_terms[: len(x_P)]))
        by_prompt += 100 * x_P / len(SEVEN)
    run.summary["aggregate"]["mean7"] = 100 * float(np.mean([d["score"] for d in run.summary["dimensions"].values()]))
    plain = bootstrap_mean(by_prompt, range(len(PROMPTS)), n_terms[: len(PROMPTS)], seed=4)
    quality = quality_of(ShownRun(0, run))
    assert quality is not None
    assert (quality.value, *(quality.ci95 or ())) == pytest.approx((plain.estimate, plain.low, plain.high), rel=1e-9)


def test_a_single_prompt_has_no_interval(folder: Path) -> None:
    found = quality_of(ShownRun(0, write_run(folder / "single", Spec(PROMPTS[:1], clip_size=None))))
    assert found is not None
    assert found.ci95 is None


def test_no_headline_no_quality(folder: Path) -> None:
    run: RunRecord = write_run(folder / "few", Spec(PROMPTS, scores={"aesthetic_quality": 0.6}, clip_size=None))
    assert quality_of(ShownRun(0, run)) is None
    write_flops(folder / "few", [cost_row("mamba", 1.0)])
    assert "few: no headline score" in page_of(folder / "few").words


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), max_size=10))
def test_undominated_by_definition(points: list[tuple[int, int]]) -> None:
    best = undominated([(float(c), float(q)) for c, q in points])
    for place, (cost, score) in enumerate(points):
        beaten = any((c < cost and q >= score) or (c <= cost and q > score) for c, q in points)
        assert (place in best) == (not beaten)


@given(st.lists(st.tuples(st.floats(20, 780), st.floats(20, 300)), min_size=1, max_size=12))
def test_labels_overlap_neither_each_other_nor_the_edge(points: list[tuple[float, float]]) -> None:
    bounds = Box(0, 0, 800, 320)
    boxes = place_labels(points, [f"run number {n}" for n in range(len(points))], [], bounds)
    for place, box in enumerate(boxes):
        assert box.inside(bounds)
        assert box.right - box.left == pytest.approx(text_size(f"run number {place}")[0])
        assert not any(box.overlaps(other) for other in boxes[:place])


@given(st.lists(st.floats(0, 100), max_size=6))
def test_spread_keeps_the_order_and_the_distance(places: list[float]) -> None:
    moved = spread(places, 15, 0, 100)
    ordered = [moved[i] for i in sorted(range(len(places)), key=places.__getitem__)]
    assert all(b - a >= 15 - 1e-9 for a, b in pairwise(ordered))
    assert all(-1e-9 <= y <= 100 + 1e-9 for y in moved)


@given(st.floats(1e-6, 1e9), st.floats(1.05, 1e6))
def test_logarithmic_ticks_lie_inside(low: float, ratio: float) -> None:
    ticks = cost_plots.decades(low, low * ratio, 6)
    assert 1 <= len(ticks) <= 6
    assert all(low <= tick <= low * ratio for tick in ticks)


@given(st.floats(1e-6, 1e9))
def test_significant_figures_are_within_half_a_unit(value: float) -> None:
    assert float(significant(value).replace(",", "")) == pytest.approx(value, rel=5.01e-4, abs=0)
    assert "e" not in significant(value)


@given(st.text(alphabet="ab+_ -/", max_size=30), st.integers(1, 12))
def test_folding_keeps_every_letter(text: str, width: int) -> None:
    folded = fold(text, width)
    assert folded.replace("\n", "").replace(" ", "") == text.replace(" ", "")
    assert all(len(line) <= width for line in folded.split("\n"))


TEXTS_OUTSIDE = """
const width = document.documentElement.clientWidth;
const outside = (box) => box.left < 0 || box.right > width;
return [...document.querySelectorAll("#cost svg text")]
  .filter((t) => t.checkVisibility() && outside(t.getBoundingClientRect())).map((t) => t.textContent);
"""


@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["wide", "narrow"])
def test_the_page_is_readable(
    counted: Path, both: Path, dear: Path, timed: Path, folder: Path, width: int, dark: bool
) -> None:
    """Nothing overlaps or leaves the window; text has 4.5 : 1 (WCAG 2.2, success criterion 1.4.3)."""
    runs, costs = load([counted, both, dear, timed])
    out = folder / f"page-{width}.html"
    out.write_text(compose(runs, out, costs), encoding="utf-8")
    with chromium(width, dark=dark, touch=width < 800) as browser:
        browser.get(out.as_uri())
        assert horizontal_overflow(browser) == 0
        assert overlapping_texts(browser, "#cost") == []
        assert browser.execute_script(TEXTS_OUTSIDE) == []
        browser.execute_script("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
        assert horizontal_overflow(browser) == 0
        assert [entry for entry in browser.execute_script(CONTRASTS) if entry[0] < 4.5] == []
        assert complaints(browser) == []
        assert requests(browser) == [out.as_uri()]


@pytest.mark.browser
def test_cost_alone_runs_without_complaint(counted: Path, folder: Path) -> None:
    runs, costs = load([counted])
    out = folder / "alone.html"
    out.write_text(compose(runs, out, costs), encoding="utf-8")
    with chromium() as browser:
        browser.get(out.as_uri())
        assert complaints(browser) == []
        assert horizontal_overflow(browser) == 0
