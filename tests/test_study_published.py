"""Tables of mean ranks: the M4V study against an independent computation, and tables with planted faults."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import UserError
from evalkit.stats import holm
from evalkit.study.forms import read_csv
from evalkit.study.forms.mean_ranks import MeanRanks
from evalkit.study.published import conclude_published
from evalkit.study.published.rank_table import RankTable, understand
from evalkit.study.record import SCHEMA, from_json, to_json
from evalkit.study.types import AxisResult, Estimate, Fault, StudyResult

HERE = Path(__file__).parent
M4V_TABLE = HERE.parent / "evalkit" / "reference_data" / "user_study_m4v.csv"
ORACLE = HERE / "reference_audit" / "audit_user_study.csv"
ROUNDED = 5.1e-5  # half a unit of the four decimals of the independent audit


def read(path: Path) -> MeanRanks:
    table = read_csv(path)
    assert isinstance(table, MeanRanks)
    return table


@pytest.fixture(scope="module")
def m4v() -> StudyResult:
    return conclude_published(read(M4V_TABLE))


@pytest.fixture(scope="module")
def record(m4v: StudyResult) -> dict[str, Any]:
    return json.loads(json.dumps(to_json(m4v, {"command": ["x"]}), allow_nan=False))


# ---- the M4V study ---------------------------------------------------------------------------------------------------


def test_win_rates_and_means_are_those_of_the_independent_audit(record: dict[str, Any]) -> None:
    rows = list(csv.DictReader(ORACLE.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 12
    for row in rows:
        models = record["axes"][row["axis"]]["models"]
        duel = models["M4V"]["against"][row["opponent"]]
        counts = (int(row["m4v_lower"]), int(row["equal"]), int(row["m4v_higher"]))
        assert (duel["n_win"], duel["n_tie"], duel["n_lose"]) == counts
        assert duel["n"] == 50
        assert duel["win_rate"]["value"] == pytest.approx(float(row["win_rate_if_low_is_best"]), abs=1e-9)
        for model, column in (("M4V", "m4v_mean"), (row["opponent"], "opponent_mean")):
            assert models[model]["mean_rank_as_printed"]["value"] == pytest.approx(float(row[column]), abs=ROUNDED)
            assert models[model]["mean_rank"]["value"] == pytest.approx(2 * float(row[column]), abs=2 * ROUNDED)


def test_every_pair_of_models_from_the_raw_cells(record: dict[str, Any]) -> None:
    """Counted here with exact fractions from the file, prompt 8 mended by hand."""
    cells: dict[tuple[str, str, str], Fraction] = {}
    for row in csv.DictReader(M4V_TABLE.read_text(encoding="utf-8").splitlines()):
        cells[row["axis"], row["model"], row["prompt_id"]] = Fraction(row["mean_rank"])
    cells["motion_smoothness", "M4V", "8"] -= 1
    for axis, found in record["axes"].items():
        for a, b in permutations(found["models"], 2):
            ours, theirs = ([x for (on, m, _), x in cells.items() if (on, m) == (axis, model)] for model in (a, b))
            signs = [(x > y) - (x < y) for x, y in zip(ours, theirs, strict=True)]
            duel = found["models"][a]["against"][b]
            assert [duel["n_win"], duel["n_tie"], duel["n_lose"]] == [signs.count(s) for s in (-1, 0, 1)]


def test_scale_grid_and_direction(m4v: StudyResult) -> None:
    table = understand(read(M4V_TABLE))
    assert (table.scale, table.total, table.n_rows, table.n_sound, table.n_incomplete) == (2.0, 7.5, 150, 149, 0)
    assert table.grid is not None
    assert (table.grid.raters, table.grid.step) == (15, "1/30")
    assert (m4v.scale, m4v.direction, m4v.unit, m4v.screening) == (2.0, "lower is better", "prompt", None)
    caveats = " ".join(m4v.caveats)
    for said in (
        "prompt-level, not rater-level",
        "halved ranks",
        "149 of 150",
        "At least 15 raters",
        "1/30",
        "inferred",
    ):
        assert said in caveats
    assert [axis.standings[0].model for axis in m4v.axes] == ["M4V", "HunyuanVideo", "HunyuanVideo"]


def test_the_row_that_does_not_sum_and_the_one_that_was_mended(m4v: StudyResult) -> None:
    assert [fault.where for fault in m4v.faults] == [
        "prompt 8, motion_smoothness",
        "prompt 29, motion_smoothness",
        "prompt 29, semantic_coherence",
    ]
    wrong, *noted = m4v.faults
    assert "sum to 8.5, not 7.5" in wrong.text
    assert wrong.repair is not None
    assert wrong.repair.startswith("M4V 2.266667 -> 1.266667: one digit differs, the row then sums to 7.5")
    assert "grid of 1/30" in wrong.repair
    for fault in noted:
        assert "OCR merged two cells" in fault.text
        assert fault.repair == "used as it stands in the table: it sums to 7.5 and lies on the grid of 1/30"


def test_the_mended_figure_is_found_without_the_notes(tmp_path: Path) -> None:
    rows = list(csv.DictReader(M4V_TABLE.read_text(encoding="utf-8").splitlines()))
    with (tmp_path / "bare.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ("prompt_id", "axis", "model", "mean_rank"), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    (fault,) = conclude_published(read(tmp_path / "bare.csv")).faults
    assert fault.where == "prompt 8, motion_smoothness"
    assert fault.repair is not None
    assert "M4V 2.266667 -> 1.266667" in fault.repair


def test_as_printed_changes_one_mean_by_a_fiftieth(m4v: StudyResult) -> None:
    printed = conclude_published(read(M4V_TABLE), as_printed=True)

    def mean(result: StudyResult, axis: str) -> float:
        (standing,) = (s for a in result.axes if a.axis == axis for s in a.standings if s.model == "M4V")
        assert standing.mean_rank is not None
        return standing.mean_rank.value

    assert mean(printed, "motion_smoothness") - mean(m4v, "motion_smoothness") == pytest.approx(2 / 50, abs=1e-9)
    assert mean(printed, "aesthetic_quality") == mean(m4v, "aesthetic_quality")
    fault = printed.faults[0]
    assert fault.repair is None
    assert "Probably M4V 2.266667 -> 1.266667" in fault.text
    assert any("as printed" in caveat for caveat in printed.caveats)


def test_holm_is_over_all_duels_of_all_axes(m4v: StudyResult) -> None:
    duels = [duel for axis in m4v.axes for duel in axis.duels]
    assert len(duels) == 30
    p = [duel.p_value for duel in duels if duel.p_value is not None]
    assert [duel.p_adjusted for duel in duels] == holm(p)


def test_the_record_says_what_it_is_and_comes_back(m4v: StudyResult, record: dict[str, Any]) -> None:
    assert record["schema"] == SCHEMA == "m4v-eval/study/1"
    assert from_json(record) == m4v
    assert "not rater-level" in record["unit_means"]
    assert record["axes"]["motion_smoothness"]["order"][:2] == ["HunyuanVideo", "M4V"]
    with pytest.raises(ValueError, match="schema"):
        from_json(record | {"schema": "other"})


def test_a_duel_reads_the_same_from_either_side(record: dict[str, Any]) -> None:
    for axis in record["axes"].values():
        for a, b in permutations(axis["models"], 2):
            ours, theirs = axis["models"][a]["against"][b], axis["models"][b]["against"][a]
            assert ours["win"] == theirs["lose"]
            assert ours["win_rate"]["value"] == pytest.approx(1 - theirs["win_rate"]["value"])
            assert ours["win_rate"]["low"] == pytest.approx(1 - theirs["win_rate"]["high"])
            assert ours["win_rate"]["low"] <= ours["win_rate"]["value"] <= ours["win_rate"]["high"]


def test_the_win_rate_of_a_model_is_the_mean_of_its_duels(record: dict[str, Any]) -> None:
    for axis in record["axes"].values():
        for figures in axis["models"].values():
            rates = [duel["win_rate"]["value"] for duel in figures["against"].values()]
            assert figures["win_rate"]["value"] == pytest.approx(np.mean(rates), abs=1e-12)
            assert figures["win_rate"]["low"] < figures["win_rate"]["value"] < figures["win_rate"]["high"]


# ---- tables with planted properties ----------------------------------------------------------------------------------


def written(
    path: Path, rows: Mapping[tuple[str, str], Mapping[str, str]], notes: Mapping[tuple[str, str], str] | None = None
) -> MeanRanks:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("prompt_id", "axis", "model", "mean_rank", "note"))
        for (prompt, axis), cells in rows.items():
            for model, cell in cells.items():
                writer.writerow((prompt, axis, model, cell, (notes or {}).get((prompt, axis), "")))
    return read(path)


def simulated(
    n_models: int, n_raters: int, n_prompts: int, scale: float, decimals: int, seed: int
) -> dict[tuple[str, str], dict[str, str]]:
    """Mean ranks of raters who agree by and large, divided by the scale and rounded."""
    rng = np.random.default_rng(seed)
    models = [f"m{n}" for n in range(n_models)]
    table = {}
    for p in range(n_prompts):
        merit_RM = np.arange(n_models) + rng.normal(size=(n_raters, n_models))
        ranks_RM = merit_RM.argsort(axis=1).argsort(axis=1) + 1
        cells = [f"{rank / scale:.{decimals}f}" for rank in ranks_RM.mean(axis=0)]
        table[f"p{p}", "x"] = dict(zip(models, cells, strict=True))
    return table


@given(
    n_models=st.integers(2, 7),
    n_raters=st.integers(1, 40),
    scale=st.sampled_from([1.0, 2.0, 5.0, 0.5]),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=40, deadline=None)
def test_scale_and_raters_of_any_table_are_found(
    tmp_path_factory: pytest.TempPathFactory, n_models: int, n_raters: int, scale: float, seed: int
) -> None:
    """The number of raters is a multiple of what the grid says, and mean ranks come out as they went in."""
    rows = simulated(n_models, n_raters, 12, scale, 6, seed)
    table = written(tmp_path_factory.mktemp("any") / "t.csv", rows)
    found = understand(table)
    assert found.scale == scale
    assert found.faults == ()
    assert found.grid is not None
    assert n_raters % found.grid.raters == 0
    expected = [[float(cell) * scale for cell in cells.values()] for cells in rows.values()]
    assert found.ranks_PM["x"] == pytest.approx(np.array(expected))
    assert found.ranks_PM["x"].sum(axis=1) == pytest.approx(n_models * (n_models + 1) / 2, abs=1e-4)


@given(seed=st.integers(0, 10**6), prompt=st.integers(0, 29), model=st.integers(0, 4), place=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_a_planted_misprint_is_named_and_never_mended_wrongly(
    tmp_path_factory: pytest.TempPathFactory, seed: int, prompt: int, model: int, place: int
) -> None:
    rows = simulated(5, 15, 30, 2.0, 6, seed)
    cells = rows[f"p{prompt}", "x"]
    honest = cells[f"m{model}"]
    digits = [n for n, character in enumerate(honest) if character.isdigit()]
    at = digits[place]
    wrong = honest[:at] + str((int(honest[at]) + 1 + seed % 9) % 10) + honest[at + 1 :]
    cells[f"m{model}"] = wrong
    table = written(tmp_path_factory.mktemp("wrong") / "t.csv", rows)
    (fault,) = understand(table).faults
    assert fault.where == f"prompt p{prompt}, x"
    ranks = understand(table).ranks_PM["x"][prompt] / 2
    if fault.repair:
        assert fault.repair.startswith(f"m{model} {wrong} -> {honest}:")
        assert ranks[model] == pytest.approx(float(honest))
    else:
        assert ranks[model] == pytest.approx(float(wrong))
        assert "No single digit mends it beyond doubt" in fault.text


def test_a_large_misprint_is_mended(tmp_path: Path) -> None:
    """Most single digits are mended; here the one of M4V's table, planted elsewhere."""
    mended = 0
    for seed in range(20):
        rows = simulated(5, 15, 50, 2.0, 6, seed)
        honest = rows["p3", "x"]["m1"]
        rows["p3", "x"]["m1"] = str(int(honest[0]) + 1) + honest[1:]
        (fault,) = understand(written(tmp_path / "t.csv", rows)).faults
        mended += fault.repair is not None and f"-> {honest}:" in fault.repair
    assert mended == 20


