"""The CSV forms: what is written is read again as it was, and every fault is named with its line."""

from __future__ import annotations

import contextlib
import csv
import io
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalkit.errors import UserError
from evalkit.study.answers import competition
from evalkit.study.forms import as_csv, read_csv, read_votes, write_csv
from evalkit.study.forms.csv_rows import MAX_NAME, guarded, unguarded, whole
from evalkit.study.forms.mean_ranks import MeanRanks
from evalkit.study.forms.pairs import level_ranks
from evalkit.study.types import Ballots, Protocol, Screening, Vote

RANKINGS = "rater,prompt_id,axis,model,rank\n"
PAIRS = "rater,prompt_id,axis,model_a,model_b,choice\n"
MEANS = "prompt_id,axis,model,mean_rank\n"
FORMULAS = ("=HYPERLINK(1)", "+1", "-1", "@sum", "'", "'=x", "''", "'x")


def votes_of(tmp_path: Path, text: str | bytes, *, ties: bool = False) -> Ballots:
    file = tmp_path / "votes.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    found = read_csv(file, ties=ties)
    assert isinstance(found, Ballots)
    return found


def faults_of(tmp_path: Path, text: str | bytes, *, ties: bool = False) -> str:
    with pytest.raises(UserError) as caught:
        votes_of(tmp_path, text, ties=ties)
    return str(caught.value)


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_rankings(tmp_path: Path) -> None:
    text = RANKINGS + "r1,p1,motion,B,2\nr1,p1,motion,A,1\nr2,p1,motion,A,1\nr2,p1,motion,B,2\n"
    ballots = votes_of(tmp_path, text)
    assert ballots.votes == (
        Vote("r1", "p1", None, "motion", ("B", "A"), (2, 1)),
        Vote("r2", "p1", None, "motion", ("A", "B"), (1, 2)),
    )
    assert (ballots.protocol, ballots.ties, ballots.models, ballots.axes) == ("rank", False, ("B", "A"), ("motion",))
    assert ballots.screening == Screening(n_raters=2)


def test_columns_in_any_order_with_what_spreadsheets_add(tmp_path: Path) -> None:
    text = "\ufeffRank, model ,prompt,seed,axis,prompt_id,rater\r\n"
    text += '1.0,A,"a ball,\n red",3,x,p1,r1\r\n\r\n,,,,,,\r\n 2 ,B,"a  ball, red",3,x,p1, r1 \r\n'
    ballots = votes_of(tmp_path, text)
    assert ballots.votes == (Vote("r1", "p1", 3, "x", ("A", "B"), (1, 2)),)
    assert ballots.prompts == {"p1": "a ball, red"}


def test_pairs(tmp_path: Path) -> None:
    ballots = votes_of(tmp_path, PAIRS + "r1,p1,x,A,B,a\nr1,p2,x,A,B,TIE\nr1,p3,x,A,B,b\n")
    assert [(vote.ranks, vote.level) for vote in ballots.votes] == [((1, 2), None), ((1, 1), None), ((2, 1), None)]
    assert (ballots.protocol, ballots.ties) == ("pairwise", True)
    ballots = votes_of(tmp_path, PAIRS + "r1,p1,x,A,B,-2\nr1,p2,x,A,B,0\nr1,p3,x,A,B,+1\n")
    assert [(vote.ranks, vote.level) for vote in ballots.votes] == [((1, 2), -2), ((1, 1), 0), ((2, 1), 1)]
    assert ballots.protocol == "likert5"


@pytest.mark.parametrize("ranks", [(1, 1, 3), (1, 1, 2)])
def test_ties_in_either_spelling(tmp_path: Path, ranks: tuple[int, ...]) -> None:
    text = RANKINGS + "".join(f"r,p,x,{model},{rank}\n" for model, rank in zip("ABC", ranks, strict=True))
    assert votes_of(tmp_path, text, ties=True).votes[0].ranks == (1, 1, 3)
    assert "line 2: rater r, prompt p, x: the ranks 1, 1," in faults_of(tmp_path, text)
    assert "--ties" in faults_of(tmp_path, text)


@settings(deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6))
def test_competition_ranks_count_who_is_better(ranks: list[int]) -> None:
    assert competition(ranks) == tuple(1 + sum(other < rank for other in ranks) for rank in ranks)


