"""LinGen's d_k: closed forms, an independent count over pairs, and the command."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.adjacency import SCHEDULES, Grid, distances, findings, measure, schedule, write_plot
from evalkit.errors import UserError
from tests.test_cli import cli, refused

GRIDS = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5)).filter(lambda grid: max(grid) > 1)


def raster_by_hand(grid: Grid) -> float:
    """Neighbours along an axis are 1, X or X Y apart; the mean over how many there are of each."""
    T, Y, X = grid
    counted = [(T * Y * (X - 1), 1), (T * (Y - 1) * X, X), ((T - 1) * Y * X, X * Y)]
    return sum(n * gap for n, gap in counted) / sum(n for n, _ in counted)


def count_pairs(name: str, grid: Grid, k: int, diagonals: bool) -> float:
    """d_k by walking over all pairs of tokens, without tensors."""
    visited = [{cell: n for n, cell in enumerate(schedule(name, grid)(layer).tolist())} for layer in range(k)]
    cells = list(product(*map(range, grid)))
    flat = {cell: n for n, cell in enumerate(cells)}
    gaps = []
    for a, b in product(cells, cells):
        steps = [abs(i - j) for i, j in zip(a, b, strict=True)]
        if a < b and max(steps) == 1 and (diagonals or sum(steps) == 1):
            gaps.append(min(abs(place[flat[a]] - place[flat[b]]) for place in visited))
    return sum(gaps) / len(gaps)


@settings(max_examples=50, deadline=None)
@given(GRIDS)
def test_raster_has_a_closed_form_and_more_layers_change_nothing(grid: Grid) -> None:
    assert list(distances("raster", grid, 3)) == pytest.approx([raster_by_hand(grid)] * 3, rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(GRIDS, st.sampled_from(sorted(SCHEDULES)), st.integers(1, 6), st.booleans())
def test_every_schedule_agrees_with_a_count_over_pairs(grid: Grid, name: str, k: int, diagonals: bool) -> None:
    assert list(distances(name, grid, k, diagonals=diagonals))[-1] == pytest.approx(
        count_pairs(name, grid, k, diagonals), rel=1e-12
    )


@settings(max_examples=50, deadline=None)
@given(GRIDS, st.sampled_from(sorted(SCHEDULES)))
def test_it_never_rises_and_never_falls_below_one(grid: Grid, name: str) -> None:
    values = list(distances(name, grid, 8))
    assert values == sorted(values, reverse=True)
    assert values[-1] >= 1


def test_rotary_major_reaches_zigzag_and_paths_over_the_frame_do_not_bridge_time() -> None:
    """LinGen's Fig. 1 (equal d_k), at its size; and what eight spatial paths leave: (1 + 1 + H W) / 3."""
    last = measure((32, 32, 32), 4)["rows"][-1]
    assert last["rotary-major"] == last["zigzag"] == 1
    assert last["m4v"] == pytest.approx((1 + 1 + 32 * 32) / 3, rel=1e-12)
    assert last["raster"] == pytest.approx((1 + 32 + 32 * 32) / 3, rel=1e-12)


def test_findings_name_where_improvement_ends() -> None:
    said = findings(measure((4, 4, 4), 4))
    assert [line.split(":")[0] for line in said] == list(SCHEDULES)
    assert "1.00 from k = 3 on" in said[2]
    assert "from k = 1 on" in said[0]


@pytest.mark.parametrize(("grid", "layers", "says"), [((1, 1, 1), 2, "no neighbours"), ((2, 2, 2), 0, "0 layers")])
def test_what_has_no_distance_is_refused(grid: Grid, layers: int, says: str) -> None:
    with pytest.raises(UserError, match=says):
        measure(grid, layers)


@pytest.mark.parametrize(("suffix", "begins"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_plots(tmp_path: Path, suffix: str, begins: bytes) -> None:
    write_plot(measure((2, 3, 2), 2), tmp_path / f"d{suffix}")
    assert (tmp_path / f"d{suffix}").read_bytes().startswith(begins)


def test_the_command(tmp_path: Path) -> None:
    sizes = ("--frames", "3", "--rows", "4", "--cols", "5", "--layers", "2")
    done = cli("adjacency", *sizes, "--plot", tmp_path / "a.svg", "--json", tmp_path / "a.json")
    assert done.returncode == 0, done.stderr
    assert "d_k over 3 x 4 x 5 tokens" in done.stdout
    assert (tmp_path / "a.svg").is_file()
    record = json.loads((tmp_path / "a.json").read_text())
    assert record == measure((3, 4, 5), 2)
    assert f"{raster_by_hand((3, 4, 5)):.2f}" in done.stdout


def test_bad_input_costs_one_line(tmp_path: Path) -> None:
    refused(cli("adjacency", "--plot", tmp_path / "a.txt"), "no picture of this kind")
    refused(cli("adjacency", "--frames", "1", "--rows", "1", "--cols", "1"), "has no neighbours")
    refused(cli("adjacency", "--layers", "0"), "Invalid value")
