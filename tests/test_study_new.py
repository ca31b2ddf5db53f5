"""A new study: blinded, balanced, complete or refused; the command as a person meets it."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from evalkit.cli import build_app
from evalkit.cli.study_new import folders, repeated
from evalkit.encode import write_video
from evalkit.errors import RunFailed, UserError
from evalkit.files import hash_file
from evalkit.prompts import load_suite
from evalkit.study.checks import failed
from evalkit.study.plan_file import load_plan
from evalkit.study.planning import copying
from evalkit.study.planning.assignment import Item
from evalkit.study.planning.clips import blind_copy, frame_rate, remarks, shown_size, spoiled
from evalkit.study.planning.growing import growing
from evalkit.study.planning.new import create
from evalkit.study.planning.request import StudyRequest
from evalkit.study.planning.video_sets import gather
from evalkit.study.types import Plan
from evalkit.types import Frames, PromptSuite, VideoInfo
from evalkit.video import VideoError, probe, read, varies_in_rate
from tests.clips import gradient_frames, moving_scene, write_audio, write_clip, write_gif

HOSTILE = {
    "../../escape": "<script>alert('x')</script>",
    "Robert'); DROP TABLE votes;--": "a prompt with \"quotes\" & 'more'",
    "[/bold] [red]": "../../etc/passwd",
}
"""Labels, and prompts to go with them."""


def clip(path: Path, level: int, n_frames: int = 5, size: tuple[int, int] = (32, 48)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_clip(path, gradient_frames(n_frames, *size, level))


def models(root: Path, labels: Sequence[str] = ("A", "B", "C"), n_prompts: int = 4) -> dict[str, Path]:
    """Folders `m0`, `m1`, ... of clips `<prompt id>-0.mp4`, all different, and `suite.jsonl`."""
    ids = [f"prompt{n}" for n in range(n_prompts)]
    found = {label: root / f"m{n}" for n, label in enumerate(labels)}
    for m, folder in enumerate(found.values()):
        for n, id_ in enumerate(ids):
            clip(folder / f"{id_}-0.mp4", 10 + 60 * m + 7 * n)
    lines = [json.dumps({"id": id_, "text": f"a picture of secret thing {id_}"}) for id_ in ids]
    (root / "suite.jsonl").write_text("\n".join(lines))
    return found


def request(root: Path, videos: Mapping[str, Path] | None = None, **changes: Any) -> StudyRequest:
    meant: dict[str, Any] = {"raters": 4, "suite": str(root / "suite.jsonl"), "out": root / "study"}
    return StudyRequest(videos=videos or models(root), **meant | changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    """One study of three models and six prompts, and where its videos are."""
    root = tmp_path_factory.mktemp("made")
    study = create(request(root, models(root, ("Aardvark", "Bison", "Civet"), 6)))
    return root, study.plan


def refused(says: str, request: StudyRequest) -> str:
    with pytest.raises(UserError, match=says) as caught:
        create(request)
    assert not request.out.exists()
    return str(caught.value)


# ---- the directory ---------------------------------------------------------------------------------------------------


def test_the_plan_is_whole(made: tuple[Path, Plan]) -> None:
    root, plan = made
    study = root / "study"
    assert load_plan(study) == plan
    assert plan.models == ("Aardvark", "Bison", "Civet")
    assert (plan.protocol, plan.ties, len(plan.axes)) == ("rank", False, 3)
    assert plan.suite["n_prompts"] == 6
    assert set(plan.prompts) == {f"prompt{n}" for n in range(6)}
    assert len([c for c in plan.clips.values() if not c.degraded]) == 18
    for rater in plan.raters:
        assert [screen.kind for screen in rater.screens].count("vote") == 6
        assert {screen.kind for screen in rater.screens} == {"vote", "identical", "degraded"}
        for screen in rater.screens:
            shown = [plan.clips[id_] for id_ in screen.clips]
            assert {shown_clip.prompt_id for shown_clip in shown} == {screen.prompt_id}
            assert len({shown_clip.seed for shown_clip in shown}) == 1
            assert sum(shown_clip.degraded for shown_clip in shown) == (screen.kind == "degraded")
            assert len(set(screen.clips)) == 3 - (screen.kind == "identical")


def test_links_open_what_the_plan_knows_only_by_its_sum(made: tuple[Path, Plan]) -> None:
    root, plan = made
    rows = list(csv.DictReader((root / "study" / "links.csv").read_text().splitlines()))
    assert [row["who"] for row in rows] == ["admin", "r001", "r002", "r003", "r004"]
    tokens = [row["link"].rsplit("/", 1)[1] for row in rows]
    sums = [hashlib.sha256(token.encode()).hexdigest() for token in tokens]
    assert sums == [plan.admin_sha256, *(rater.token_sha256 for rater in plan.raters)]
    assert len(set(tokens)) == 5
    assert all(len(token) == 32 for token in tokens)
    saved = (root / "study" / "study.json").read_text()
    assert not any(token in saved for token in tokens)
    assert len(bytes.fromhex((root / "study" / "secret").read_text())) == 32


def test_only_the_owner_reads_and_only_the_plan_names_models(made: tuple[Path, Plan]) -> None:
    root, plan = made
    study = root / "study"
    assert stat.S_IMODE(study.stat().st_mode) == 0o700
    for name in ("study.json", "links.csv", "secret"):
        assert stat.S_IMODE((study / name).stat().st_mode) == 0o600
    files = [path for path in study.rglob("*") if path.is_file()]
    assert {path.relative_to(study).as_posix() for path in files if path.parent == study} <= {
        *("study.json", "links.csv", "secret", ".lock")
    }
    telling = [*plan.models, *plan.prompts, *plan.prompts.values(), "m0", "m1", "m2", str(root)]
    for path in files:
        assert not any(word in path.relative_to(study).as_posix() for word in telling)
        if path.name != "study.json":
            assert not any(word.encode() in path.read_bytes() for word in telling if len(word) > 2), path


def test_clips_differ_in_their_pictures_alone(made: tuple[Path, Plan]) -> None:
    root, plan = made
    tags, times = set(), set()
    for id_, planned in plan.clips.items():
        path = root / "study" / "clips" / f"{id_}.mp4"
        assert hash_file(path) == planned.sha256
        assert len(id_) == 16
        times.add(path.stat().st_mtime)
        with av.open(str(path)) as container:
            (stream,) = container.streams
            tags.add((*container.metadata.items(), *stream.metadata.items(), stream.codec_context.name))
            assert stream.average_rate == 16
        info = probe(path)
        assert (info.width, info.height, info.n_frames / info.fps) == (
            *(planned.width, planned.height),
            pytest.approx(planned.duration_s),
        )
    assert len(times) == 1
    assert len(tags) == 1
    (common,) = tags
    assert {name for name, _ in common[:-1]} <= {
        *("major_brand", "minor_version", "compatible_brands", "encoder", "language", "handler_name")
    }


def test_copies_show_what_the_videos_show(made: tuple[Path, Plan]) -> None:
    """Mean absolute difference at crf 12: below 2 grey levels, or one is not looking at the same clip."""
    root, plan = made
    for id_, planned in plan.clips.items():
        source = root / f"m{plan.models.index(planned.model)}" / f"{planned.prompt_id}-{planned.seed}.mp4"
        difference = np.abs(pixels(root / "study" / "clips" / f"{id_}.mp4") - pixels(source)).mean()
        assert difference > 15 if planned.degraded else difference < 2
    assert plan.settings["files"] == {
        id_: f"{planned.prompt_id}-{planned.seed}.mp4" for id_, planned in plan.clips.items() if not planned.degraded
    }


def pixels(path: Path) -> np.ndarray[Any, Any]:
    return np.concatenate([chunk.frames_THWC for chunk in read(path, probe(path))]).astype(np.float64)


def test_attentive_raters_pass_the_planted_checks_and_careless_ones_do_not(made: tuple[Path, Plan]) -> None:
    _, plan = made
    for rater in plan.raters:
        for screen in rater.screens:
            if screen.kind == "degraded":
                worst = next(n for n, id_ in enumerate(screen.clips) if plan.clips[id_].degraded)
                order = sorted(range(3), key=lambda n, worst=worst: (n == worst, n))
            elif screen.kind == "identical":
                twin = next(id_ for id_ in screen.clips if screen.clips.count(id_) == 2)
                order = sorted(range(3), key=lambda n, ids=screen.clips, twin=twin: ids[n] != twin)
            else:
                continue
            right = tuple(order.index(n) + 1 for n in range(3))
            wrong = tuple({1: 1, 2: 3, 3: 2}[rank] for rank in right)  # another clip between the twins, or last
            for ranks, expected in ((right, False), (wrong, True)):
                said = {axis.name: ranks for axis in plan.axes}
                assert failed(screen, plan.clips, said, plan.protocol) is expected


def dealt(plan: Plan) -> list[list[tuple[str, str, list[tuple[str, bool]]]]]:
    """The screens of each rater with models for the ids, which are new each time."""
    return [
        [(s.kind, s.prompt_id, [(plan.clips[c].model, plan.clips[c].degraded) for c in s.clips]) for s in rater.screens]
        for rater in plan.raters
    ]


def test_the_seed_decides_who_judges_what_and_ids_are_new(tmp_path: Path) -> None:
    videos = models(tmp_path)
    one, again, other = (
        create(request(tmp_path, videos, out=tmp_path / f"study{n}", seed=seed)).plan
        for n, seed in enumerate((1, 1, 2))
    )
    assert dealt(one) == dealt(again)
    assert dealt(one) != dealt(other)
    assert not one.clips.keys() & again.clips.keys()
    assert one.admin_sha256 != again.admin_sha256


@pytest.mark.parametrize("protocol", ["pairwise", "likert5"])
def test_protocols_of_two_clips(tmp_path: Path, protocol: str) -> None:
    study = create(request(tmp_path, protocol=protocol, screens=7, checks=3, axes=("motion_smoothness",)))
    assert study.plan.ties
    assert [axis.name for axis in study.plan.axes] == ["motion_smoothness"]
    for rater in study.plan.raters:
        assert len(rater.screens) == 10
        assert all(len(screen.clips) == 2 for screen in rater.screens)
    assert study.balance.pairs == (9, 10)  # 28 votes of three pairs
    assert study.precision[0].rank_half_width is None


def test_hostile_names_are_only_text(tmp_path: Path) -> None:
    videos = {}
    (tmp_path / "suite.jsonl").write_text(
        "\n".join(json.dumps({"id": f"id{n}'\"<b>", "text": text}) for n, text in enumerate(HOSTILE.values()))
    )
    for m, label in enumerate(HOSTILE):
        videos[label] = tmp_path / f"<img src=x> '{m}'"
        lines = []
        for n in range(len(HOSTILE)):
            file = f"';--\"&<{n}>.mp4"
            clip(videos[label] / file, 40 * m + 10 * n)
            lines.append(json.dumps({"file": file, "prompt_id": f"id{n}'\"<b>", "seed": n}))
        (videos[label] / "manifest.jsonl").write_text("\n".join(lines))
    study = create(request(tmp_path, videos))
    assert load_plan(study.path).models == tuple(HOSTILE)
    assert set(load_plan(study.path).prompts.values()) == set(HOSTILE.values())
    names = {path.name for path in (study.path / "clips").iterdir()}
    assert names == {f"{id_}.mp4" for id_ in study.plan.clips}
    assert all(name.removesuffix(".mp4").isalnum() for name in names)
    folders_given = {folder.name for folder in videos.values()}
    assert {path.name for path in tmp_path.iterdir()} == {"study", "suite.jsonl", *folders_given}


# ---- clips -----------------------------------------------------------------------------------------------------------


def test_odd_sizes_lose_a_row_and_sound_and_metadata_are_gone(tmp_path: Path) -> None:
    source = tmp_path / "Aardvark says hello.mkv"
    with av.open(str(source), "w") as container:
        container.metadata["title"] = "made by Aardvark"
        stream = container.add_stream("ffv1", rate=Fraction(30000, 1001))
        stream.width, stream.height, stream.pix_fmt = 51, 33, "bgr0"
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for picture in gradient_frames(6, 33, 51, 50):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        silence.sample_rate = 8000
        container.mux(sound.encode(silence))
        container.mux(stream.encode())
        container.mux(sound.encode())
    copy = blind_copy(source, probe(source), tmp_path / "clips")
    path = tmp_path / "clips" / f"{copy.id}.mp4"
    assert (copy.width, copy.height) == (50, 32)
    assert copy.duration_s == pytest.approx(6 * 1001 / 30000)
    assert b"Aardvark" not in path.read_bytes()
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)
        assert "title" not in container.metadata
        assert "creation_time" not in container.metadata


def test_browsers_are_told_the_colours_and_can_start_at_once(tmp_path: Path) -> None:
    """The matrix that is named is the one that was used: decoders that go by it show the colour that was meant."""
    colour = np.array([200, 60, 30], np.uint8)
    picture = np.broadcast_to(colour, (64, 64, 3)).copy()
    for for_browsers, matrix in ((False, 2), (True, 6)):  # unspecified; SMPTE 170M
        path = tmp_path / f"{for_browsers}.mp4"
        write_video(path, [picture] * 3, 8, crf=1, for_browsers=for_browsers)
        with av.open(str(path)) as container:
            assert container.streams.video[0].codec_context.colorspace == matrix
        assert np.abs(pixels(path) - colour).max() <= 3  # rounding of 8-bit Y'CbCr; BT.709 would be 12 off
        data = path.read_bytes()
        assert (data.index(b"moov") < data.index(b"mdat")) == for_browsers


@pytest.mark.parametrize(
    ("size", "shown"),
    [((64, 48), (64, 48)), ((65, 49), (64, 48)), ((3840, 2160), (1920, 1080)), ((1081, 1921), (1080, 1920))],
)
def test_large_pictures_are_scaled_down(size: tuple[int, int], shown: tuple[int, int]) -> None:
    assert shown_size(VideoInfo(*size, 1, 8.0, "h264", "yuv420p")) == shown


def test_a_large_clip_is_scaled_and_said_to_be(tmp_path: Path) -> None:
    source = clip(tmp_path / "wide.mp4", 30, 2, (64, 2000))
    copy = blind_copy(source, probe(source), tmp_path)
    assert (copy.width, copy.height) == (1920, 60)
    assert probe(tmp_path / f"{copy.id}.mp4").width == 1920
    assert remarks(source, probe(source)) == ["its 2000x64 pictures are scaled down to 1920x60"]


def test_what_raters_will_not_see_as_it_was(tmp_path: Path) -> None:
    varying = write_clip(tmp_path / "varying.mp4", moving_scene(5), times_ms=[0, 40, 80, 300, 340])
    assert varies_in_rate(varying)
    assert ["varies" in remark for remark in remarks(varying, probe(varying))] == [True]
    steady = write_clip(tmp_path / "steady.mkv", moving_scene(9), fps=24)  # Matroska's clock ticks in milliseconds
    assert not varies_in_rate(steady)
    assert remarks(steady, probe(steady)) == []
    long = VideoInfo(64, 48, 700, 10.0, "h264", "yuv420p")
    assert remarks(steady, long) == ["it lasts 70 s"]
    silent = VideoInfo(64, 48, 3, 0.0, "png", "rgb24")
    assert frame_rate(silent) == 16
    assert remarks(steady, silent) == ["it does not say its frame rate, and is played at 16 frames a second"]


def test_gifs_have_a_rate_of_their_own(tmp_path: Path) -> None:
    pictures = [Image.fromarray(frame) for frame in moving_scene(4)]
    steady = write_gif(tmp_path / "steady.gif", pictures)
    varying = tmp_path / "varying.gif"
    pictures[0].save(varying, save_all=True, append_images=pictures[1:], duration=[40, 40, 400, 40])
    assert (varies_in_rate(steady), varies_in_rate(varying)) == (False, True)
    copy = blind_copy(steady, probe(steady), tmp_path)
    assert probe(tmp_path / f"{copy.id}.mp4").n_frames == 4


def test_spoiled_frames_are_coarse_noisy_and_out_of_order() -> None:
    frames_THWC = moving_scene(12, 96, 128)
    bad_THWC = spoiled(frames_THWC, np.random.default_rng(0))
    assert bad_THWC.shape == frames_THWC.shape
    assert (bad_THWC == spoiled(frames_THWC, np.random.default_rng(0))).all()
    assert (bad_THWC != spoiled(frames_THWC, np.random.default_rng(1))).any()
    assert np.abs(bad_THWC.astype(float) - frames_THWC).mean() > 20

    def detail(frames: Frames) -> float:
        return float((np.diff(frames.astype(float), axis=2) != 0).mean())

    assert detail(bad_THWC) < detail(frames_THWC) / 2  # tiles are flat
    ramp = np.broadcast_to((np.arange(16) * 15)[:, None, None, None], (16, 48, 64, 3)).astype(np.uint8)
    means_T = spoiled(ramp, np.random.default_rng(2)).mean(axis=(1, 2, 3))
    assert (np.diff(means_T) < 0).sum() >= 4  # time runs backwards now and then
    assert len(spoiled(ramp[:1], np.random.default_rng(0))) == 1


# ---- unequal sets, broken videos, wrong wishes -----------------------------------------------------------------------


def test_unequal_sets_are_refused_and_what_is_missing_is_listed(tmp_path: Path) -> None:
    every = {n: [0] for n in range(30)}
    videos, _ = sets(tmp_path, 30, A=every, B={n: [0] for n in range(25, 30)}, C=every | {28: [7]})
    said = refused("sets of videos are unequal", request(tmp_path, videos))
    assert "B lacks 25: p0 seed 0, p1 seed 0," in said
    assert "p19 seed 0, and 5 more" in said
    assert "C lacks 1: p28 seed 0" in said
    assert "A lacks" not in said
    assert "--common to study the 4 prompts that all have" in said


def test_common_takes_what_all_models_have_and_says_what_it_dropped(tmp_path: Path) -> None:
    videos = models(tmp_path)
    (videos["B"] / "prompt1-0.mp4").unlink()
    clip(videos["A"] / "nothing of the suite.mp4", 5)
    study = create(request(tmp_path, videos, common=True))
    assert set(study.plan.prompts) == {"prompt0", "prompt2", "prompt3"}
    assert study.notes[:2] == (
        "1 of 4 prompts left out, since not all models have a video: prompt1",
        "1 files of A belong to no prompt: nothing of the suite.mp4",
    )
    (videos["C"] / "prompt0-0.mp4").rename(videos["C"] / "prompt0-1.mp4")
    for n in (2, 3):
        (videos["C"] / f"prompt{n}-0.mp4").unlink()
    said = refused("unequal", request(tmp_path, videos, out=tmp_path / "other", common=True))
    assert "--common" not in said  # nothing would be left


def sets(root: Path, n_prompts: int = 4, **seeds: Mapping[int, Sequence[int]]) -> tuple[dict[str, Path], PromptSuite]:
    """Empty files named for prompts and seeds, which is all that matching looks at."""
    lines = [json.dumps({"id": f"p{n}", "text": f"prompt {n}"}) for n in range(n_prompts)]
    (root / "suite.jsonl").write_text("\n".join(lines))
    for label, prompts in seeds.items():
        (root / label).mkdir()
        for n, numbers in prompts.items():
            for seed in numbers:
                (root / label / f"p{n}-{seed}.mp4").touch()
    return {label: root / label for label in seeds}, load_suite(str(root / "suite.jsonl"))


def test_the_lowest_seeds_that_all_models_have(tmp_path: Path) -> None:
    videos, suite = sets(tmp_path, A={0: [0, 1, 2, 5], 1: [3, 4]}, B={0: [1, 2, 5], 1: [4, 9, 3]})

    def items(per_prompt: int, common: bool = False) -> tuple[Item, ...]:
        return gather(suite, videos, per_prompt=per_prompt, common=common).items

    assert items(1) == (("p0", 1), ("p1", 3))
    assert items(2) == (("p0", 1), ("p0", 2), ("p1", 3), ("p1", 4))
    with pytest.raises(UserError, match=r"A lacks 1: p1 seed 9"):
        items(3)
    assert items(3, common=True) == (("p0", 1), ("p0", 2), ("p0", 5), ("p1", 3), ("p1", 4))
    with pytest.raises(UserError, match=r"A lacks 3: p0 1 more, p1 seed 9, p1 2 more"):
        items(5)
    notes = gather(suite, videos).notes
    assert notes == ("2 of the suite's 4 prompts have no video of any model: p2, p3",)


def test_videos_without_a_seed_are_their_own_kind(tmp_path: Path) -> None:
    videos, suite = sets(tmp_path, A={0: [0]}, B={0: [0]})
    for label in videos:
        (videos[label] / "p1.mp4").touch()
    assert gather(suite, videos).items == (("p0", 0), ("p1", None))
    (videos["B"] / "p1.mp4").rename(videos["B"] / "p1-0.mp4")
    with pytest.raises(UserError, match=r"A lacks.*p1|B lacks 1: p1 without a seed"):
        gather(suite, videos)


def test_undecodable_clips_are_all_listed(tmp_path: Path) -> None:
    videos = models(tmp_path)
    (videos["A"] / "prompt2-0.mp4").write_bytes(b"no video at all")
    (videos["B"] / "prompt0-0.mp4").unlink()
    write_audio(videos["B"] / "prompt0-0.mp4")
    said = refused("2 videos cannot be decoded", request(tmp_path, videos))
    assert "m0/prompt2-0.mp4: not a video file" in said
    assert "m1/prompt0-0.mp4: no video stream" in said


def test_a_picture_of_one_pixel_is_no_video(tmp_path: Path) -> None:
    videos = models(tmp_path)
    (videos["B"] / "prompt0-0.mp4").unlink()
    write_gif(videos["B"] / "prompt0-0.gif", [Image.new("RGB", (1, 1))])
    assert "prompt0-0.gif: pictures of 1x1 pixels" in refused("1 videos cannot be decoded", request(tmp_path, videos))


def test_clips_that_break_in_the_middle_are_all_listed(tmp_path: Path) -> None:
    """Their index is whole: only decoding finds the damage."""
    videos = models(tmp_path)
    for label in ("A", "C"):
        path = videos[label] / "prompt1-0.mp4"
        write_clip(path, moving_scene(40, 96, 128))
        data = bytearray(path.read_bytes())
        at = data.index(b"mdat")
        data[at + 3000 : at + 30000] = b"\0" * 27000
        path.write_bytes(data)
    said = refused("2 videos cannot be decoded", request(tmp_path, videos))
    assert "m0/prompt1-0.mp4: damaged" in said
    assert "m2/prompt1-0.mp4: damaged" in said


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"videos": {"A": Path("a")}}, "compares 2 to 24 models, and 1 are given"),
        ({"videos": {"A": Path("a"), "B": Path("x/../a")}}, "are the same folder"),
        ({"videos": {"A": Path("a"), " ": Path("b")}}, "is empty"),
        ({"videos": {"A": Path("a"), "B" * 65: Path("b")}}, "longer than 64"),
        ({"videos": {"A": Path("a"), "B\x1b[2J": Path("b")}}, "control characters"),
        ({"videos": {"A": Path("a"), "B\udcff": Path("b")}}, "control characters"),
        ({"videos": {f"m{n}": Path(f"m{n}") for n in range(25)}}, "2 to 24"),
        ({"protocol": "ranks"}, "Did you mean rank"),
        ({"protocol": "pairwise", "block_size": 3}, "shows two clips"),
        ({"protocol": "likert5", "ties": False}, "no difference"),
        ({"block_size": 4}, "2 to 3 of the models"),
        ({"block_size": 1}, "2 to 3 of the models"),
        ({"raters": 0}, "--raters 0 is not between 1 and 1000"),
        ({"raters": 1001}, "--raters 1001"),
        ({"checks": -1}, "--checks -1"),
        ({"per_prompt": 0}, "--samples 0"),
        ({"max_failed": 1.5}, "--max-failed 1.5"),
        ({"max_failed": float("nan")}, "--max-failed nan"),
        ({"seed": -1}, "--seed -1"),
        ({"axes": ("beauty",)}, "no axis called 'beauty'"),
        ({"axes": ()}, "asks nothing"),
        ({"axes": ("semantic_coherence",), "block_size": 2}, "No attention check can be failed"),
        ({"name": ""}, "empty"),
        ({"name": "x" * 201}, "longer than 200"),
        ({"name": "Is A better?"}, "holds the model label 'A'"),
        ({"screens": 5}, "there are 4 prompts and seeds"),
        ({"screens": 0}, "Give 1 to 4 screens"),
        ({"protocol": "pairwise", "screens": 13}, "there are 12 pairs of videos"),
        ({"checks": 5}, "more than the 4 screens"),
        ({"suite": "custom51"}, "Did you mean custom50"),
        ({"suite": "custom50"}, "None of the 4 videos"),
        ({"videos": {"A": Path("nowhere"), "B": Path("b")}}, "does not exist"),
    ],
)
def test_wishes_that_cannot_be_meant(tmp_path: Path, wrong: dict[str, Any], says: str) -> None:
    videos, _ = sets(tmp_path, **{label: {n: [0] for n in range(4)} for label in ("A", "B", "C")})
    meant = {"out": tmp_path / "study", "suite": str(tmp_path / "suite.jsonl"), "videos": videos}
    refused(says, StudyRequest(**meant | wrong))


def test_short_labels_may_be_part_of_a_word_in_the_title_and_long_ones_not(tmp_path: Path) -> None:
    videos, _ = sets(tmp_path, **{label: {n: [0] for n in range(4)} for label in ("A", "Sora")})
    with pytest.raises(UserError, match="'Sora'"):
        StudyRequest(out=tmp_path / "study", videos=videos, name="sorasora").validate()
    StudyRequest(out=tmp_path / "study", videos=videos, name="Banana clips").validate()


def test_a_study_is_never_overwritten(made: tuple[Path, Plan]) -> None:
    root, plan = made
    with pytest.raises(UserError, match="is in use"):
        create(request(root, {label: root / f"m{n}" for n, label in enumerate(plan.models)}))
    assert load_plan(root / "study") == plan


# ---- interruptions ---------------------------------------------------------------------------------------------------


def test_a_killed_run_leaves_no_study_and_its_copies_are_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL at the seventh copy, not at a time: a busy machine changes nothing."""
    videos = models(tmp_path)
    script = (
        "import os, signal; from evalkit.study.planning import copying; from evalkit.cli import main;"
        "copying._WORKERS = 1; copy, copied = copying.blind_copy, [];"
        "kill = lambda: len(copied) > 6 and os.kill(os.getpid(), signal.SIGKILL);"
        "copying.blind_copy = lambda *args: (copied.append(0), kill(), copy(*args))[2]; main()"
    )
    arguments = ["study", "new", "--suite", tmp_path / "suite.jsonl", "--raters", "4", "--out", tmp_path / "study"]
    arguments += ["--videos", *(f"{label}={folder}" for label, folder in videos.items())]
    killed = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "study").exists()
    partial = tmp_path / ".study.partial"
    finished = {line["copy"]["id"] for line in map(json.loads, (partial / copying.JOURNAL).read_text().splitlines())}
    assert 5 <= len(finished) <= 6  # the last may not have been noted down
    assert stat.S_IMODE((partial / copying.JOURNAL).stat().st_mode) == 0o600
    (partial / "clips" / "stranger.mp4").touch()
    with (partial / copying.JOURNAL).open("a") as journal:
        journal.write('{"key": "half a li')
    spoilt = sorted(finished)[0]
    (partial / "clips" / f"{spoilt}.mp4").write_bytes(b"half")
    copied = []
    copy = copying.blind_copy
    monkeypatch.setattr(copying, "blind_copy", lambda *args: copied.append(args) or copy(*args))
    study = create(request(tmp_path, videos))
    assert len(copied) == len(study.plan.clips) - len(finished) + 1
    assert finished - {spoilt} <= study.plan.clips.keys()
    assert not partial.exists()
    assert {path.stem for path in (study.path / "clips").iterdir()} == study.plan.clips.keys()
    assert not (study.path / copying.JOURNAL).exists()