def test_what_two_misprints_would_explain_stays(tmp_path: Path) -> None:
    rows = {(f"p{n}", "x"): {"a": "1.2", "b": "1.8"} for n in range(9)} | {("p9", "x"): {"a": "1.5", "b": "1.8"}}
    rows["p8", "x"] = {"a": "1.5", "b": "1.5"}
    (fault,) = understand(written(tmp_path / "t.csv", rows)).faults
    # 1.5 -> 1.2 restores the row as 1.8 -> 1.5 does; only the first is usual for its model.
    assert fault.repair is not None
    assert fault.repair.startswith("a 1.5 -> 1.2")
    rows = {(f"p{n}", "x"): {"a": "1.2", "b": "1.8"} if n % 2 else {"a": "1.8", "b": "1.2"} for n in range(9)}
    rows["p9", "x"] = {"a": "1.9", "b": "1.9"}
    faults = understand(written(tmp_path / "t.csv", rows)).faults
    assert [fault.repair for fault in faults] == [None]


def test_many_misprints_are_named_and_none_is_mended(tmp_path: Path) -> None:
    rows = simulated(5, 15, 200, 2.0, 6, 0)
    for p in range(60):
        rows[f"p{p}", "x"]["m1"] = "9" + rows[f"p{p}", "x"]["m1"][1:]
    found = understand(written(tmp_path / "t.csv", rows))
    assert (len(found.faults), found.n_sound) == (60, 140)
    assert {fault.repair for fault in found.faults} == {None}


