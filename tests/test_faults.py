"""Full disks, folders that cannot be written, damage on disk, all of them real: said clearly, and nothing is lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from evalkit.ablation_record import load_ablation
from evalkit.cli import main
from evalkit.container_end import is_whole_mp4
from evalkit.errors import RunFailed, UserError
from evalkit.files import hash_file
from evalkit.generation import Request as GenerationRequest
from evalkit.generation import generate
from evalkit.records import load_run, sealed
from evalkit.weights import LEDGER, Checkpoint, WeightStore
from m4v.checkpoint import LAST, PREVIOUS, load_checkpoint
from m4v.data import CachedLatents, make_source
from m4v.train import LOG, TrainingFailed, read_log, train
from tests.clips import gradient_frames, write_clip
from tests.faults import (
    FILLER,
    PAGE,
    change_quietly,
    damaged,
    give_back,
    leave_free,
    read_only,
    run_unprivileged,
    small_disk,
)
from tests.test_train import assert_same, small, world

DISK = 16 * 2**20


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips and their prompts."""
    folder = tmp_path_factory.mktemp("videos")
    texts = {"p1": "a red ball", "p2": "a blue cube", "p3": "a quiet night"}
    for n, id_ in enumerate(texts, 1):
        write_clip(folder / f"{id_}-0.mp4", gradient_frames(4, 48, 64, 40 * n))
    (folder / "suite.jsonl").write_text("\n".join(json.dumps({"id": i, "text": t}) for i, t in texts.items()))
    return folder


