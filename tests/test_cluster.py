"""The cluster's parts that need no SLURM: file, graph of jobs, records, signals, and submitit's local executor."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.cluster import cancel, notes, overview, read_config
from evalkit.cluster.config import EXAMPLE, ClusterConfig, Resources
from evalkit.cluster.graph import Chain, Graph, Task, steps
from evalkit.cluster.launch import submit
from evalkit.cluster.ledger import Entry, Submission, read_ledger, write_ledger
from evalkit.cluster.states import look, slurm
from evalkit.cluster.warning import heard_as_ctrl_c, warning_signal
from evalkit.errors import RunFailed, UserError
from evalkit.generation import batch_size, share
from evalkit.job import Progress, Shard
from evalkit.lock import holding
from tests.test_cli import cli, refused

LOCAL = ClusterConfig(executor="local", parallel=4)


# The file.


def test_the_example_is_a_file_that_can_be_read() -> None:
    done = cli("cluster-example")
    assert done.returncode == 0
    assert done.stdout == EXAMPLE.read_text()
    config = read_config(EXAMPLE)
    assert (config.executor, config.shards, config.stages.score.gpus) == ("slurm", 16, 1)
    commented = [line.lstrip("# ") for line in EXAMPLE.read_text().splitlines() if line.startswith("# ")]
    for name in ClusterConfig.model_fields:
        assert f"\n{name}:" in EXAMPLE.read_text() or any(line.startswith(f"{name}:") for line in commented), name
    for name in Resources.model_fields:
        assert f"    {name}:" in EXAMPLE.read_text(), name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("partitoin: gpu", "no field partitoin. Did you mean partition?"),
        ("stages: {score: {hours: 1, gpu: 1}}", "no field stages.score.gpu. Did you mean gpus?"),
        ("stages: {scoring: {hours: 1}}", "no field stages.scoring. Did you mean score?"),
        ("shards: many", "field shards: input should be a valid integer"),
        ("shards: 0", "field shards: input should be greater than or equal to 1"),
        ("shards: true", "field shards: input should be a valid integer"),
        ("executor: pbs", "field executor: input should be 'slurm' or 'local'"),
        ("stages: {score: {gpus: 1}}", "field stages.score.hours: field required"),
        ("stages: {score: {hours: 0.02}}", "field stages.score.hours: input should be greater than or equal to 0.1"),
        ("stages: {score: {hours: .nan}}", "field stages.score.hours: input should be"),
        ("stages: {score: {hours: 1, nodes: 2}}", "only training spans several hosts"),
        ("executor: local\nstages: {train: {hours: 1, nodes: 2}}", "the local executor has one host"),
        ("shards: 1\nshards: 2", "'shards' stands twice"),
        ("a: &a [1]\nb: *a", "aliases are not used"),
        ("{", "not the YAML it should be"),
        ("[1, 2]", "should be a valid dictionary"),
        ("setup: module load cuda", "field setup: input should be a valid tuple"),
        ("!!python/object/apply:os.getcwd []", "not the YAML it should be"),
        (None, "does not exist"),
    ],
)
def test_a_wrong_file_is_refused_by_name_and_field(text: str | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / "slurm.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_config(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    (tmp_path / "slurm.yaml").write_text("# nothing\n")
    assert read_config(tmp_path / "slurm.yaml") == ClusterConfig()


# The graph.


@dataclass(frozen=True)
class Write:
    """Work that leaves a file, fails, or is warned once in the middle."""

    path: Path
    needs: Path | None = None
    fault: str = ""
    seen: bool | None = None

    def __call__(self, progress: Progress) -> None:
        if self.needs is not None:
            assert self.needs.exists(), f"{self.needs} came too late"
        if self.fault == "warned" and not self.path.with_suffix(".first").exists():
            self.path.with_suffix(".first").touch()
            os.kill(os.getpid(), warning_signal())
            linger()
        if self.fault == "sleep":
            self.path.with_suffix(".first").touch()
            linger()
        if self.fault == "refused" and not self.path.with_suffix(".mended").exists():
            raise UserError("There is no disk.", "Buy one.")
        self.path.write_text(f"{time.monotonic_ns()}")

    def found(self) -> bool | None:
        return self.seen


def linger() -> None:
    """A minute, in short pieces: a signal that comes just before a sleep begins does not wake it."""
    for _ in range(600):
        time.sleep(0.1)


def task(name: str, stage: str = "score", work: Write | None = None) -> Task:
    return Task(stage, name, name, work or Write(Path("unused")))  # type: ignore[arg-type]


graphs = st.builds(
    lambda lengths, first, last: Graph(
        tuple(
            Chain(tuple(task(f"{i}.{k}", ("train", "generate", "score")[k]) for k in range(length)), waits)
            for i, (length, waits) in enumerate(lengths)
        ),
        task("first", "train") if first else None,
        task("last", "report") if last else None,
    ),
    st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=6),
    st.booleans(),
    st.booleans(),
)


@given(graphs, st.data())
def test_steps_hold_what_is_missing_once_and_in_order(graph: Graph, data: st.DataObject) -> None:
    done = {t.name for t in graph.tasks if data.draw(st.booleans())}
    found = steps(graph, lambda t: t.name in done)
    names = [t.name for step in found for t in step.tasks]
    assert len(set(names)) == len(names)
    for step in found:
        assert len({t.stage for t in step.tasks}) == 1
        assert all(0 <= number < found.index(step) for number in step.after)
    place = {t.name: (number, i) for number, step in enumerate(found) for i, t in enumerate(step.tasks)}
    for chain in graph.chains:
        rest = [t.name for t in chain.tasks]
        while rest and rest[0] in done:
            rest.pop(0)
        assert [t.name for t in chain.tasks if t.name in place] == rest, "from the first missing one on"
        for before, after in pairwise(rest):
            step = found[place[after][0]]
            assert step.wait == "each"
            assert step.after == (place[before][0],)
            assert place[after][1] == place[before][1], "the tasks of an array correspond"
        if rest and len(rest) == len(chain.tasks) and chain.waits and graph.first and "first" not in done:
            assert found[place[rest[0]][0]].after == (place["first"][0],)
            assert found[place[rest[0]][0]].wait == "ok"
        elif rest:
            assert not found[place[rest[0]][0]].after
    if graph.last:
        assert ("last" in place) == (bool(names) or "last" not in done)
        if "last" in place:
            ends = {place[chain.tasks[-1].name][0] for chain in graph.chains if chain.tasks[-1].name in place}
            assert set(found[-1].after) == ends
            assert found[-1].wait == "any", "the report comes even if something failed"
    assert not names or not all(t.name in done for t in graph.tasks)


def test_nothing_is_submitted_when_nothing_is_missing(tmp_path: Path) -> None:
    graph = Graph((Chain((task("a", work=Write(tmp_path / "a", seen=True)),)),))
    assert not submit(tmp_path, "vbench", graph, LOCAL, [], 1).jobs
    assert not (tmp_path / "cluster.json").exists()


# Generation in shards.


@given(st.integers(1, 200), st.integers(1, 60), st.integers(1, 9))
def test_shards_share_out_all_videos_and_keep_batches_whole(videos: int, batch: int, count: int) -> None:
    pieces = list(range(videos))
    parts = [share(pieces, batch, Shard(index, count)) for index in range(count)]
    assert sorted(piece for part in parts for piece in part) == pieces
    assert sum(map(bool, parts)) == min(count, videos), "every shard has something to do, as long as there is something"
    size = batch_size(videos, batch, Shard(0, count))
    assert size <= batch
    whole = [pieces[i : i + size] for i in range(0, videos, size)]
    made = [part[i : i + size] for part in parts for i in range(0, len(part), size)]
    assert sorted(made) == whole
    if videos >= batch * count:
        assert size == batch


# Records.


def entry(job: str | None) -> Entry:
    return Entry("score", "1 of 1", job, 1, 60)


def submission(job: str | None, executor: str = "slurm") -> Submission:
    config = ClusterConfig.model_validate({"executor": executor}).record()
    return Submission("vbench", ("m4v-eval", "vbench"), notes.now(), "me@here", config, 8, (entry(job),))


def test_a_ledger_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = [submission("17_0"), submission(None)]
    write_ledger(tmp_path, written)
    assert read_ledger(tmp_path) == written
    assert read_ledger(tmp_path / "nowhere") == []


@pytest.mark.parametrize("job", ["--state=RUNNING", "1;rm", "-1", "1 2", ""])
def test_a_ledger_cannot_smuggle_options_to_scancel(job: str, tmp_path: Path) -> None:
    write_ledger(tmp_path, [submission(job)])
    with pytest.raises(UserError, match=r"cluster\.json is damaged: no job is called"):
        cancel(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": "other"}', '{"schema": "m4v-eval/cluster/1"}'])
def test_a_damaged_ledger_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text(text)
    with pytest.raises(UserError, match=r"cluster\.json"):
        overview(tmp_path)


def test_without_submitit_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"pip install 'm4v-eval\[cluster\]'"):
        submit(tmp_path, "vbench", Graph((Chain((task("a"),)),)), LOCAL, [], 1)


def test_where_there_is_no_slurm_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="srun is not on the PATH"):
        submit(tmp_path, "vbench", Graph((Chain((task("a"),)),)), ClusterConfig(), [], 1)
    with pytest.raises(RunFailed, match="There is no squeue here"):
        slurm(["1"])


def test_ended_jobs_are_read_from_the_accounting_where_there_is_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In sacct's own format, with `--parsable2 --array --allocations`."""
    says = {
        "squeue": "7_0|RUNNING|1:02\n7_1|PENDING|0:00\n",
        "sacct": "7_0|RUNNING|00:01:02\n7_1|PENDING|00:00:00\n7_2|TIMEOUT|04:00:00\n7_3|CANCELLED by 0|00:00:07\n",
    }
    for name, text in says.items():
        (tmp_path / name).write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    entries = [Entry("score", f"{i + 1} of 5", f"7_{i}", 1, 240) for i in range(5)]
    (tmp_path / "scontrol").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "scontrol").chmod(0o755)
    found = look(tmp_path / "run", "slurm", entries)
    assert [one.state for one in found] == ["running", "pending", "failed", "cancelled", "failed"]
    assert found[0].elapsed == "1:02"
    assert found[2].why == "timeout"
    assert "not in the queue any more" in found[4].why


