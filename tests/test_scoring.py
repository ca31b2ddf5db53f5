"""Headline scores and the tables they are read from."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from evalkit import metrics
from evalkit.cli import build_app
from evalkit.errors import UserError
from evalkit.score_table import read_table
from evalkit.scoring import (
    BOUNDS,
    CUSTOM7,
    LINGEN_QUALITY6,
    M4V_AVG4,
    QUALITY,
    SEMANTIC,
    lingen_quality6,
    m4v_avg4,
    mean7,
    normalise,
    totals,
)

ROOT = Path(__file__).parent.parent
T2V = ROOT / "evalkit" / "reference_data" / "vbench_t2v.csv"

# PyramidFlow as the leaderboard prints it: dimensions, then quality 84.74, semantic 69.62, total 81.72.
PYRAMIDFLOW = dict(
    zip(
        metrics.DIMENSIONS,
        [96.95, 98.06, 99.49, 99.12, 64.63, 63.26, 65.01, 86.67, 50.71, 85.6, 82.87, 59.53, 43.20, 20.91, 23.09, 26.23],
        strict=True,
    )
)


def fractions(percent: dict[str, float]) -> dict[str, float]:
    return {name: x / 100 for name, x in percent.items()}


def test_bounds_cover_the_registry_in_its_order() -> None:
    assert tuple(BOUNDS) == metrics.DIMENSIONS
    assert (len(QUALITY), len(SEMANTIC), len(CUSTOM7), len(LINGEN_QUALITY6)) == (7, 9, 7, 6)
    assert sum(BOUNDS[name].weight for name in QUALITY) == 6.5
    assert sum(BOUNDS[name].weight for name in LINGEN_QUALITY6) == 5.5
    assert set(M4V_AVG4) < set(CUSTOM7)


def test_published_row_recomputes() -> None:
    """Tolerance: the printed scores have two decimals, and so do the dimensions they are recomputed from."""
    found = totals(fractions(PYRAMIDFLOW))
    assert found.quality == pytest.approx(84.74, abs=0.01)
    assert found.semantic == pytest.approx(69.62, abs=0.01)
    assert found.total == pytest.approx(81.72, abs=0.01)
    assert found.coverage == {"scored": list(BOUNDS), "missing": []}


@pytest.mark.parametrize("end", ["low", "high"])
def test_the_bounds_score_0_and_100(end: str) -> None:
    scores = {name: getattr(bounds, end) for name, bounds in BOUNDS.items()}
    expected = pytest.approx({"low": 0.0, "high": 100.0}[end], abs=1e-12)
    found = totals(scores)
    assert (found.quality, found.semantic, found.total) == (expected, expected, expected)


def test_normalisation_does_not_clip() -> None:
    assert normalise("motion_smoothness", 1.0) == pytest.approx(1.008576, abs=1e-6)
    assert normalise("subject_consistency", 0.0) < 0


@given(st.sampled_from(sorted(BOUNDS)))
def test_a_missing_dimension_is_never_zero(name: str) -> None:
    scores = fractions(PYRAMIDFLOW)
    whole = totals(scores)
    del scores[name]
    found = totals(scores)
    assert found.total is None
    assert found.quality == (None if name in QUALITY else whole.quality)
    assert found.semantic == (None if name in SEMANTIC else whole.semantic)
    assert found.missing == (name,)
    assert found.scored == tuple(scores)
    assert (mean7(scores) is None) == (name in CUSTOM7)
    assert (m4v_avg4(scores) is None) == (name in M4V_AVG4)
    assert (lingen_quality6(scores) is None) == (name in LINGEN_QUALITY6)


def test_nothing_scored() -> None:
    found = totals({})
    assert (found.quality, found.semantic, found.total, found.scored) == (None, None, None, ())
    assert found.missing == tuple(BOUNDS)


def test_dynamic_degree_has_half_weight() -> None:
    scores = fractions(PYRAMIDFLOW)
    more = totals(scores | {"dynamic_degree": scores["dynamic_degree"] + 0.13})
    assert (more.quality or 0) - (totals(scores).quality or 0) == pytest.approx(100 * 0.13 * 0.5 / 6.5)


def test_paper_averages() -> None:
    """M4V ablation, first row: the printed average 55.70 is the mean of four; the mean of the seven is 73.59."""
    row = fractions(
        {
            "subject_consistency": 93.28,
            "background_consistency": 94.48,
            "temporal_flickering": 98.65,
            "motion_smoothness": 99.19,
            "aesthetic_quality": 46.60,
            "imaging_quality": 63.16,
            "overall_consistency": 19.77,
        }
    )
    assert m4v_avg4(row) == pytest.approx(55.70, abs=0.005)
    assert mean7(row) == pytest.approx(73.59, abs=0.005)


def test_lingen_quality() -> None:
    """LinGen supplement Table 3, its own row: printed 78.59."""
    row = {"subject_consistency": 94.0, "background_consistency": 96.08, "motion_smoothness": 98.82}
    row |= {"dynamic_degree": 44.92, "aesthetic_quality": 57.86, "imaging_quality": 67.39}
    assert lingen_quality6(fractions(row)) == pytest.approx(78.59, abs=0.013)


@pytest.mark.parametrize("scores", [{"lite/color": 0.5}, {"colour": 0.5}, {"color": float("nan")}])
@pytest.mark.parametrize("score", [totals, mean7, m4v_avg4, lingen_quality6])
def test_stand_ins_and_nan_are_refused(score: Any, scores: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"lite/color|colour|nan"):
        score(scores)


# ---- tables ----------------------------------------------------------------------------------------------------------


def table(tmp_path: Path, text: str, name: str = "table.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def complete(scale: float = 1.0) -> str:
    return (
        ",".join(["model", *PYRAMIDFLOW])
        + "\n"
        + ",".join(["mine", *(f"{x / scale:.6f}" for x in PYRAMIDFLOW.values())])
    )


@pytest.mark.parametrize(("scale", "unit"), [(1.0, "percent"), (100.0, "fraction")])
def test_the_unit_is_decided_and_does_not_change_the_score(tmp_path: Path, scale: float, unit: str) -> None:
    found = read_table(table(tmp_path, complete(scale)))
    assert found.unit == unit
    assert found.rows[0].totals.total == pytest.approx(81.721, abs=1e-3)


def test_the_published_table_works_as_it_is() -> None:
    """Every row that was published in full recomputes to its printed total, those known to contradict it aside."""
    found = read_table(T2V)
    with T2V.open(encoding="utf-8", newline="") as file:
        printed = list(csv.DictReader(file))
    assert len(found.rows) == len(printed) == 66
    assert found.unit == "percent"
    for row, line in zip(found.rows, printed, strict=True):
        assert row.name == line["model"]
        assert set(row.totals.scored) == {name for name in BOUNDS if line[name]}
        if row.totals.total is not None and not line["source"].startswith("STIV"):
            assert row.totals.total == pytest.approx(float(line["total_score"]), abs=0.011)
    assert {"quality_score", "note"} <= set(found.ignored_columns)
    assert "CogVideoX-5B" in found.repeated_names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("model,color\n", "no rows"),
        ("model,fps\na,24\n", "no column that is a VBench dimension"),
        ("model,color,color\na,90,91\n", "'color' twice"),
        ("model,color,Color\na,90,91\n", "two columns that mean color"),
        ("model,imaging_qualty\na,90\n", "imaging_qualty"),
        ("model,color,lite/scene\na,90,91\n", "stand-in"),
        ("model,color\na,high\n", "'high' is not a number"),
        ("model,color\na,inf\n", "'inf' is not a number"),
        ("model,color\na,90,91\n", "3 cells under 2 headings"),
        ("model,color\na,120\n", "outside 0 to 100"),
        ("model,color\na,-5\n", "outside 0 to 100"),
        ("model,color,scene\na,90,0.5\n", "mix percent and fractions"),
        ("model,color\na,0.5\n", "unit cannot be told"),
        ('model,color\na,"90\n', "line"),
    ],
)
def test_bad_tables_are_refused_in_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        read_table(table(tmp_path, text))
    assert said in refused.value.what
    assert refused.value.remedy.endswith(".")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[]", "no rows"),
        ("3", "no rows"),
        ('[{"color": 1, "color": 2}]', "twice"),
        ('[{"color": true}]', "True is not a number"),
        ('[{"color": {"a": 1}}]', "not a number"),
    ],
)
def test_bad_json_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        read_table(table(tmp_path, text, "table.json"))
    assert said in refused.value.what


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_table(tmp_path / "absent.csv")
    (tmp_path / "latin.csv").write_bytes("model,color\ncafé,90\n".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        read_table(tmp_path / "latin.csv")


def test_byte_order_mark_spelling_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes("\ufeffName,Human Action,overall-consistency\n\nmine,90,25\n,,\n".encode())
    (row,) = read_table(path).rows
    assert (row.name, row.scores) == ("mine", {"human_action": 0.9, "overall_consistency": 0.25})


def test_empty_cells_are_missing(tmp_path: Path) -> None:
    (row,) = read_table(table(tmp_path, "model,color,scene,object_class,human_action\na,90,,-,n/a\n")).rows
    assert row.totals.scored == ("color",)


def test_zero_is_a_score(tmp_path: Path) -> None:
    (row,) = read_table(table(tmp_path, "model,color,scene\na,90,0\n")).rows
    assert row.scores == {"color": 0.9, "scene": 0.0}


def test_the_unit_can_be_given(tmp_path: Path) -> None:
    path = table(tmp_path, "model,color,scene\na,90,0.5\n")
    assert read_table(path, "percent").rows[0].scores["scene"] == pytest.approx(0.005)
    with pytest.raises(UserError, match="outside 0 to 1 "):
        read_table(path, "fraction")


def test_cosines_may_be_negative(tmp_path: Path) -> None:
    (row,) = read_table(table(tmp_path, "model,color,temporal_style\na,90,-2\n")).rows
    assert row.scores["temporal_style"] == pytest.approx(-0.02)


def test_rows_of_one_name_stay_apart(tmp_path: Path) -> None:
    found = read_table(table(tmp_path, "model,color\na,90\na,80\n"))
    assert [row.scores["color"] for row in found.rows] == [0.9, 0.8]
    assert found.repeated_names == ("a",)


@pytest.mark.parametrize(
    "data",
    [
        [{"model": "mine", **PYRAMIDFLOW}],
        {"mine": PYRAMIDFLOW},
        fractions(PYRAMIDFLOW),
        {name: [x / 100, [{"video_path": "a-0.mp4", "video_results": x / 100}]] for name, x in PYRAMIDFLOW.items()},
    ],
    ids=["rows", "by model", "one model", "official results"],
)
def test_shapes_of_json(tmp_path: Path, data: Any) -> None:
    (row,) = read_table(table(tmp_path, json.dumps(data), "mine.json")).rows
    assert row.name == "mine"
    assert row.totals.total == pytest.approx(81.721, abs=1e-3)


def test_command(tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    text = complete() + "\nhalf," + ",".join(["90"] * 7 + [""] * 9) + "\n"
    done = CliRunner().invoke(build_app(), ["score", str(table(tmp_path, text)), "--json", str(target)])
    assert done.exit_code == 0, done.output
    assert "81.72" in done.output
    written = json.loads(target.read_text())
    assert written["schema"] == "m4v-eval/score/1"
    mine, half = written["rows"]
    assert mine["total"] == pytest.approx(81.721, abs=1e-3)
    assert (half["name"], half["semantic"], half["total"]) == ("half", None, None)
    assert half["quality"] is not None
    assert half["coverage"] == {"scored": list(QUALITY), "missing": list(SEMANTIC)}