def test_notes_are_verified(tmp_path: Path) -> None:
    rows = simulated(3, 4, 5, 1.0, 6, 0)
    notes = {("p2", "x"): "mended by hand"}
    (fault,) = understand(written(tmp_path / "t.csv", rows, notes)).faults
    assert fault == Fault(
        "prompt p2, x",
        "The table notes: mended by hand",
        "used as it stands in the table: it sums to 6 and lies on the grid of 1/4",
    )


def test_coarse_figures_tell_no_grid(tmp_path: Path) -> None:
    found = understand(written(tmp_path / "t.csv", simulated(4, 15, 10, 1.0, 1, 0)))
    assert found.grid is None
    result = conclude_published(written(tmp_path / "t.csv", simulated(4, 15, 10, 1.0, 1, 0)))
    assert any("cannot be told" in caveat for caveat in result.caveats)


@pytest.mark.parametrize(
    "turned",
    [
        lambda x: x - 1,  # counted from 0
        lambda x: x * x,
        lambda x: 100 - x,
    ],
)
def test_figures_that_are_no_ranks_are_refused(tmp_path: Path, turned: Any) -> None:
    rows = simulated(5, 7, 10, 1.0, 6, 1)
    wrong = {q: {m: f"{turned(float(cell)):.6f}" for m, cell in cells.items()} for q, cells in rows.items()}
    with pytest.raises(UserError, match="no mean ranks of 5 models"):
        understand(written(tmp_path / "t.csv", wrong))