# Signals.


@pytest.mark.parametrize("number", [warning_signal(), signal.SIGTERM])
def test_a_warning_is_heard_as_ctrl_c_and_children_are_deaf_to_it(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalkit.cluster.warning.PATIENCE", 0.01)
    before = [signal.getsignal(s) for s in (number, signal.SIGINT)]
    script = f"import os, signal; os.kill(os.getpid(), {int(warning_signal())}); print('alive')"
    with pytest.raises(KeyboardInterrupt), heard_as_ctrl_c() as warned:  # noqa: PT012
        child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert child.stdout == "alive\n"
        assert not warned
        os.kill(os.getpid(), number)
        linger()
        raise AssertionError("it went on")
    assert warned
    assert warned.soon.is_set() == (number == warning_signal())
    assert [signal.getsignal(s) for s in (number, signal.SIGINT)] == before
    assert warning_signal() not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


# The local executor.


@pytest.mark.slow
def test_jobs_on_this_machine_wait_fail_alone_resume_and_are_not_done_twice(tmp_path: Path) -> None:
    run, a, b = tmp_path / "run", tmp_path / "a", tmp_path / "b"
    first = task("first", "train", Write(tmp_path / "first", fault="warned"))
    chains = (
        Chain((task("a", "train", Write(a, tmp_path / "first")), task("a", "score", Write(tmp_path / "a2", a))), True),
        Chain((task("b", "train", Write(b, fault="refused")), task("b", "score", Write(tmp_path / "b2", b))), True),
    )
    graph = Graph(chains, first, task("last", "report", Write(tmp_path / "last", tmp_path / "a2")))
    made = submit(run, "vbench", graph, LOCAL, ["m4v-eval"], 8)
    assert [(e.stage, e.name) for e in made.jobs] == [
        ("train", "first"),
        ("train", "a"),
        ("train", "b"),
        ("score", "a"),
        ("report", "last"),
    ]
    assert read_ledger(run) == [made]
    note = notes.read(run, "train", "first")
    assert note is not None
    assert (note.state, note.starts) == ("done", 2), "warned in the middle, it went on in a second start"
    seen = overview(run)
    assert seen.verdict == "failed"
    [failure] = seen.failures
    assert (failure.name, failure.why) == ("b", "There is no disk. Buy one.")
    assert any("There is no disk" in line for line in failure.lines)
    assert failure.log is not None
    assert failure.log.parent == run / "logs"
    assert json.loads(cli("status", run, "--json").stdout) == seen.to_json() | {"run": str(run)}
    b.with_suffix(".mended").touch()
    again = submit(run, "vbench", graph, LOCAL, ["m4v-eval"], 8)
    assert [(e.stage, e.name) for e in again.jobs] == [("train", "b"), ("score", "b"), ("report", "last")]
    assert not submit(run, "vbench", graph, LOCAL, ["m4v-eval"], 8).jobs
    assert not overview(run).failures


@pytest.mark.slow
def test_a_job_of_this_machine_is_cancelled_and_refuses_a_second_submission(tmp_path: Path) -> None:
    run = tmp_path / "run"
    graph = Graph((Chain((task("a", work=Write(tmp_path / "a", fault="sleep")),)),))
    script = "import pickle, sys; from evalkit.cluster.launch import submit\nsubmit(*pickle.load(sys.stdin.buffer))"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as submitting:
        assert submitting.stdin
        submitting.stdin.write(pickle.dumps((run, "vbench", graph, LOCAL, [], 1)))
        submitting.stdin.close()
        end = time.monotonic() + 120
        while not (tmp_path / "a.first").exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        assert cli("status", run).returncode == 3
        with pytest.raises(RunFailed, match="Jobs are submitted from it by process"):
            submit(run, "vbench", graph, LOCAL, [], 1)
        assert [e.name for e in cancel(run)] == ["a"]
        assert submitting.wait(60) == 0
    assert cancel(run) == []
    assert overview(run).stages[0].counts == {"cancelled": 1}


# Status of runs without a cluster.


def test_status_of_what_is_no_run(tmp_path: Path) -> None:
    refused(cli("status", tmp_path), "There is no run in")
    with pytest.raises(UserError, match="Nothing was submitted"):
        cancel(tmp_path)


def test_status_says_who_writes(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").touch()
    with holding(tmp_path, "It is scored"):
        seen = overview(tmp_path)
        assert seen.writer.startswith(f"It is scored by process {os.getpid()} on ")
        assert (seen.verdict, seen.videos_done, seen.videos) == ("incomplete", 0, None)
    assert overview(tmp_path).writer == ""