def test_screens_tell_rankings_of_the_same_prompt_apart(tmp_path: Path) -> None:
    text = "rater,prompt_id,axis,screen,model,rank\nr,p,x,1,A,1\nr,p,x,1,B,2\nr,p,x,2,A,1\nr,p,x,2,C,2\n"
    assert [vote.models for vote in votes_of(tmp_path, text).votes] == [("A", "B"), ("A", "C")]
    again = text.replace("r,p,x,2,C,2", "r,p,x,2,B,2")
    assert "line 4: rater r answers x of prompt p a second time (first in " in faults_of(tmp_path, again)


def test_mean_ranks(tmp_path: Path) -> None:
    file = tmp_path / "means.csv"
    file.write_text("note,source,prompt_id,axis,model,mean_rank\n,Fig. 1,p1,x,A,1.250\nmended,Fig. 1,p1,x,B,1.75\n")
    table = read_csv(file)
    assert isinstance(table, MeanRanks)
    assert table.cells == {("p1", "x"): {"A": "1.250", "B": "1.75"}}  # cells stay text
    assert table.notes == {("p1", "x"): ("mended",)}
    with pytest.raises(UserError, match="holds mean ranks, not votes"):
        read_votes([file])


# ---- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (("r,p,x,A,1", "r,p,x,B,3"), "line 2: rater r, prompt p, x: the ranks 1, 3 have a hole: no clip has rank 2"),
        (("r,p,x,A,2", "r,p,x,B,3"), "have a hole: no clip has rank 1"),
        (("r,p,x,A,1", "r,p,x,B,2", "r,p,x,A,3"), "line 4: rater r ranks A twice on x of prompt p (first in line 2)"),
        (("r,p,x,A,1", "r,p,x,B,2", "r,p,x,A,1", "r,p,x,B,2"), "line 5: rater r ranks B twice"),
        (("r,p,x,A,1", "r,p,x,B,first"), "line 3: the rank 'first' is no whole number"),
        (("r,p,x,A,1", "r,p,x,B,1.5"), "line 3: the rank '1.5' is no whole number"),
        (("r,p,x,A,0", "r,p,x,B,1"), "line 2: the rank '0' is no whole number from 1 on"),
        (("r,p,x,A,1", "r,p,x,B,\u0662"), "is no whole number"),  # an Arabic 2
        (("r,p,x,A,1", "r,p,x,B,2,3"), "line 3: 6 cells, more than the 5 columns"),
        (("r,p,x,A,1", "r,p,x"), "line 3: 3 cells, fewer than the 5 columns"),
        (("r,p,x,A,1", " ,p,x,B,2"), "line 3: the cell of rater is empty"),
        (("r,p,x,A,1", "r,p,x,B,"), "line 3: the cell of rank is empty"),
        (("r,p,x,A,1",), "only one model is ranked"),
        (("r,p,x,A\0,1", "r,p,x,B,2"), r"line 2: the cell of model holds a control character: 'A\x00'"),
        (("r,p,x,\x1b[31mA,1", "r,p,x,B,2"), "holds a control character"),
        ((f"r,p,x,{'A' * (MAX_NAME + 1)},1", "r,p,x,B,2"), "the cell of model has 201 characters"),
    ],
)
def test_faults_of_rankings(tmp_path: Path, rows: tuple[str, ...], says: str) -> None:
    assert says in faults_of(tmp_path, RANKINGS + "\n".join(rows) + "\n")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (("r,p,x,A,B,c",), "line 2: the choice 'c' is neither a, b or tie, nor a level from -2 to 2"),
        (("r,p,x,A,B,3",), "the choice '3'"),
        (("r,p,x,A,B,a", "r,q,x,A,B,1"), "line 3: the choice '1' mixes words"),
        (("r,p,x,A,A,a",), "line 2: A is compared with itself"),
        (("r,p,x,A,B,a", "r,p,x,B,A,b"), "line 3: rater r answers x of prompt p a second time (first in line 2)"),
        (("r,p,x,A,B,",), "line 2: the cell of choice is empty"),
    ],
)
def test_faults_of_pairs(tmp_path: Path, rows: tuple[str, ...], says: str) -> None:
    assert says in faults_of(tmp_path, PAIRS + "\n".join(rows) + "\n")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (("p,x,A,1", "p,x,A,2"), "line 3: A stands twice on x of prompt p (first in line 2)"),
        (("p,x,A,nan",), "line 2: the mean rank 'nan' is no number"),
        (("p,x,A,-1",), "is no number"),
        (("p,x,A,1e3",), "is no number"),
        (("p,x,source,1",), "cannot be called source"),
    ],
)
def test_faults_of_mean_ranks(tmp_path: Path, rows: tuple[str, ...], says: str) -> None:
    assert says in faults_of(tmp_path, MEANS + "\n".join(rows) + "\n")


