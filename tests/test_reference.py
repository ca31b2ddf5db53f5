"""Published tables and their audit, against headline scores that were recomputed independently (reference_audit/)."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evalkit.audit import Check, alias, audit, user_study
from evalkit.cli import build_app
from evalkit.errors import UserError
from evalkit.reference import TABLES, find_table, half_unit, published
from evalkit.scoring import BOUNDS

ORACLE = Path(__file__).parent / "reference_audit"
AUDIT = audit()


def oracle(name: str) -> list[dict[str, str]]:
    with (ORACLE / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def checks(table: str, quantity: str) -> list[Check]:
    return [check for check in AUDIT.checks if check.table == table and check.quantity == quantity]


def contradictions(table: str) -> set[tuple[str, str]]:
    return {(check.row, check.quantity) for check in AUDIT.contradictions if check.table == table}


def diagnosis(table: str, row: str, quantity: str) -> str:
    (check,) = [c for c in checks(table, quantity) if c.row == row and c.contradicts]
    return "\n".join(check.diagnosis)


@pytest.mark.parametrize(
    ("quantity", "column"),
    [
        ("quality", "recomputed_q"),
        ("semantic", "recomputed_s"),
        ("total", "recomputed_t"),
        ("total from printed parts", "total_from_printed_qs"),
    ],
)
def test_text_to_video_agrees_with_the_independent_audit(quantity: str, column: str) -> None:
    """Tolerance: half of the third decimal, to which the independent figures are rounded."""
    expected = {(row["model"], row["source"]): row[column] for row in oracle("audit_t2v")}
    found = {(check.row, check.source): check.recomputed for check in checks("vbench_t2v", quantity)}
    for key, cell in expected.items():
        if cell:
            assert found[key] == pytest.approx(float(cell), abs=0.000501), key
        else:
            assert found.get(key) is None, key


@pytest.mark.parametrize(
    ("quantity", "column", "printed"),
    [
        ("quality", "quality_7dims", "printed_quality"),
        ("i2v score", "i2v_without_camera", "printed_i2v"),
        ("total", "total_7dims_nocamera", "printed_total"),
    ],
)
def test_image_to_video_agrees_with_the_independent_audit(quantity: str, column: str, printed: str) -> None:
    """Tolerance: half of the second decimal, to which the independent figures are rounded."""
    found = {c.row: c for c in checks("vbench_i2v", quantity) if c.source == "STIV paper Table 13"}
    assert len(found) == 11
    for row in oracle("audit_i2v"):
        check = found[row["model"]]
        assert check.recomputed == pytest.approx(float(row[column]), abs=0.00501)
        assert check.printed == float(row[printed])


def test_user_study_agrees_with_the_independent_audit() -> None:
    """The independent audit, too, reads the one impossible row with its repair."""
    found = {(p.axis, p.opponent): p for p in user_study()}
    rows = oracle("audit_user_study")
    assert len(rows) == len(found) == 12
    for row in rows:
        preference = found[row["axis"], row["opponent"]]
        assert preference.m4v_lower == int(row["m4v_lower"])
        assert preference.m4v_higher == int(row["m4v_higher"])
        assert preference.equal == int(row["equal"])
        assert preference.m4v_mean == pytest.approx(float(row["m4v_mean"]), abs=5.1e-5)
        assert preference.opponent_mean == pytest.approx(float(row["opponent_mean"]), abs=5.1e-5)
        assert preference.win_rate == pytest.approx(float(row["win_rate_if_low_is_best"]))


def test_only_the_known_text_to_video_rows_contradict_themselves() -> None:
    assert {row for row, quantity in contradictions("vbench_t2v") if quantity != "mean of 16"} == {
        "CogVideoX-5B",
        "VideoCrafter",
        "CogVideo",
        "EMU3",
        "STIV T2V-M-256",
        "STIV T2V-M-512",
    }
    assert {check.source for check in AUDIT.contradictions if check.table == "vbench_t2v"} == {"STIV paper Table 12"}


def test_only_the_known_image_to_video_rows_contradict_themselves() -> None:
    quality = {row for row, quantity in contradictions("vbench_i2v") if quantity == "quality"}
    assert quality == {"SVD", "I2VGen-XL", "STIV-M", "STIV-M-512", "STIV-M-512-JIT"}
    score = {row for row, quantity in contradictions("vbench_i2v") if quantity == "i2v score"}
    assert score == {"SVD", "STIV-M", "STIV-M-512"}
    assert {row for row, quantity in contradictions("vbench_i2v") if quantity == "i2v average"} == {
        "STIV-XL CA",
        "STIV-XL FR",
    }


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("m4v_ablation_averages", {("+ Temp-Branch", "mean of 4")}),
        ("vbench_custom", {("LinGen @ 256p", "LinGen quality")}),
        ("user_study_m4v", {("prompt 8, motion_smoothness", "sum of halved ranks")}),
        ("m4v_reward_ablation", set()),
        ("evalcrafter", set()),
        ("stiv_tables/table08", set()),
        ("stiv_tables/table18", set()),
    ],
)
def test_other_contradictions(table: str, expected: set[tuple[str, str]]) -> None:
    assert contradictions(table) == expected
    assert any(check.table == table and not check.contradicts for check in AUDIT.checks)


@pytest.mark.parametrize(
    ("table", "row", "quantity", "said"),
    [
        ("vbench_t2v", "CogVideoX-5B", "quality", "prints 70.97"),  # another paper's figure of the same model
        ("vbench_t2v", "VideoCrafter", "quality", "are those of VideoCrafter-0.9"),
        ("vbench_t2v", "VideoCrafter", "semantic", "more than one figure is wrong"),
        ("vbench_t2v", "CogVideo", "quality", "prints 96.20"),
        ("vbench_t2v", "STIV T2V-M-256", "quality", "the printed one is wrong"),  # the printed total says so
        ("vbench_t2v", "STIV T2V-M-256", "total from printed parts", "quality_score 82.7 -> 82.05"),
        ("vbench_i2v", "SVD", "i2v score", "are those of Animate-Anything"),
        (
            "vbench_i2v",
            "I2VGen-XL",
            "quality",
            "motion_smoothness 26.1 -> 98.63 would restore it; it repeats dynamic_degree",
        ),
        ("m4v_ablation_averages", "+ Temp-Branch", "mean of 4", "overall_consistency 26.08 -> 21.7"),
        ("stiv_flops", "T2I-256, T2I-512, T2V-512", "sum of stages", "decimal point may have slipped (0.843)"),
        ("stiv_flops", "T2I-256, T2V-256, T2I-512, T2V-512", "sum of stages", "stage3 8.43 -> 0.84"),
        ("stiv_tables/table10", "Panda-30M", "total from printed parts", "lies outside its parts"),
        ("user_study_m4v", "prompt 8, motion_smoothness", "sum of halved ranks", "one digit differs (1.266667)"),
    ],
)
def test_diagnoses(table: str, row: str, quantity: str, said: str) -> None:
    assert said in diagnosis(table, row, quantity)


def test_permuted_headings_are_found() -> None:
    """The values run dynamic degree, aesthetic, imaging; the last two enter alike and cannot be told apart."""
    (seen,) = [o for o in AUDIT.observations if o.table == "lingen_as_printed"]
    assert "2 of 5040 orders" in seen.text
    assert "aesthe_quality holds dynamic_degree" in seen.text
    assert "subject_consist" not in seen.text
    assert len(contradictions("lingen_as_printed")) > 0


def test_linear_table_is_found() -> None:
    seen = [o.text.split()[0] for o in AUDIT.observations if o.table == "m4v_table6"]
    assert seen == ["tflops_241_frames", "inference_time_s_241_frames", "avg_score"]


def test_tolerance_is_what_rounding_can_do() -> None:
    """Quality of a one-decimal table: 0.05 in each part times its slope, and 0.05 of the figure itself."""
    slopes = sum(BOUNDS[d].weight / (BOUNDS[d].high - BOUNDS[d].low) for d in list(BOUNDS)[:7]) / 6.5
    (check,) = [c for c in checks("vbench_t2v", "quality") if c.row == "EMU3"]
    assert check.tolerance == pytest.approx(0.05 * slopes + 0.05)


def test_half_unit_takes_the_finest_cell() -> None:
    assert half_unit(["2", "1.3", "0.966667", ""]) == 0.5e-6
    assert half_unit(["40", ""]) == 0.5


def test_missing_parts_are_named_not_guessed() -> None:
    (check,) = [c for c in checks("vbench_t2v", "quality") if c.row == "STIV T2V-XXL"]
    assert check.verdict == "not recomputable"
    assert check.missing == ("subject_consistency", "temporal_flickering")


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_registered_as_it_is_on_disk(name: str) -> None:
    table = TABLES[name]
    assert table.rows()
    assert table.key in table.columns
    assert all(table.sources)
    assert all(None not in row and None not in row.values() for row in table.rows()), "a row has too many or few cells"


def test_every_file_is_registered() -> None:
    folder = Path(__file__).parent.parent / "evalkit" / "reference_data"
    assert {str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.csv")} == set(TABLES)


def test_published_figures_of_a_dimension() -> None:
    figures = published("dynamic_degree")
    assert ("M4V", 60.55, "M4V slides, VBench table") in {(p.model, p.value, p.source) for p in figures}
    assert len(figures) == 66
    custom = {p.model: p.value for p in published("overall_consistency", "custom")}
    assert custom["Baseline"] == 19.77
    assert "Sora" not in custom  # not published is not zero
    with pytest.raises(ValueError, match="no column"):
        published("smell")


def test_spellings_of_one_model() -> None:
    assert alias("Open-Sora 1.2") == alias("OpenSora V1.2")
    assert alias("VideoCrafter2") == alias("VideoCrafter-2.0")
    assert alias("VideoCrafter-0.9") != alias("VideoCrafter")
    assert alias("CogVideoX-2B") != alias("CogVideoX-5B")


def test_unknown_table_names_near_ones() -> None:
    with pytest.raises(UserError, match="vbench_t2v"):
        find_table("vbench_t2w")


def test_commands(tmp_path: Path) -> None:
    run = CliRunner().invoke
    app = build_app()
    assert "user_study_m4v" in run(app, ["reference", "list"]).output
    shown = run(app, ["reference", "show", "vbench_t2v", "--model", "m4v"])
    assert "60.55" in shown.output
    assert "M4V slides" in shown.output
    target = tmp_path / "audit.json"
    done = run(app, ["reference", "audit", "--json", str(target)])
    assert done.exit_code == 0, done.output
    written = json.loads(target.read_text())
    assert written["schema"] == "m4v-eval/reference-audit/1"
    assert sum(check["verdict"] == "contradicts" for check in written["checks"]) == len(AUDIT.contradictions)
    assert len(written["user_study"]) == 12
