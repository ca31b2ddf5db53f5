"""Exported runs, read back through TensorBoard's and MLflow's own libraries, say what the records say."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from evalkit.cli import build_app
from evalkit.errors import UserError
from evalkit.export import Entry, read_entry
from evalkit.export.entry import file_name, flat, present
from evalkit.export.mlflow import IDENTITY, Store
from evalkit.export.mlflow_client import without_password
from evalkit.export.tensorboard import write
from evalkit.records import RunRecord, load_run
from tests.fabricate import AblationSpec, Spec, write_ablation, write_run

pytest.importorskip("tensorboard")
pytest.importorskip("mlflow")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # among MLflow and the libraries below it

STEPS = 300  # with four columns more than MLflow takes at a time
PROMPTS = ("a red ball rolls", "a blue room", "a [bold] car", "rain")
FAULT = "the video cannot be decoded"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lite run, an official one, and one of each sister suite; something is unscored in each."""
    root = tmp_path_factory.mktemp("runs")
    lite = {"lite/aesthetic_quality": 0.5, "lite/imaging_quality": 0.6, "temporal_flickering": 0.9}
    hole: dict[str, Any] = {"unscored": {1: {"temporal_flickering": FAULT}}, "clip_size": (32, 24)}
    write_run(root / "lite", Spec(PROMPTS, scores=lite, profile="lite", **hole))
    write_run(root / "official", Spec(PROMPTS, **hole, missing=[{"id": "custom50-09", "text": "snow"}]))
    for profile, prefix in (("vbench-long", "long/"), ("vbench-i2v", "i2v/")):
        record = write_run(root / profile, Spec(PROMPTS, scores={f"{prefix}subject": 0.9}, clip_size=None))
        headline = {f"{prefix}total": None, "coverage": {"scored": [], "missing": []}}
        change(record.path, schema=f"m4v-eval/{profile}/1", profile=profile, aggregate=headline)
    return root


def change(run: Path, **facts: Any) -> None:
    path = run / "vbench.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


@pytest.fixture(scope="module")
def ablation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ablation") / "ablate-temp-branch"
    root.mkdir()
    write_ablation(root, AblationSpec(PROMPTS, seeds=(0, 3), clip_size=None))
    for variant in ("baseline", "temp-branch"):
        for seed in (0, 3):
            train = root / variant / f"seed{seed}" / "train"
            train.mkdir()
            lines = [json.dumps(losses(variant, seed, step)) for step in range(STEPS)]
            (train / "losses.jsonl").write_text("\n".join(lines) + '\n{"step": 300, "lo')  # torn by a kill
    return root


def losses(variant: str, seed: int, step: int) -> dict[str, Any]:
    value = (1 + len(variant)) / (2 + seed + step)
    return {"step": step, "loss": value, "lr": 1e-3, "grad_norm": 2 * value, "seconds": 0.25}


def expected(record: RunRecord) -> dict[str, float]:
    """The numbers of a run's record, put together anew."""
    found: dict[str, float | None] = {}
    for name, d in record.summary["dimensions"].items():
        found |= {f"score/{name}": d["score"], f"scored/{name}": d["n"], f"unscored/{name}": d["unscored"]}
        for k, end in enumerate(("low", "high")):
            found[f"ci95_{end}/{name}"] = d["ci95"][k] if d["ci95"] else None
    found |= {f"headline/{name}": v for name, v in record.summary["aggregate"].items() if name != "coverage"}
    there = {name: float(value) for name, value in found.items() if value is not None}
    return there | {
        "missing/values": len(found) - len(there),
        "missing/prompts": len(record.summary["missing_prompts"]),
        "missing/unmatched_files": 0,
    }


# TensorBoard


