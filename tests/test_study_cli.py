"""`study import` and `study aggregate` as a person meets them: tables, files, exit codes, and what is refused."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from evalkit.cli import INCOMPLETE, build_app
from evalkit.cli.study_tables import result_lines
from evalkit.errors import UserError
from evalkit.study.forms import read_csv
from evalkit.study.forms.imported import IMPORT, load_import
from evalkit.study.plan_file import VOTES, save_plan
from evalkit.study.record import from_json, to_json
from evalkit.study.statistics.conclude import conclude
from evalkit.study.types import AXES, Ballots
from evalkit.study.votes import VoteStore
from tests.test_cli import cli, refused
from tests.test_compare import fabricate
from tests.test_study_published import M4V_TABLE
from tests.test_study_reveal import MOTION, TWINS, VOTE, plan

MODELS = ("alpha", "<b>beta</b>", "[red]g[/red]", "=delta()")


def invoke(*args: str | Path) -> Result:
    return CliRunner().invoke(build_app(), ["study", *map(str, args)], env={"COLUMNS": "80"})


def refusal(*args: str | Path) -> str:
    error = invoke(*args).exception
    assert isinstance(error, UserError), error
    return str(error)


def rankings(path: Path, models: Sequence[str] = MODELS, raters: range = range(6), ties: bool = False) -> Path:
    """Raters who prefer the models in their order, by and large."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("rater", "prompt_id", "seed", "axis", "model", "rank"))
        for rater in raters:
            for p in range(8):
                order = np.argsort(np.arange(len(models)) + rng.normal(size=len(models)))
                for rank, m in enumerate(order, 1):
                    tied = 1 if ties and rank == 2 else rank
                    writer.writerow((f"r{rater}", f"p{p:02d}", 0, "motion", models[m], tied))
    return path


@pytest.fixture(scope="module")
def votes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rankings(tmp_path_factory.mktemp("votes") / "votes.csv")


# ---- what comes out --------------------------------------------------------------------------------------------------


def test_imported_or_not_the_figures_are_the_same(votes: Path, tmp_path: Path) -> None:
    done = invoke("import", votes, "--out", tmp_path / "study")
    assert done.exit_code == 0, done.output
    assert "48 votes (rank) of 6 raters on 8 prompts" in done.output
    for source, name in ((votes, "file"), (tmp_path / "study", "study")):
        done = invoke("aggregate", source, "--json", tmp_path / f"{name}.json", "--csv", tmp_path / f"{name}.csv")
        assert done.exit_code == 0, done.output
    file, study = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("file", "study"))
    assert (file["source"], study["source"]) == ("votes.csv", "study")
    assert {**file, "source": "", "provenance": ""} == {**study, "source": "", "provenance": ""}
    assert file["provenance"]["sha256"]["votes"] == study["provenance"]["sha256"]["votes"]
    assert len(file["provenance"]["sha256"]["votes.csv"]) == 64
    assert (tmp_path / "file.csv").read_bytes() == (tmp_path / "study.csv").read_bytes()
    assert (tmp_path / "file.csv").read_bytes() == (tmp_path / "study" / "votes.csv").read_bytes()
    ballots = read_csv(votes)
    assert isinstance(ballots, Ballots)
    assert read_csv(tmp_path / "file.csv") == replace(ballots, source="file.csv")
    assert from_json(file) == conclude(ballots)


def test_tables_fit_80_columns_and_names_are_only_text(votes: Path) -> None:
    done = invoke("aggregate", votes)
    assert done.exit_code == 0, done.output
    assert max(map(len, done.output.splitlines())) <= 80
    for model in MODELS:
        assert model in done.output
    for said in ("mean rank", "win rate %", "Bradley-Terry", "Plackett-Luce", "win/tie/lose %", "p (Holm)", "Kendall"):
        assert said in done.output
    assert "raters: 6; imported" in done.output


def test_wide_terminals_have_intervals_beside_the_figures(votes: Path) -> None:
    ballots = read_csv(votes)
    assert isinstance(ballots, Ballots)
    result = conclude(ballots, n_resamples=50)
    worth = result.axes[0].standings[0].bradley_terry
    assert worth is not None
    assert worth.low is not None
    beside, bounds = f"{worth.value:+.2f} ({worth.low:+.2f} to {worth.high:+.2f})", f"{worth.low:+.2f} to"
    for width in (80, 200):
        console = Console(width=width, file=io.StringIO(), record=True)
        for line in result_lines(result, width):
            console.print(line, highlight=False)
        text = console.export_text()
        assert (beside in text) == (width == 200)
        assert bounds in text