def test_a_seed_is_a_number_and_a_prompt_has_one_text(tmp_path: Path) -> None:
    head = "rater,prompt_id,axis,model_a,model_b,choice,seed,prompt\n"
    rows = "r1,p,x,A,B,a,zero,a ball\nr2,p,x,A,B,a,0,a ball\nr3,p,x,A,B,b,0,a cube\n"
    found = faults_of(tmp_path, head + rows)
    assert "line 2: the seed 'zero' is no whole number" in found
    assert "line 4: prompt p has another text here than further up" in found


def test_all_faults_are_counted_and_ten_are_shown_in_order(tmp_path: Path) -> None:
    rows = [f"r{n},p,x,A,B,{'maybe' if n % 2 else 'a'}" for n in range(50)]
    found = faults_of(tmp_path, PAIRS + "\n".join(rows))
    assert found.startswith("25 faults in ")
    assert [line.partition("line ")[2].partition(":")[0] for line in found.splitlines()[1:11]] == [
        str(n) for n in range(3, 22, 2)
    ]
    assert "... and 15 more" in found


def test_a_row_that_cannot_be_read_makes_no_hole(tmp_path: Path) -> None:
    found = faults_of(tmp_path, RANKINGS + "r,p,x,A,1\nr,p,x,B,2,\nr,p,x,C,3\nq,p,x,A,one\nq,p,x,B,2\n")
    assert found.startswith("2 faults")
    assert "a hole" not in found


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the header (nothing) is none of the three forms"),
        (b"rater;prompt_id;axis;model;rank\n", "separated by semicolons"),
        (b"rater,prompt_id,axis,model,rank,promt\n", "none of the three forms"),
        (b"rater,prompt_id,axis,model\n", "none of the three forms"),
        (b"rater,rater,axis,model,rank\n", "the column 'rater' stands twice"),
        (RANKINGS.encode(), "has a header and no rows"),
        (MEANS.encode(), "has a header and no rows"),
        (RANKINGS.encode() + b"r,p,x,caf\xe9,1\n", "line 2: this is not UTF-8"),
        (RANKINGS.encode("utf-16"), "line 1: this is not UTF-8"),
        (RANKINGS.encode() + b'r,p,x,"A" B,1\n', "line 2: this is no CSV"),
        (RANKINGS.encode() + b'r,p,x,"A,1\n', "this is no CSV"),
        (RANKINGS.encode() + b"r,p,x," + b"A" * 200_000 + b",1\n", "line 2: this is no CSV (field larger"),
        (b"\0" * 5000, "none of the three forms"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes, says: str) -> None:
    assert says in faults_of(tmp_path, content)


def test_an_unknown_header_shows_the_three_forms(tmp_path: Path) -> None:
    found = faults_of(tmp_path, "a,b\n1,2\n")
    for header in (RANKINGS, PAIRS, MEANS):
        assert header.strip() in found


def test_no_such_file_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_csv(tmp_path / "nowhere.csv")
    with pytest.raises(UserError, match="cannot be read"):
        read_csv(tmp_path)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "any.csv"
    for head in (RANKINGS, PAIRS, MEANS, ""):
        file.write_bytes(head.encode() + content)
        with contextlib.suppress(UserError):
            read_csv(file, ties=True)


# ---- several files ---------------------------------------------------------------------------------------------------


def test_files_are_one_study(tmp_path: Path) -> None:
    for name, rater in (("a", "r1"), ("b", "r2")):
        (tmp_path / f"{name}.csv").write_text(RANKINGS + f"{rater},p,x,A,1\n{rater},p,x,B,2\n")
    both = read_votes([tmp_path / "a.csv", tmp_path / "b.csv"])
    assert [vote.rater for vote in both.votes] == ["r1", "r2"]
    assert both.source == "a.csv, b.csv"
    with pytest.raises(UserError, match="is given twice"):
        read_votes([tmp_path / "a.csv", tmp_path / "." / "a.csv"])
    (tmp_path / "b.csv").write_text(RANKINGS + "r2,p,x,A,1\nr2,p,x,B,2\nr1,p,x,A,1\nr1,p,x,C,2\n")
    with pytest.raises(UserError, match=r"b\.csv, line 4: rater r1 answers x .* \(first in .*a\.csv, line 2\)"):
        read_votes([tmp_path / "a.csv", tmp_path / "b.csv"])
    (tmp_path / "b.csv").write_text(PAIRS + "r2,p,x,A,B,a\n")
    with pytest.raises(UserError, match="holds rank votes and"):
        read_votes([tmp_path / "a.csv", tmp_path / "b.csv"])
    heading = PAIRS.replace("choice", "choice,prompt")
    for name, text in (("c", "a ball"), ("d", "a cube")):
        (tmp_path / f"{name}.csv").write_text(heading + f"{name},p,x,A,B,a,{text}\n")
    with pytest.raises(UserError, match=r"d\.csv gives prompt p another text"):
        read_votes([tmp_path / "c.csv", tmp_path / "d.csv"])