@pytest.mark.parametrize("cells", [{"a": "0", "b": "0"}, {"a": "1" * 30, "b": "9" * 30}, {"a": "0.0001", "b": "3"}])
def test_absurd_figures_are_refused(tmp_path: Path, cells: dict[str, str]) -> None:
    with pytest.raises(UserError, match="no mean ranks"):
        understand(written(tmp_path / "t.csv", {("p", "x"): cells}))


def test_incomplete_prompts_are_left_out_and_named(tmp_path: Path) -> None:
    rows = simulated(3, 4, 5, 1.0, 6, 0)
    del rows["p1", "x"]["m2"]
    rows["q", "y"] = {"m0": "1"}
    found = understand(written(tmp_path / "t.csv", rows))
    assert found.prompts == {"x": ("p0", "p2", "p3", "p4"), "y": ()}
    assert [(fault.where, fault.text) for fault in found.faults] == [
        ("prompt p1, x", "no figure for m2"),
        ("prompt q, y", "no figure for m1, m2"),
    ]
    x, y = conclude_published(written(tmp_path / "t.csv", rows)).axes
    assert (x.n_prompts, y.n_prompts, y.duels) == (4, 0, ())
    with pytest.raises(UserError, match="no prompt and axis has a mean rank for each of 3 models"):
        understand(written(tmp_path / "t.csv", {("p", "x"): {"a": "1"}, ("q", "x"): {"b": "1", "c": "2"}}))


def test_one_prompt_has_no_interval(tmp_path: Path) -> None:
    (axis,) = conclude_published(written(tmp_path / "t.csv", {("p", "x"): {"a": "1.25", "b": "1.75"}})).axes
    assert axis.standings[0].mean_rank == Estimate(1.25)
    assert (axis.duels[0].a, axis.duels[0].win.value) == ("a", 1.0)


def test_results_do_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    rows = simulated(4, 9, 20, 2.0, 6, 3)
    turned = {q: dict(reversed(cells.items())) for q, cells in reversed(rows.items())}
    first, second = (conclude_published(written(tmp_path / "t.csv", r)).axes[0] for r in (rows, turned))
    assert _by_model(first) == pytest.approx(_by_model(second))
    assert {(d.a, d.b): d.win.value for d in first.duels} == {(d.a, d.b): d.win.value for d in second.duels}


def _by_model(axis: AxisResult) -> Sequence[float]:
    return [s.mean_rank.value for s in sorted(axis.standings, key=lambda s: s.model) if s.mean_rank]


def test_the_packaged_table_is_read_from_anywhere(tmp_path: Path, m4v: StudyResult) -> None:
    copy = tmp_path / "copy.csv"
    shutil.copy(M4V_TABLE, copy)
    table: RankTable = understand(read(copy))
    assert table.source == "copy.csv"
    assert conclude_published(read(copy)).axes == m4v.axes