def test_a_video_that_changed_is_copied_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = models(tmp_path, n_prompts=2)
    copy = copying.blind_copy

    def interrupted(source: Path, *args: Any) -> Any:
        if "m2" in str(source):
            raise KeyboardInterrupt
        return copy(source, *args)

    monkeypatch.setattr(copying, "blind_copy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        create(request(tmp_path, videos))
    monkeypatch.setattr(copying, "blind_copy", copy)
    clip(videos["A"] / "prompt0-0.mp4", 250)
    plan = create(request(tmp_path, videos)).plan
    (id_,) = (c.id for c in plan.clips.values() if (c.model, c.prompt_id, c.degraded) == ("A", "prompt0", False))
    assert pixels(tmp_path / "study" / "clips" / f"{id_}.mp4").mean() > 240


def test_two_commands_cannot_make_one_study(tmp_path: Path) -> None:
    with growing(tmp_path / "study"), pytest.raises(RunFailed, match="is made by process"):
        create(request(tmp_path))
    assert (tmp_path / "study").is_dir()


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunFailed, match="Could not write"):
        create(request(tmp_path, out=tmp_path / "file" / "study"))


# ---- the command -----------------------------------------------------------------------------------------------------


def invoke(*args: str | Path) -> Any:
    return CliRunner().invoke(build_app(), ["study", "new", *map(str, args)], env={"COLUMNS": "140"})