def test_the_published_table_as_it_is(tmp_path: Path) -> None:
    done = invoke("aggregate", M4V_TABLE, "--json", tmp_path / "m4v.json")
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    for said in (
        "prompt 8, motion_smoothness: the figures as printed sum to 8.5, not 7.5.",
        "M4V 2.266667 -> 1.266667",
        "prompt 29, semantic_coherence: The table notes: OCR merged two cells",
        "prompt-level, not rater-level",
        "Lower is better",
        "halved ranks",
    ):
        assert said in text
    assert max(map(len, done.output.splitlines())) <= 80
    record = json.loads((tmp_path / "m4v.json").read_text())
    m4v = record["axes"]["motion_smoothness"]["models"]["M4V"]
    assert m4v["mean_rank_as_printed"]["value"] == pytest.approx(1.1587, abs=5.1e-5)
    assert (record["unit"], record["scale"], record["direction"]) == ("prompt", 2.0, "lower is better")
    printed = invoke("aggregate", M4V_TABLE, "--as-printed", "--json", tmp_path / "printed.json")
    assert printed.exit_code == 0
    mean = json.loads((tmp_path / "printed.json").read_text())["axes"]["motion_smoothness"]["models"]["M4V"]
    assert mean["mean_rank_as_printed"]["value"] == pytest.approx(1.1587 + 1 / 50, abs=5.1e-5)


def test_the_seed_is_of_the_intervals_only(votes: Path, tmp_path: Path) -> None:
    for seed in (0, 0, 5):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
        assert invoke("aggregate", votes, "--seed", str(seed), "--json", path).exit_code == 0
    first, again, other = (json.loads((tmp_path / f"{n}.json").read_text())["axes"] for n in range(3))
    assert first == again
    assert first != other
    alpha, beta = (axes["motion"]["models"]["alpha"]["win_rate"] for axes in (first, other))
    assert alpha["value"] == beta["value"]


@pytest.mark.parametrize(("choices", "protocol"), [(("a", "tie", "b"), "pairwise"), (("-2", "0", "1"), "likert5")])
def test_pairs_and_levels(tmp_path: Path, choices: tuple[str, ...], protocol: str) -> None:
    head = "rater,prompt_id,axis,model_a,model_b,choice\n"
    rows = [f"r{r},p{p},x,A,B,{choices[(r + p) % 3]}\n" for r in range(6) for p in range(4)]
    (tmp_path / "pairs.csv").write_text(head + "".join(rows))
    done = invoke("aggregate", tmp_path / "pairs.csv", "--json", tmp_path / "x.json")
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "x.json").read_text())
    (duel,) = record["axes"]["x"]["duels"]
    assert record["protocol"] == protocol
    assert (duel["n"], duel["n_win"] + duel["n_tie"] + duel["n_lose"]) == (24, 24)
    assert ("level" in done.output) == (protocol == "likert5")
    assert (duel["level"] is not None) == (protocol == "likert5")
    assert to_json(from_json(record))["axes"] == record["axes"]


def test_ties_only_where_allowed(tmp_path: Path) -> None:
    file = rankings(tmp_path / "tied.csv", ties=True)
    assert "hold a tie" in refusal("aggregate", file)
    assert "48 faults" in refusal("import", file, "--out", tmp_path / "study")
    assert not (tmp_path / "study").exists()
    assert invoke("import", file, "--out", tmp_path / "study", "--ties").exit_code == 0
    done = invoke("aggregate", tmp_path / "study")  # the study knows that it has ties
    assert done.exit_code == 0
    assert "Plackett-Luce does not know" in " ".join(done.output.split())


