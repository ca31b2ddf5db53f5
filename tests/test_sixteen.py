"""All 16 dimensions in one run, each video's score beside the official package's with the same seeded weights."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from evalkit.metrics import DIMENSIONS, registry
from evalkit.records import RunRecord
from evalkit.runner import score_folder
from tests.parity import sixteen

# One process draws the weights and runs the networks for all of them.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("parity")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunRecord]:
    work = tmp_path_factory.mktemp("sixteen")
    with sixteen.shallow():
        yield score_folder(sixteen.lay_out(work, "shallow"))
    for checkpoint in (work / "weights").rglob("*.pt*"):
        checkpoint.unlink()


def test_the_registry_holds_all_sixteen() -> None:
    assert tuple(registry("official")) == DIMENSIONS


def test_every_dimension_scores_as_the_official_package(run: RunRecord) -> None:
    lines = sixteen.compare(run, "shallow")
    assert [line.dimension for line in lines] == list(DIMENSIONS)
    assert all(line.holds for line in lines), sixteen.table(lines)


def test_the_headlines_are_complete(run: RunRecord) -> None:
    aggregate = run.summary["aggregate"]
    assert aggregate["coverage"]["missing"] == []
    assert aggregate["total"] == pytest.approx((4 * aggregate["quality"] + aggregate["semantic"]) / 5, rel=1e-12)