def accumulated(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "histograms": 0, "tensors": 0})
    found.Reload()
    return found


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = accumulated(folder)
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.parametrize("name", ["lite", "official", "vbench-long", "vbench-i2v"])
def test_tensorboard_has_the_numbers_of_the_record(runs: Path, tmp_path: Path, name: str) -> None:
    """To float32's rounding, in which TensorBoard keeps numbers."""
    record = load_run(runs / name)
    place = write(read_entry(runs / name), tmp_path / "tb")
    assert place == tmp_path / "tb" / name
    found = scalars(place)
    assert found == {tag: [(0, float(np.float32(value)))] for tag, value in expected(record).items()}
    if name == "official":
        assert not any("total" in tag for tag in found)  # it has none, and none is not zero
        assert found["unscored/temporal_flickering"] == [(0, 1.0)]
    else:
        assert not any(tag in found for tag in ("score/aesthetic_quality", "headline/total", "headline/quality"))


def test_tensorboard_has_videos_stills_and_settings(runs: Path, tmp_path: Path) -> None:
    record = load_run(runs / "official")
    events = accumulated(write(read_entry(runs / "official"), tmp_path))
    for name in record.summary["dimensions"]:
        values = [v["scores"][name] for v in record.summary["videos"] if name in v["scores"]]
        (histogram,) = events.Histograms(f"videos/{name}")
        kept = histogram.histogram_value
        assert (kept.num, kept.min, kept.max) == (len(values), min(values), max(values))
        assert kept.sum == pytest.approx(math.fsum(values))
        best = max(record.summary["videos"], key=lambda v, name=name: v["scores"].get(name, -1))  # type: ignore[misc]
        (image,) = events.Images(f"highest/{name}")
        with Image.open(record.poster(best["sha256"])) as still:
            decoded = Image.open(io.BytesIO(image.encoded_image_string))
            assert np.array_equal(np.asarray(decoded), np.asarray(still.convert("RGB")))
    texts = {tag: text(events, tag) for tag in ("settings/text_summary", "origin/text_summary", "missing/text_summary")}
    assert f"| config_sha256 | {record.manifest['config_sha256']} |" in texts["settings/text_summary"].replace("\\", "")
    assert "headline/total" in texts["missing/text_summary"].replace("\\", "")
    assert set(events.summary_metadata["_hparams_/session_start_info"].plugin_data.plugin_name) <= set("hparams")


def text(events: Any, tag: str) -> str:
    (event,) = events.Tensors(tag)
    return str(event.tensor_proto.string_val[0].decode())


def test_tensorboard_has_an_ablation_variant_by_variant(ablation: Path, tmp_path: Path) -> None:
    record = json.loads((ablation / "ablation.json").read_text())
    place = write(read_entry(ablation), tmp_path)
    for variant in record["variants"]:
        found = scalars(place / variant["name"])
        for name, metric in variant["metrics"].items():
            assert found.get(f"score/{name}") == [(0, float(np.float32(metric["mean"])))]
        for seed in record["seeds"]:
            curves = scalars(place / variant["name"] / f"seed{seed}")
            if variant["name"] == "text-recomposition":  # its log was removed: the record's own curve is left
                assert len(curves["train/loss"]) == 100
                continue
            lines = [losses(variant["name"], seed, step) for step in range(STEPS)]
            for column in ("loss", "lr", "grad_norm", "seconds"):
                assert curves[f"train/{column}"] == [(x["step"], float(np.float32(x[column]))) for x in lines]
    for c in record["comparisons"]:
        found = scalars(place / c["variant"])
        for column in ("delta", "p_value", "p_adjusted"):
            wanted = None if c[column] is None else [(0, float(np.float32(c[column])))]
            assert found.get(f"{column}/{c['metric']}") == wanted


def test_tensorboard_again_is_no_second_one(runs: Path, tmp_path: Path) -> None:
    entry = read_entry(runs / "lite")
    first = write(entry, tmp_path)
    before = scalars(first)
    assert write(entry, tmp_path) == first
    assert scalars(first) == before
    assert [path.name for path in tmp_path.iterdir()] == ["lite"]