def test_command_prints_plan_balance_precision_and_next_steps(tmp_path: Path) -> None:
    videos = [f"{label}={folder}" for label, folder in models(tmp_path, tuple(HOSTILE)).items()]
    out, record = tmp_path / "a study", tmp_path / "plan.json"
    done = invoke(
        *("--suite", tmp_path / "suite.jsonl", "--raters", "7", "--videos", *videos, "--protocol", "rank"),
        *("--ties", "--out", out, "--json", record, "--name", "[red]Which one?[/red]"),
    )
    assert done.exit_code == 0, done.output
    words = " ".join(done.output.split())
    for label in HOSTILE:
        assert label in words
    assert "[red]Which one?[/red]" in words
    assert "7, each 4 votes and 2 attention checks" in words
    assert f"{out / 'links.csv'}" in words
    assert f"m4v-eval study serve '{out}'" in words
    made = json.loads(record.read_text())
    assert made["schema"] == "m4v-eval/study-new/1"
    assert (made["screens"], made["checks"], made["n_raters"], made["ties"]) == (4, 2, 7, True)
    assert [row["n_raters"] for row in made["precision"]] == [5, 7, 10, 20, 50, 100]
    for row in made["precision"]:
        assert f"{row['n_raters']} │ {row['votes_per_pair']:.0f} │ {100 * row['half_width']:.1f} %" in words
    assert made["balance"]["pairs"] == [28, 28]
    assert made["minutes"] == pytest.approx(6 * (2 * 5 / 16 + 3 * 3 * 3) / 60)
    links = (out / "links.csv").read_text()
    assert not any(link.rsplit("/", 1)[1] in record.read_text() for link in links.split()[1:])