def test_the_page_is_written_and_names_are_only_text_in_it(votes: Path, tmp_path: Path) -> None:
    done = invoke("aggregate", votes, "--out", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    assert "page.html" in "".join(done.output.split())
    html = (tmp_path / "page.html").read_text()
    assert "&lt;b&gt;beta&lt;/b&gt;" in html
    assert "<b>beta" not in html


# ---- metrics against people ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["several words", "repeated", "study last"])
def test_runs_of_the_same_videos(tmp_path: Path, spelling: str) -> None:
    models = ("A", "B", "C")
    file = rankings(tmp_path / "v.csv", models)
    pairs = []
    for m, model in enumerate(models):
        scores = {f"p{p:02d}": [0.9 - 0.2 * m + 0.01 * p] for p in range(8)}
        pairs.append(f"{model}={fabricate(tmp_path / model, {'color': scores})}")
    words: Sequence[str | Path] = {
        "several words": [file, "--runs", *pairs],
        "repeated": [file, *(word for pair in pairs for word in ("--runs", pair))],
        "study last": ["--runs", *pairs, file],
    }[spelling]
    done = invoke("aggregate", *words, "--json", tmp_path / "x.json")
    assert done.exit_code == 0, done.output
    assert "metrics against people" in done.output
    people = json.loads((tmp_path / "x.json").read_text())["people"]
    assert list(people["runs"]) == list(models)
    assert people["axes"][0]["scores"][0]["pairs"]["share"]["value"] > 0.9  # scores are in the order people prefer
    assert max(map(len, done.output.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--runs", "A"], "is no pair of a model and a run"),
        (["--runs", "=x"], "is no pair"),
        (["--runs", "A=x", "A=y"], "names A twice"),
        (["--runs", "A=/nowhere"], "/nowhere/run.json does not exist"),
        (["B=x"], "One study is aggregated at a time, not 2"),
    ],
)
def test_pairs_that_are_none(votes: Path, words: list[str], says: str) -> None:
    assert says in refusal("aggregate", votes, *words)


# ---- exit codes and refusals -----------------------------------------------------------------------------------------


def served(folder: Path, *, careless: bool = False, axes: Sequence[str] = tuple(a.name for a in AXES)) -> Path:
    """A planned study in which two raters voted, on these axes; the second rater may be careless."""
    study = plan((VOTE, TWINS))
    folder.mkdir()
    save_plan(folder, study)
    store = VoteStore(folder / VOTES).open(study)
    for rater, twins in (("r1", (1, 3, 2)), ("r2", (1, 2, 3) if careless else (1, 3, 2))):
        for axis in axes:
            store.cast(rater, 0, axis, (1, 2, 3), key=f"vote-{axis}", seconds=9.0)
            store.cast(rater, 1, axis, twins, key=f"check-{axis}", seconds=2.0)
    store.close()
    return folder


def test_a_planned_study_and_who_was_left_out(tmp_path: Path) -> None:
    done = invoke("aggregate", served(tmp_path / "study", careless=True), "--json", tmp_path / "x.json")
    assert done.exit_code == 0, done.output  # excluded raters alone are no reason for another exit code
    text = " ".join(done.output.split())
    assert "raters: 2 of 2 planned; attention checks met by 2; excluded: 1" in text
    assert "excluded: r2 (failed 1 of 1 attention check)" in text
    assert "screens not finished: 0; answered before a clip could end (counted): 0" in text
    record = json.loads((tmp_path / "x.json").read_text())
    assert record["screening"]["excluded"] == {"r2": "failed 1 of 1 attention check"}
    assert set(record["provenance"]["sha256"]) == {"study.json", "votes"}
    assert from_json(record).screening is not None
    assert from_json(record).screening == from_json(json.loads(json.dumps(record))).screening


def test_an_axis_without_votes_is_named_and_exits_with_3(tmp_path: Path) -> None:
    done = invoke("aggregate", served(tmp_path / "study", axes=(MOTION,)))
    assert done.exit_code == INCOMPLETE
    assert "aesthetic_quality: no vote counts" in done.output
    assert "not aggregated: aesthetic_quality has no votes" in done.output
    assert "screens not finished: 4" in done.output


def test_an_incomplete_prompt_of_a_published_table_exits_with_3(tmp_path: Path) -> None:
    lines = M4V_TABLE.read_text().splitlines()
    (tmp_path / "t.csv").write_text("\n".join([lines[0], *lines[2:]]))
    done = invoke("aggregate", tmp_path / "t.csv")
    assert done.exit_code == INCOMPLETE
    assert "not aggregated: prompt 1, aesthetic_quality: no figure for PyramidFlow" in done.output


def test_studies_without_figures(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no study" in refusal("aggregate", empty)
    save_plan(empty, plan())
    assert "has no votes yet" in refusal("aggregate", empty)
    study = plan((VOTE, TWINS))
    (tmp_path / "out").mkdir()
    save_plan(tmp_path / "out", study)
    store = VoteStore(tmp_path / "out" / VOTES).open(study)
    store.cast("r1", 0, MOTION, (1, 2, 3), key="1")
    store.cast("r1", 1, MOTION, (1, 2, 3), key="2")
    store.close()
    assert "no vote that counts (raters who answered: 1; excluded for failed attention checks: 1)" in refusal(
        "aggregate", tmp_path / "out"
    )
    assert "does not exist" in refusal("aggregate", tmp_path / "nowhere")


def test_options_that_do_not_apply(votes: Path, tmp_path: Path) -> None:
    assert "nothing for --csv" in refusal("aggregate", M4V_TABLE, "--csv", tmp_path / "x.csv")
    assert "--as-printed is for tables of mean ranks" in refusal("aggregate", votes, "--as-printed")
    assert "holds mean ranks, not votes" in refusal("import", M4V_TABLE, "--out", tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_an_import_changes_nothing_that_is_there(votes: Path, tmp_path: Path) -> None:
    study = tmp_path / "a" / "study"
    assert invoke("import", votes, "--out", study).exit_code == 0
    before = {path.name: path.read_bytes() for path in study.iterdir()}
    assert set(before) == {"votes.csv", "import.json"}
    assert "exists" in refusal("import", votes, "--out", study)
    assert {path.name: path.read_bytes() for path in study.iterdir()} == before
    assert [path.name for path in study.parent.iterdir()] == ["study"]  # nothing half-made beside it
    record = json.loads((study / IMPORT).read_text())
    assert record["schema"] == "m4v-eval/study-import/1"
    assert (record["sources"][0]["name"], record["n_votes"], record["n_raters"]) == ("votes.csv", 48, 6)


def test_several_files_are_merged(tmp_path: Path) -> None:
    first, second = (rankings(tmp_path / f"{n}.csv", raters=range(n, n + 3)) for n in (0, 3))
    assert invoke("import", first, second, "--out", tmp_path / "both").exit_code == 0
    assert load_import(tmp_path / "both").screening.n_raters == 6
    third = rankings(tmp_path / "again.csv", raters=range(2, 4))
    assert "a second time (first in" in refusal("import", first, third, "--out", tmp_path / "clash")
    assert not (tmp_path / "clash").exists()


def test_a_changed_import_is_refused(votes: Path, tmp_path: Path) -> None:
    assert invoke("import", votes, "--out", tmp_path / "study").exit_code == 0
    file = tmp_path / "study" / "votes.csv"
    file.write_text("\n".join(file.read_text().splitlines()[:-4]) + "\n")
    assert "is not what was imported: 47 votes" in refusal("aggregate", tmp_path / "study")
    file.unlink()
    assert "does not exist" in refusal("aggregate", tmp_path / "study")
    (tmp_path / "study" / IMPORT).write_text("{")
    assert "cannot be read" in refusal("aggregate", tmp_path / "study")


def test_errors_show_names_as_they_are(tmp_path: Path) -> None:
    """In the terminal: markup in a cell is neither obeyed nor a crash."""
    file = tmp_path / "bad.csv"
    file.write_text("rater,prompt_id,axis,model,rank\nr,p,x,[/red],1\nr,p,x,[bold]B,1\n[/x],p,x,C,[/]\n")
    done = cli("study", "aggregate", file)
    refused(done, "line 4: the rank '[/]' is no whole number")
    refused(done, "line 2: rater r, prompt p, x: the ranks 1, 1 hold a tie")
    assert done.stdout == ""


@pytest.mark.parametrize("command", ["import", "aggregate"])
def test_help_shows_the_headers(command: str) -> None:
    text = invoke(command, "--help").output
    assert "rater,prompt_id,axis,model,rank" in text
    assert "rater,prompt_id,axis,model_a,model_b,choice" in text
    assert "Examples" in text