# ---- there and back --------------------------------------------------------------------------------------------------

printable = st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp"))
names = st.text(printable, min_size=1, max_size=12).map(str.strip).filter(bool) | st.sampled_from(FORMULAS)


@st.composite
def ballots(draw: Any) -> Ballots:
    """Votes of any protocol; nobody answers the same question twice."""
    protocol: Protocol = draw(st.sampled_from(["rank", "pairwise", "likert5"]))
    models = draw(st.lists(names, min_size=2, max_size=4, unique=True))
    shown = [c for n in range(2, 1 + (len(models) if protocol == "rank" else 2)) for c in combinations(models, n)]
    questions = draw(
        st.lists(
            st.tuples(names, names, st.none() | st.integers(-5, 99), names, st.sampled_from(shown)),
            min_size=1,
            max_size=8,
            unique=True,
        )
    )
    votes = []
    for rater, prompt, seed, axis, company in questions:
        order = tuple(draw(st.permutations(company)))
        if protocol == "rank":
            ranks = competition(draw(st.lists(st.integers(1, len(order)), min_size=len(order), max_size=len(order))))
            votes.append(Vote(rater, prompt, seed, axis, order, ranks))
        else:
            level = draw(st.integers(-2, 2) if protocol == "likert5" else st.integers(-1, 1))
            likert = level if protocol == "likert5" else None
            votes.append(Vote(rater, prompt, seed, axis, order, level_ranks(level), likert))
    prompts = {vote.prompt_id: text for vote in votes if (text := draw(st.sampled_from(["", "a ball, red", "=1+1"])))}
    return Ballots(
        source="x.csv",
        protocol=protocol,
        ties=True,
        models=tuple(dict.fromkeys(model for vote in votes for model in vote.models)),
        axes=tuple(dict.fromkeys(vote.axis for vote in votes)),
        votes=tuple(votes),
        screening=Screening(n_raters=len({vote.rater for vote in votes})),
        prompts=prompts,
    )


@given(ballots())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_is_exported_is_imported(tmp_path: Path, cast: Ballots) -> None:
    file = tmp_path / "x.csv"
    write_csv(cast, file)
    assert read_csv(file, ties=True) == cast


@given(ballots())
@settings(deadline=None)
def test_no_cell_of_text_begins_like_a_formula(cast: Ballots) -> None:
    for row in list(csv.reader(io.StringIO(as_csv(cast), newline="")))[1:]:
        numbers = [cell for cell in row if whole(cell) is not None]
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row if cell not in numbers)


@settings(deadline=None)
@given(st.text() | st.sampled_from(FORMULAS))
def test_the_guard_comes_off(cell: str) -> None:
    assert unguarded(guarded(cell)) == cell
    assert not guarded(cell).startswith(("=", "+", "-", "@"))


def test_an_apostrophe_of_a_name_stays(tmp_path: Path) -> None:
    assert votes_of(tmp_path, PAIRS + "r,p,x,'tis,don't,a\n").votes[0].models == ("'tis", "don't")


def test_streams(tmp_path: Path) -> None:
    cast = votes_of(tmp_path, PAIRS + "r,p,x,A,B,a\n")
    stream = io.StringIO()
    write_csv(cast, stream)
    assert stream.getvalue() == PAIRS + "r,p,x,A,B,a\n"


def test_hundred_thousand_rows(tmp_path: Path) -> None:
    rows = (f"r{n // 1000},p{n // 5 % 200},x,m{n % 5},{n % 5 + 1}\n" for n in range(100_000))
    cast = votes_of(tmp_path, RANKINGS + "".join(rows))
    assert len(cast.votes) == 20_000
    assert cast.screening.n_raters == 100


def test_names_are_only_text(tmp_path: Path) -> None:
    hostile = ("../../etc/passwd", "<script>alert(1)</script>", "[red]x[/red]", "'; DROP TABLE votes; --")
    text = RANKINGS + "".join(f"../r,p,x,{model},{n}\n" for n, model in enumerate(hostile, 1))
    assert votes_of(tmp_path, text).votes[0].models == hostile