def test_videos_take_several_words_and_may_be_repeated(tmp_path: Path) -> None:
    videos = models(tmp_path)
    a, b, c = (f"{label}={folder}" for label, folder in videos.items())
    common = ("--suite", tmp_path / "suite.jsonl", "--raters", "2")
    spellings = (
        (*common, "--videos", a, b, c),
        ("--videos", a, b, *common, "--videos", c),
        ("--videos", a, "--videos", b, "--videos", c, *common),
        (f"--videos={a}", b, c, *common),
    )
    for n, spelling in enumerate(spellings[1:]):
        done = invoke(*spelling, "--out", tmp_path / f"study{n}")
        assert done.exit_code == 0, done.output
        assert load_plan(tmp_path / f"study{n}").models == ("A", "B", "C")
    assert repeated([*map(str, spellings[0])])[-6:] == ["--videos", a, "--videos", b, "--videos", c]


def test_words_for_videos() -> None:
    assert folders(["A=a", "B b = x=y"]) == {"A": Path("a"), "B b": Path(" x=y")}
    assert folders(["A=~/a"])["A"] == Path.home() / "a"
    for words, says in ((["A"], "not LABEL=FOLDER"), (["A="], "not LABEL=FOLDER"), (["A=a", "A=b"], "Two models")):
        with pytest.raises(UserError, match=says):
            folders(words)