@pytest.fixture(scope="module")
def whole(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing went wrong with."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert vbench(videos, run) == 0
    return run


def vbench(videos: Path, run: Path) -> int:
    """The command, in this process; returns its exit code."""
    suite = ["--subset", videos / "suite.jsonl", "--videos", videos, "--profile", "lite"]
    with mock.patch.object(sys, "argv", ["m4v-eval", "vbench", *map(str, suite), "--out", str(run)]):
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def results(run: Path) -> tuple[dict[str, Any], bytes]:
    """All numbers of a run: its summary without provenance, and its table byte by byte."""
    load_run(run)
    summary = json.loads((run / "vbench.json").read_text())
    del summary["provenance"]
    return summary, (run / "results.parquet").read_bytes()


def leftovers(folder: Path) -> list[str]:
    """Files that are still being written, and who held the folder."""
    return [p.name for p in folder.rglob("*") if p.name.endswith((".part", ".new")) or p.name == "lock.json"]


# --- a full disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", DISK) as folder:
        yield folder


@pytest.mark.slow
def test_a_disk_that_fills_up_anywhere_in_a_run(
    videos: Path, whole: Path, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Journal, stills, tables, records, times, page: the run ends with a clear word, and goes on afterwards."""
    stopped: set[str] = set()
    free, done = 0, False
    while not done:
        run = disk / "run"
        leave_free(disk, free)
        capsys.readouterr()
        done = vbench(videos, run) == 0
        said = " ".join(capsys.readouterr().err.split())
        if not done:
            assert "No space left on device" in said
            assert "Free space" in said
            assert "Traceback" not in said
            stopped.add(Path(said.partition("Could not write ")[2].partition(":")[0]).suffix)
            assert leftovers(run) == []
        give_back(disk)
        assert vbench(videos, run) == 0
        assert results(run) == results(whole)
        shutil.rmtree(run)
        free += PAGE if free < 16 * PAGE else 8 * PAGE
    assert stopped >= {".jsonl", ".jpg", ".parquet", ".json", ".html"}


@pytest.mark.slow
def test_a_disk_that_fills_up_in_training(disk: Path, tmp_path: Path) -> None:
    made = small(steps=6, save_every=1)
    train(made, world(), tmp_path / "whole")
    size = (tmp_path / "whole" / LAST).stat().st_size
    for free in (0, size // 2, int(1.5 * size), int(2.5 * size)):
        out = disk / "out"
        leave_free(disk, free)
        with pytest.raises(TrainingFailed, match=r"No space left on device; free space"):
            train(made, world(), out)
        assert leftovers(out) == []
        steps = load_checkpoint(out).step if (out / LAST).exists() else 0
        assert steps == min(2, free // size)
        give_back(disk)
        train(made, world(), out)
        assert_same(load_checkpoint(out), load_checkpoint(tmp_path / "whole"))
        assert [r["loss"] for r in read_log(out / LOG)] == [r["loss"] for r in read_log(tmp_path / "whole" / LOG)]
        shutil.rmtree(out)


# --- generated videos -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(small(steps=1), world(), tmp_path_factory.mktemp("model")).parent


@pytest.fixture(scope="module")
def answers(model: Path, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("answers") / "out"
    assert generate(asked(model, videos, out)) == 3
    return out


def asked(model: Path, videos: Path, out: Path) -> GenerationRequest:
    changes = (("sampler.steps", 1), ("sampler.first_frame_steps", 1))
    return GenerationRequest(model, str(videos / "suite.jsonl"), out, changes=changes)


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix in (".mp4", ".jsonl")}


@pytest.mark.slow
def test_a_disk_that_fills_up_while_videos_are_made(model: Path, videos: Path, answers: Path, disk: Path) -> None:
    free, done = 0, False
    while not done:
        out = disk / "out"
        leave_free(disk, free)
        failure = ""
        try:
            generate(asked(model, videos, out))
            done = True
        except RunFailed as e:
            failure = e.what
        assert done or "No space left on device" in failure
        assert leftovers(out) == []
        assert all(is_whole_mp4(p) for p in out.glob("*.mp4"))
        give_back(disk)
        generate(asked(model, videos, out))
        assert files(out) == files(answers)
        shutil.rmtree(out)
        free += PAGE
    assert free > 3 * PAGE


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_video_that_was_cut_short_is_made_again(
    model: Path, videos: Path, answers: Path, tmp_path: Path, share: float
) -> None:
    out = shutil.copytree(answers, tmp_path / "out")
    cut = out / "p2-0.mp4"
    cut.write_bytes(cut.read_bytes()[: int(share * cut.stat().st_size)])
    (out / "manifest.jsonl").unlink()
    assert generate(asked(model, videos, out)) == 1
    assert files(out) == files(answers)


def test_a_video_cut_between_two_boxes_is_cut_short(answers: Path, tmp_path: Path) -> None:
    """The index is the last box: without it all others are whole."""
    data = (answers / "p1-0.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: data.index(b"moov") - 4])
    assert is_whole_mp4(answers / "p1-0.mp4")
    assert not is_whole_mp4(tmp_path / "cut.mp4")
    assert not is_whole_mp4(tmp_path / "nothing.mp4")


@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_video_is_made_again(model: Path, videos: Path, answers: Path, tmp_path: Path, seed: int) -> None:
    out = shutil.copytree(answers, tmp_path / "out")
    spoilt = out / "p3-0.mp4"
    spoilt.write_bytes(damaged(spoilt.read_bytes(), seed))
    assert generate(asked(model, videos, out)) == 1
    assert files(out) == files(answers)


def test_a_damaged_claim_is_refused(model: Path, videos: Path, answers: Path, tmp_path: Path) -> None:
    out = shutil.copytree(answers, tmp_path / "out")
    (out / "generation.json").write_bytes((out / "generation.json").read_bytes()[:-40])
    with pytest.raises(UserError, match=r"Whose videos these are is not known any more: choose another --out"):
        generate(asked(model, videos, out))


def test_videos_are_not_made_from_the_checkpoint_before(model: Path, videos: Path, tmp_path: Path) -> None:
    trained = tmp_path / "model"
    train(small(steps=2, save_every=1), world(), trained)
    (trained / LAST).write_bytes(damaged((trained / LAST).read_bytes(), 1))
    with pytest.raises(UserError, match=r"last\.pt"):
        generate(asked(trained, videos, tmp_path / "out"))


# --- damage on disk ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run.json", "vbench.json", "results.parquet"])
def test_a_damaged_record_is_refused_and_written_anew(videos: Path, whole: Path, tmp_path: Path, name: str) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    path, data, expected = run / name, (run / name).read_bytes(), load_run(whole)
    for seed in range(30):
        path.write_bytes(damaged(data, seed))
        said = ""
        try:
            found = load_run(run)
        except UserError as e:
            said = e.what
        if said:
            assert str(run) in said
        else:  # between the numbers: a line break became a space
            assert name == "run.json"
            assert found.manifest == expected.manifest
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError):
        load_run(run)
    assert vbench(videos, run) == 0
    assert results(run) == results(whole)


def test_records_of_two_runs_do_not_mix(videos: Path, whole: Path, tmp_path: Path) -> None:
    """A run that was killed between its records, or is just being written."""
    run = shutil.copytree(whole, tmp_path / "run")
    summary = json.loads((run / "vbench.json").read_text())
    summary["dimensions"]["temporal_flickering"]["score"] = 1.0
    (run / "vbench.json").write_text(json.dumps(summary))
    with pytest.raises(UserError, match="is not the file that"):
        load_run(run)


def test_another_versions_run_is_not_overwritten_but_a_damaged_one_is(
    videos: Path, whole: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "run.json").write_text('{"schema": "m4v-eval/run/99"}')
    assert vbench(videos, run) == 2
    (run / "run.json").write_bytes(b'{"schema": ')
    assert vbench(videos, run) == 0
    assert results(run) == results(whole)


def test_a_damaged_still_is_taken_anew(videos: Path, whole: Path, tmp_path: Path) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    still = min((run / "posters").iterdir())
    whole_still = still.read_bytes()
    for cut in (0, 1, len(whole_still) // 2):
        still.write_bytes(whole_still[:cut])
        assert vbench(videos, run) == 0
        assert still.read_bytes() == whole_still


def test_a_video_changed_behind_its_size_and_date_is_scored_anew(videos: Path, whole: Path, tmp_path: Path) -> None:
    copied, run = shutil.copytree(videos, tmp_path / "videos"), tmp_path / "run"
    assert vbench(copied, run) == 0
    before = hash_file(copied / "p1-0.mp4")
    data = (copied / "p1-0.mp4").read_bytes()
    change_quietly(copied / "p1-0.mp4", data[:-1] + bytes([data[-1] ^ 1]))
    assert vbench(copied, run) in (0, 3)
    assert before not in set(load_run(run).results["video_sha256"])


def test_a_damaged_ablation_record_is_refused(tmp_path: Path) -> None:
    record = {"schema": "m4v-eval/ablation/1", "baseline": "baseline", "value": 0.125}
    path = tmp_path / "ablation.json"
    path.write_text(json.dumps(sealed(record)).replace("0.125", "0.126"))
    with pytest.raises(UserError, match="its checksum does not fit"):
        load_ablation(tmp_path)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path) -> None:
    """A flipped bit in the weights leaves the archive readable: only its checksum tells."""
    made = small(steps=4, save_every=1)
    train(made, world(), tmp_path)
    last, before, after = tmp_path / LAST, load_checkpoint(tmp_path / PREVIOUS), load_checkpoint(tmp_path / LAST)
    data = last.read_bytes()
    for seed in range(12):
        last.write_bytes(damaged(data, seed))
        assert_same(found := load_checkpoint(tmp_path), before if found.step == before.step else after)
    last.write_bytes(damaged(data, 0))
    train(made, world(), tmp_path)
    assert_same(load_checkpoint(last), after)


def test_both_checkpoints_damaged(tmp_path: Path) -> None:
    train(small(steps=2, save_every=1), world(), tmp_path)
    for name in (LAST, PREVIOUS):
        (tmp_path / name).write_bytes(damaged((tmp_path / name).read_bytes(), 3)[:-9])
    with pytest.raises(ValueError, match=r"previous\.pt: not a readable checkpoint"):
        train(small(steps=2, save_every=1), world(), tmp_path)


def test_a_damaged_loss_log(tmp_path: Path) -> None:
    train(small(steps=3), world(), tmp_path)
    log, data = tmp_path / LOG, (tmp_path / LOG).read_bytes()
    expected = [(record["step"], record["loss"]) for record in read_log(log)]
    for seed in range(40):
        log.write_bytes(damaged(data, seed))
        found = None
        with suppress(ValueError):
            found = [(record["step"], record["loss"]) for record in read_log(log)]
        assert found in (None, expected, expected[:-1])  # the last line may have lost its end
    (tmp_path / LAST).unlink(missing_ok=True)
    log.write_bytes(damaged(data, 1))
    train(small(steps=3), world(), tmp_path)
    assert [record["step"] for record in read_log(log)][-1] == 2


def clips_in(folder: Path) -> Path:
    folder.mkdir()
    for n in range(2):
        write_clip(folder / f"{n}.mp4", gradient_frames(50, 64, 64, 60 * n))
        (folder / f"{n}.txt").write_text(f"clip {n}")
    return folder


def test_damaged_latents_are_encoded_again(tmp_path: Path) -> None:
    from m4v.train import fit_codec

    made = small().changed({"data": str(clips_in(tmp_path / "clips"))})
    frames, height, width = made.model.clip
    source = make_source(made.data, frames=frames, height=height, width=width)
    codec = fit_codec(made, world())
    kept = CachedLatents(source, codec, tmp_path / "cache")
    expected = kept.batch(0, 2, seed=0).latents_BCTYX
    entries = sorted((tmp_path / "cache").rglob("*.npy"))
    assert entries
    written = {path: path.read_bytes() for path in entries}
    for seed in range(10):
        for path in entries:
            path.write_bytes(damaged(written[path], seed))
        assert torch.equal(CachedLatents(source, codec, tmp_path / "cache").batch(0, 2, seed=0).latents_BCTYX, expected)
        assert {path: path.read_bytes() for path in entries} == written


WEIGHTS = Checkpoint("net", "net/net.pth", "https://example.org/net.pth", 0, "MIT", "nobody")


def test_weights_changed_behind_their_size_and_date_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / WEIGHTS.file
    path.parent.mkdir()
    path.write_bytes(b"weights")
    store = WeightStore(tmp_path)
    before = store.sha256(WEIGHTS)
    change_quietly(path, b"WEIGHTS")
    assert store.sha256(WEIGHTS) == hash_file(path) != before


def test_a_damaged_ledger_of_weights_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / WEIGHTS.file
    path.parent.mkdir()
    path.write_bytes(b"weights")
    expected = WeightStore(tmp_path).sha256(WEIGHTS)
    ledger = (tmp_path / LEDGER).read_bytes()
    for seed in range(60):
        (tmp_path / LEDGER).write_bytes(damaged(ledger, seed))
        assert WeightStore(tmp_path).sha256(WEIGHTS) == expected


# --- folders that cannot be written -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_finished_training_needs_no_right_to_write(tmp_path: Path) -> None:
    """As a pre-training in a shared cache."""
    script = (
        "import sys; from pathlib import Path; from tests.test_train import small, world; from m4v.train import train\n"
        "print(train(small(steps=int(sys.argv[2])), world(), Path(sys.argv[1])))"
    )
    train(small(steps=1), world(), tmp_path / "out")
    with read_only(tmp_path / "out"):
        done = unprivileged_script(script, tmp_path / "out", "1")
        assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "out" / LAST)), done.stderr
        done = unprivileged_script(script, tmp_path / "out" / "new", "1")
    assert done.returncode == 1
    assert "Permission denied; free space, or let this user write in" in done.stderr.splitlines()[-1]


def unprivileged_script(script: str, *args: str | Path) -> subprocess.CompletedProcess[str]:
    from tests.faults import unprivileged

    root = Path(__file__).parent.parent
    command = [*unprivileged(), sys.executable, "-c", script, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=root, timeout=300)


def test_caches_that_cannot_be_written_are_only_read(videos: Path, whole: Path, tmp_path: Path) -> None:
    """Every folder that a library could want to keep something in, and the weights' own."""
    caches = tmp_path / "caches"
    caches.mkdir()
    names = ("HOME", "XDG_CACHE_HOME", "HF_HOME", "TORCH_HOME", "MPLCONFIGDIR", "VBENCH_CACHE_DIR", "M4V_EVAL_CACHE")
    options = ["--subset", videos / "suite.jsonl", "--videos", videos, "--profile", "lite", "--out", tmp_path / "run"]
    with read_only(caches):
        done = run_unprivileged("vbench", *options, **dict.fromkeys(names, str(caches)))
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "run") == results(whole)
    assert list(caches.iterdir()) == []


def test_weights_in_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "cache" / WEIGHTS.file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    script = (
        "import sys; from pathlib import Path; from tests.test_faults import WEIGHTS; from evalkit.weights import *\n"
        "print(WeightStore(Path(sys.argv[1])).sha256(WEIGHTS))"
    )
    with read_only(tmp_path / "cache"):
        done = unprivileged_script(script, tmp_path / "cache")
    assert done.stdout.strip() == hash_file(path), done.stderr
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["net"]


def test_a_run_directory_that_cannot_be_written_is_named(videos: Path, whole: Path, tmp_path: Path) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    options = ["--subset", videos / "suite.jsonl", "--videos", videos, "--profile", "lite"]
    with read_only(run):
        done = run_unprivileged("vbench", *options, "--out", run)
        page = run_unprivileged("report", run, "--out", tmp_path / "page.html")
    assert done.returncode == 2
    assert f"Could not write in {run}: Permission denied" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert page.returncode == 0, page.stderr  # reading needs no right to write
    assert (tmp_path / "page.html").stat().st_size > 10_000


def test_a_disk_that_is_mounted_read_only(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with small_disk(tmp_path / "disk", 2**20) as disk:
        (disk / FILLER).touch()
        if subprocess.run(["mount", "-o", "remount,ro", str(disk)], capture_output=True, check=False).returncode:
            pytest.skip("needs the right to mount read-only")
        assert vbench(videos, disk / "run") == 2
    assert "Read-only file system" in " ".join(capsys.readouterr().err.split())


def test_frames_cannot_be_lost_between_encoder_and_disk(tmp_path: Path) -> None:
    """The encoder buffers: its last bytes are written when it is closed, and a full disk must be noticed there too."""
    from evalkit.encode import write_video

    noise = np.random.default_rng(0).integers(0, 255, (12, 64, 64, 3)).astype(np.uint8)
    write_video(tmp_path / "whole.mp4", noise, 8)
    size = (tmp_path / "whole.mp4").stat().st_size
    with small_disk(tmp_path / "disk", DISK) as disk:
        for free in range(0, size + 2 * PAGE, PAGE):
            leave_free(disk, free)
            try:
                write_video(disk / "clip.mp4", noise, 8)
                assert hash_file(disk / "clip.mp4") == hash_file(tmp_path / "whole.mp4")
                (disk / "clip.mp4").unlink()
            except RunFailed:
                assert free < size
            assert [p.name for p in disk.iterdir()] == [FILLER]
            give_back(disk)