def test_tensorboard_never_takes_the_place_of_something_else(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "tb" / "lite").mkdir(parents=True)
    (tmp_path / "tb" / "lite" / "mine.txt").write_text("precious")
    entry = read_entry(runs / "lite")
    place = write(entry, tmp_path / "tb")
    assert place == tmp_path / "tb" / f"lite-{entry.identity[:8]}"
    assert (tmp_path / "tb" / "lite" / "mine.txt").read_text() == "precious"
    for path in place.iterdir():
        path.unlink()
    with pytest.raises(UserError, match="holds something else"):
        write(entry, tmp_path / "tb")


# MLflow


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> str:
    """A database file: MLflow's local way. Its files lie below the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Making the tables takes MLflow seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)
        Store(f"sqlite:///{path}", "unused")
    return path


def stored(store: Store, identity: str) -> Any:
    (run,) = store.client.search_runs([store.experiment], f"tags.`{IDENTITY}` = '{identity}'")
    return run


def points(store: Store, run: Any, name: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in store.client.get_metric_history(run.info.run_id, name)]


def downloaded(store: Store, run: Any, name: str, folder: Path) -> bytes:
    return Path(store.client.download_artifacts(run.info.run_id, name, str(folder))).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lite", "official", "vbench-long", "vbench-i2v"])
def test_mlflow_has_the_record(runs: Path, tmp_path: Path, uri: str, name: str) -> None:
    (runs / name / "report.html").write_text("<p>page</p>")
    record, entry, store = load_run(runs / name), read_entry(runs / name), Store(uri)
    run_id = store.write(entry)
    run = stored(store, entry.identity)
    assert run.info.run_id == run_id
    assert (run.info.status, run.info.run_name) == ("FINISHED", name)
    assert run.data.metrics == expected(record)
    for setting, value in record.manifest["config"].items():
        kept = run.data.params[f"config.{setting}"]
        assert (kept if isinstance(value, str) else json.loads(kept)) == value
    assert run.data.params["suite.sha256"] == record.manifest["suite"]["sha256"]
    tags = run.data.tags
    assert tags["m4v-eval.git.commit"] == record.manifest["git"]["commit"]
    assert tags["m4v-eval.profile"] == record.summary["profile"]
    assert (tags["m4v-eval.what"] == "VBench") == (name == "official")
    assert downloaded(store, run, "report.html", tmp_path) == b"<p>page</p>"
    rows = list(csv.DictReader(io.StringIO(downloaded(store, run, "videos.csv", tmp_path).decode())))
    assert [row["file"] for row in rows] == [video["file"] for video in record.summary["videos"]]
    for row, video in zip(rows, record.summary["videos"], strict=True):
        scores = {d: float(row[d]) for d in record.summary["dimensions"] if row[d]}
        assert scores == video["scores"]


@pytest.mark.slow
def test_mlflow_has_an_ablation_as_runs_within_runs(ablation: Path, tmp_path: Path, uri: str) -> None:
    record, entry, store = json.loads((ablation / "ablation.json").read_text()), read_entry(ablation), Store(uri)
    root = store.write(entry)
    rows = downloaded(store, stored(store, entry.identity), "comparisons.csv", tmp_path).decode()
    assert [row["variant"] for row in csv.DictReader(io.StringIO(rows))] == [
        c["variant"] for c in record["comparisons"]
    ]
    for part, variant in zip(entry.parts, record["variants"], strict=True):
        run = stored(store, part.identity)
        assert run.data.tags["mlflow.parentRunId"] == root
        assert run.data.metrics["train/final_loss"] == variant["train"]["final_loss"]
        means = {name: m["mean"] for name, m in variant["metrics"].items()}
        assert {name: run.data.metrics.get(f"score/{name}") for name in means} == means
        for c in (c for c in record["comparisons"] if c["variant"] == part.name):
            assert run.data.metrics.get(f"delta/{c['metric']}") == c["delta"]
            assert run.data.metrics.get(f"p_adjusted/{c['metric']}") == c["p_adjusted"]
            assert run.data.tags[f"m4v-eval.verdict.{c['metric']}"] == c["verdict"]
        for seed in part.parts:
            found = stored(store, seed.identity)
            assert found.data.tags["mlflow.parentRunId"] == run.info.run_id
            assert found.info.run_name == f"{ablation.name}/{part.name}/{seed.name}"
            assert points(store, found, "train/loss") == list(seed.curves["train/loss"])
    seed = entry.parts[1].parts[1]
    assert list(seed.curves["train/loss"]) == [(k, losses("temp-branch", 3, k)["loss"]) for k in range(STEPS)]


@pytest.mark.slow
def test_mlflow_again_is_the_same_run(ablation: Path, runs: Path, uri: str) -> None:
    """Nothing is written twice: neither runs nor points of a curve."""
    entries = [read_entry(ablation), read_entry(runs / "lite")]
    seen = []
    for _ in range(2):
        store = Store(uri)
        for entry in entries:
            store.write(entry)
        found = {run.info.run_id: run for run in store.client.search_runs([store.experiment])}
        seen.append({key: {n: points(store, run, n) for n in run.data.metrics} for key, run in found.items()})
    assert seen[0] == seen[1]
    assert len(seen[0]) == sum(len(list(entry.whole())) for entry in entries)


@pytest.mark.slow
def test_a_run_that_went_on_is_brought_up_to_date(uri: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_run(run, Spec(PROMPTS, clip_size=None))
    store = Store(uri)
    first = store.write(read_entry(run))
    record = json.loads((run / "vbench.json").read_text())
    record["dimensions"]["imaging_quality"]["score"] = 0.25
    record["aggregate"]["total"] = 81.5
    change(run, dimensions=record["dimensions"], aggregate=record["aggregate"])
    assert store.write(read_entry(run)) == first
    metrics = store.client.get_run(first).data.metrics
    assert (metrics["score/imaging_quality"], metrics["headline/total"]) == (0.25, 81.5)


@pytest.mark.slow
def test_a_number_that_has_gone_is_not_left_behind(uri: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    record = write_run(run, Spec(PROMPTS, clip_size=None))
    store = Store(uri)
    first = store.write(read_entry(run))
    dimensions = record.summary["dimensions"]
    dimensions["imaging_quality"] |= {"score": None, "ci95": None, "n": 0, "unscored": 4}
    change(run, dimensions=dimensions, interrupted=True)
    second = stored(store, read_entry(run).identity) if store.write(read_entry(run)) != first else None
    assert second is not None
    assert "score/imaging_quality" not in second.data.metrics
    assert second.info.status == "KILLED"
    assert store.client.get_run(first).info.lifecycle_stage == "deleted"


@pytest.mark.parametrize(
    ("store", "says"),
    [
        ("sqlite:////nowhere/at/all/mlflow.db", "does not exist"),
        ("ftp://somewhere", "does not take"),
        ("http://user:secret@127.0.0.1:9", "does not take"),
        ("folder", "does not take"),
        ("sqlite:///text.db", "does not take"),
        ("postgresql://user:secret@127.0.0.1:9/x", "needs the package psycopg"),
    ],
)
def test_a_store_that_cannot_be_used(store: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.db").write_text("This is no database, however long it is." * 100)
    with pytest.raises(UserError, match=says) as refused:
        Store(store)
    assert "secret" not in str(refused.value)


# Names and values


def test_numbers_that_are_not_vbenchs_do_not_have_its_names(tmp_path: Path) -> None:
    record = write_run(tmp_path / "run", Spec(PROMPTS, clip_size=None, precision="bf16"))
    change(record.path, foreign_weights=["clip-b32"])
    named = [n for n in read_entry(record.path).numbers if n.split("/")[0] in ("score", "headline", "ci95_low")]
    assert named
    assert all(name.split("/")[1:3] == ["bf16", "foreign-weights"] for name in named)


@given(st.dictionaries(st.text(), st.none() | st.floats() | st.integers(-(10**9), 10**9)))
def test_what_is_missing_is_never_a_number(numbers: Mapping[str, float | None]) -> None:
    there, missing = present(numbers)
    assert there.keys() | set(missing) == numbers.keys()
    assert len(there) + len(missing) == len(numbers)
    assert all(math.isfinite(value) and numbers[name] == value for name, value in there.items())


@given(st.text())
def test_names_of_folders_stay_where_they_are(name: str) -> None:
    found = file_name(name)
    assert Path(found).name == found
    assert found not in (".", "..")


@pytest.mark.parametrize("line", ["[1]", "{", '{"loss": 1}', '{"step": 1.5}', '{"step": true}', '{"step": "1"}'])
def test_a_damaged_loss_log_is_refused(line: str, ablation: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ablation, copy)
    (copy / "baseline" / "seed0" / "train" / "losses.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match="line 1"):
        read_entry(copy)


def test_a_run_outside_of_the_ablation_is_refused(ablation: Path, tmp_path: Path) -> None:
    record = json.loads((ablation / "ablation.json").read_text())
    record["variants"][0]["runs"][0] = "../../elsewhere"
    (tmp_path / "ablation.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="outside"):
        read_entry(tmp_path)


def test_settings_are_flat_text() -> None:
    found = flat("a.", {"b": 1, "c": {"d": "x", "e": [1, "é"]}, "f": None})
    assert found == {"a.b": "1", "a.c.d": "x", "a.c.e": '[1, "é"]', "a.f": "null"}


def test_passwords_are_not_shown() -> None:
    assert without_password("at http://me:word@host/x and sqlite:///a@b") == "at http://...@host/x and sqlite:///a@b"


@pytest.mark.slow
def test_hostile_names_are_exported_all_the_same(tmp_path: Path, uri: str) -> None:
    files = {0: "../up [bold].mp4", 1: "\u202e|`<img src=x>.mp4"}
    write_run(tmp_path / "run", Spec(("=cmd()", "a\x1b[31m | b", "c", "d"), clip_size=None, files=files))
    entry = read_entry(tmp_path / "run")
    write(entry, tmp_path / "tb")
    run = Store(uri).write(entry)
    assert run
    rows = list(csv.DictReader(io.StringIO(entry.tables["videos.csv"])))
    assert [row["file"] for row in rows][:2] == list(files.values())


# The command


@pytest.mark.slow
def test_the_command(runs: Path, tmp_path: Path, uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    app = build_app()
    app(
        ["export", str(runs / "lite"), "--tensorboard", str(tmp_path / "tb"), "--mlflow", uri, "--experiment", "mine"],
        standalone_mode=False,
    )
    said = capsys.readouterr().out
    assert str(tmp_path / "tb" / "lite") in said
    assert "without a value: 1 (headline/lite/mean7)" in said
    assert stored(Store(uri, "mine"), read_entry(runs / "lite").identity)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "nowhere to export to"),
        (["--experiment", "x", "--tensorboard", "tb"], "there is no --mlflow"),
        (["--tensorboard", "tb"], "does not exist"),
    ],
)
def test_bad_input_is_explained(options: list[str], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        build_app()(["export", str(tmp_path / "none"), *options], standalone_mode=False)


@pytest.mark.parametrize(
    ("hidden", "options"),
    [
        ("tensorboard", ["--tensorboard", "tb"]),
        ("mlflow", ["--mlflow", "sqlite:///x.db"]),
    ],
)
def test_without_the_library_the_user_is_told_what_to_install(
    hidden: str, options: list[str], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [m for m in sys.modules if m.split(".")[0] == hidden]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, hidden, None)  # as if it were not installed
    with pytest.raises(UserError, match=rf"m4v-eval\[{hidden}\]"):
        build_app()(["export", str(runs / "lite"), *options], standalone_mode=False)


def test_an_entry_has_all_its_parts() -> None:
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    leaf = Entry("seed0", "c", now)
    assert [e.name for e in Entry("a", "a", now, parts=(Entry("b", "b", now, parts=(leaf,)),)).whole()] == [
        "a",
        "b",
        "seed0",
    ]