def test_errors_are_one_clear_message(tmp_path: Path) -> None:
    videos, _ = sets(tmp_path, A={0: [0], 1: [0]}, B={0: [0]})
    arguments = ["study", "new", "--suite", tmp_path / "suite.jsonl", "--out", tmp_path / "study", "--videos"]
    command = [sys.executable, "-c", "from evalkit.cli import main; main()", *map(str, arguments)]
    command += [f"[/bold]={videos['A']}", f"[red]={videos['B']}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"NO_COLOR": "1"})
    assert done.returncode == 2
    assert "[red] lacks 1: p1 seed 0" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_teaches() -> None:
    done = invoke("--help")
    assert done.exit_code == 0
    words = " ".join(done.output.split())
    for part in ("m4v-eval study new --videos A=", "--block-size", "study serve STUDY", "Attention checks"):
        assert part in words


def test_planning_does_not_pay_for_torch(tmp_path: Path) -> None:
    videos = models(tmp_path, n_prompts=2)
    script = (
        "import sys; from pathlib import Path; from evalkit.study.planning.new import create;"
        "from evalkit.study.planning.request import StudyRequest; out, suite, *folders = sys.argv[1:];"
        "videos = {str(n): Path(folder) for n, folder in enumerate(folders)};"
        "create(StudyRequest(Path(out), videos, suite, raters=2)); sys.exit('torch' in sys.modules)"
    )
    paths = [tmp_path / "study", tmp_path / "suite.jsonl", *videos.values()]
    assert subprocess.run([sys.executable, "-c", script, *map(str, paths)], check=False).returncode == 0


def test_one_damaged_video_is_a_video_error(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(b"")
    with pytest.raises(VideoError):
        varies_in_rate(path)


def test_without_out_the_suite_and_the_protocol_name_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = models(tmp_path, n_prompts=2)
    monkeypatch.chdir(tmp_path)
    words = ["--suite", "suite.jsonl", "--protocol", "pairwise", "--raters", "2", "--videos"]
    done = invoke(*words, *(f"{label}={folder}" for label, folder in videos.items()))
    assert done.exit_code == 0, done.output
    assert load_plan(tmp_path / "studies" / "suite-pairwise").protocol == "pairwise"
