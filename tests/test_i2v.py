"""VBench-I2V: the comparison with a picture, both score rules, and a run from pictures to headline scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from evalkit.backbones import dino, dreamsim
from evalkit.backbones.base import Runtime
from evalkit.backbones.reference import I2V_DINO, Referenced, ReferencedClip
from evalkit.errors import UserError
from evalkit.job import Request
from evalkit.records import RunRecord
from evalkit.reference import TABLES, number
from evalkit.report.page import compose
from evalkit.scoring import QUALITY
from evalkit.suites.base import score
from evalkit.suites.i2v import COMPARED, ImageToVideo, conformity, headlines, official, published
from evalkit.types import Array, Clip, Frames, VideoInfo
from evalkit.weights import WeightStore
from tests.clips import moving_scene, write_clip
from tests.networks import randomize
from tests.parity import long_i2v

GOLDEN = json.loads(long_i2v.GOLDEN.read_text(encoding="utf-8"))
INFO = VideoInfo(64, 48, 9, 8.0, "none", "rgb24")

vectors = npst.arrays(
    np.float64,
    st.tuples(st.integers(3, 8), st.integers(2, 5)),
    elements=st.floats(-1, 1).filter(lambda x: abs(x) > 0.01),
)


@pytest.mark.parametrize("metric", COMPARED, ids=lambda metric: metric.name)
def test_worked_examples(metric) -> None:  # noqa: ANN001
    for example in metric.examples:
        assert metric.score(Clip(INFO, ""), example.features).value == pytest.approx(example.value, abs=1e-12)


@given(vectors)
def test_conformity_is_a_fraction_and_ignores_length(features_ND: Array) -> None:
    found = conformity(features_ND).value
    assert found is not None
    assert 0 <= found <= 1 + 1e-12
    assert conformity(features_ND * 3.7).value == pytest.approx(found)


@given(vectors)
def test_the_best_frame_is_compared_with_the_picture_whichever_it_is(features_ND: Array) -> None:
    backwards = np.concatenate([features_ND[:1], features_ND[:0:-1]])
    assert conformity(backwards).value == pytest.approx(conformity(features_ND).value)


# Headline scores


@pytest.mark.parametrize("case", GOLDEN["i2v_totals"], ids=lambda case: f"{case['total']:.3f}")
def test_the_official_script(case) -> None:  # noqa: ANN001
    found = official(case["scores"])
    assert (found.quality, found.i2v, found.total) == pytest.approx(
        tuple(100 * case[name] for name in ("quality", "i2v", "total"))
    )


def printed_and_computed(rule: Callable) -> list[float]:  # type: ignore[type-arg]
    """The largest deviation of each row of STIV's Table 13 (the i2v score is printed in Table 9)."""
    rows = TABLES["vbench_i2v"].rows()
    i2v_score = {row["model"]: float(row["i2v_score"]) for row in rows if row["i2v_score"]}
    names = ("i2v_subject", "i2v_background", "camera_motion", *QUALITY)
    gaps = []
    for row in rows:
        if row["source"] == "STIV paper Table 13":
            found = rule({name: float(row[name]) / 100 for name in names})
            printed = (number(row["quality_score"]), i2v_score[row["model"]], number(row["total_score"]))
            pairs = zip((found.quality, found.i2v, found.total), printed, strict=True)
            gaps.append(max(abs(ours - theirs) for ours, theirs in pairs))
    assert len(gaps) == 11
    return gaps


def test_which_rule_made_the_published_table() -> None:
    assert sum(gap <= 0.1 for gap in printed_and_computed(published)) == 6
    assert sum(gap <= 0.1 for gap in printed_and_computed(official)) == 0


@pytest.mark.parametrize("lost", ["i2v_subject", "camera_motion", "temporal_flickering", "dynamic_degree"])
def test_a_missing_dimension_is_no_zero(lost: str) -> None:
    scores = dict.fromkeys(("i2v_subject", "i2v_background", "camera_motion", *QUALITY), 0.8)
    del scores[lost]
    both = official(scores), published(scores)
    assert [found.total is None for found in both] == [lost != "temporal_flickering", lost != "camera_motion"]
    assert lost in headlines(scores)["coverage"]["missing"]


# Features


def test_the_picture_comes_first_and_batches_do_not_matter() -> None:
    frames_THWC = moving_scene(9)
    clip = ReferencedClip(INFO, "", reference_HWC=frames_THWC[4, 5:, 3:])

    def embed(frames_BHWC: Frames) -> Array:
        return frames_BHWC.mean((1, 2))

    def embed_picture(picture_HWC: Frames) -> Array:
        return -picture_HWC.mean((0, 1))[None]

    found = []
    for batch, cuts in ((1, []), (4, [2, 3]), (16, [8])):
        reader = Referenced(embed, embed_picture, batch).open(clip)
        for part in np.split(np.arange(9), cuts):
            reader.push(int(part[0]), frames_THWC[part])
        found.append(reader.close())
    for features in found:
        np.testing.assert_array_equal(features, found[0])
    np.testing.assert_array_equal(found[0][0], embed_picture(clip.reference_HWC)[0])
    np.testing.assert_array_equal(found[0][1:], embed(frames_THWC))


# A run


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two pictures, two videos of the first and one of the second, and a tiny DINO in its checkpoint."""
    import torch

    monkeypatch.setattr(dino, "Dino", tiny)
    (tmp_path / "images").mkdir()
    (tmp_path / "videos").mkdir()
    for name, seed in (("a red ball", 1), ("a blue cube", 2)):
        Image.fromarray(moving_scene(1, 60, 70, seed=seed)[0]).save(tmp_path / "images" / f"{name}.png")
    for name, seed, n in (("a red ball-0", 1, 5), ("a red ball-1", 3, 4), ("a blue cube-0", 2, 1)):
        write_clip(tmp_path / "videos" / f"{name}.mp4", moving_scene(n, seed=seed))
    path = tmp_path / "weights" / dino.CHECKPOINT.file
    path.parent.mkdir(parents=True)
    drawn = tiny()
    randomize(drawn, 0)
    torch.save(drawn.vit.state_dict(), path)
    return tmp_path


_Dino = dino.Dino


def tiny() -> dino.Dino:
    return _Dino(width=48, depth=2, heads=3)


def run(folder: Path, *dimensions: str, subset: str = "") -> RunRecord:
    request = Request(
        folder / "videos",
        subset,
        folder / "run",
        "official",
        dimensions or ("i2v_subject", "temporal_flickering"),
        folder / "weights",
        runtime=Runtime(),
    )
    return score(ImageToVideo(folder / "images"), request)


def test_a_run_from_pictures_to_scores(folders: Path) -> None:
    record = run(folders)
    assert record.summary["schema"] == "m4v-eval/vbench-i2v/1"
    assert record.summary["profile"] == record.manifest["profile"] == "vbench-i2v"
    videos = {video["file"]: video for video in record.summary["videos"]}
    values = [videos[f"a red ball-{seed}.mp4"]["scores"]["i2v_subject"] for seed in (0, 1)]
    assert 0 < min(values) < max(values) < 1
    assert record.summary["dimensions"]["i2v_subject"]["score"] == pytest.approx(sum(values) / 2)
    assert "at least 2 frames" in videos["a blue cube-0.mp4"]["unscored"]["i2v_subject"]
    assert record.summary["dimensions"]["i2v_subject"]["n"] == 2
    assert record.summary["aggregate"]["i2v/total (published table)"] is None
    assert "non-commercial" in record.summary["unavailable"]["camera_motion"]
    page = compose([record], folders / "page.html")
    assert "These are vbench-i2v scores" in page
    assert "Official profile" not in page


def test_a_second_run_computes_nothing_and_a_new_picture_its_own(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(folders)
    embedded: list[int] = []
    real = dino.DinoEmbed.embed

    def embed(self: dino.DinoEmbed, x_BCHW) -> Array:  # noqa: ANN001
        embedded.append(len(x_BCHW))
        return real(self, x_BCHW)

    monkeypatch.setattr(dino.DinoEmbed, "embed", embed)
    assert run(folders).summary["videos"] == first.summary["videos"]
    assert not embedded
    Image.fromarray(moving_scene(1, 60, 70, seed=9)[0]).save(folders / "images" / "a red ball.png")
    changed = {video["file"]: video["scores"] for video in run(folders).summary["videos"]}
    assert sum(embedded) == 5 + 4 + 2
    before = {video["file"]: video["scores"] for video in first.summary["videos"]}
    assert changed["a red ball-0.mp4"]["i2v_subject"] != before["a red ball-0.mp4"]["i2v_subject"]
    assert changed["a red ball-0.mp4"]["temporal_flickering"] == before["a red ball-0.mp4"]["temporal_flickering"]


def test_pages_of_different_suites_stay_apart(folders: Path) -> None:
    record = run(folders)
    other = RunRecord(record.path, record.manifest, record.summary | {"profile": "official"}, record.results)
    with pytest.raises(UserError, match="cannot share a page"):
        compose([record, other], folders / "page.html")


def test_the_official_list_names_the_pictures(folders: Path) -> None:
    entries = [
        {"prompt_en": "it rolls", "dimension": ["i2v_subject"], "image_name": "a red ball.png"},
        {"prompt_en": "it rolls, camera pans left", "dimension": ["camera_motion"], "image_name": "a red ball.png"},
    ]
    (folders / "list.json").write_text(json.dumps(entries))
    (folders / "videos" / "a red ball-0.mp4").rename(folders / "videos" / "it rolls-0.mp4")
    record = run(folders, "i2v_subject", subset=str(folders / "list.json"))
    assert [video["file"] for video in record.summary["videos"]] == ["it rolls-0.mp4"]
    assert record.summary["subset"]["n_prompts"] == 1  # what only camera_motion asks for is not missing


NAMES_ANOTHER = '{"text": "a red ball", "auxiliary": {"image": "x.png"}}'


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "images" / "a red ball.png").unlink(), "holds no picture"),
        (lambda f: (f / "images" / "a red ball.png").write_bytes(b"\x89PNG nonsense"), "not a whole image"),
        (
            lambda f: (f / "prompts.jsonl").write_text('{"text": "a red ball", "auxiliary": {"image": "x.png"}}'),
            "'x.png'",
        ),
    ],
)
def test_bad_pictures_are_named(folders: Path, spoil: Callable[[Path], object], message: str) -> None:
    (folders / "prompts.jsonl").write_text('{"text": "a red ball"}\n{"text": "a blue cube"}')
    spoil(folders)
    with pytest.raises(UserError, match=message):
        run(folders, subset=str(folders / "prompts.jsonl"))


@pytest.mark.parametrize(("name", "message"), [("camera_motion", "non-commercial"), ("i2v_subjekt", "Did you mean")])
def test_other_dimensions_are_refused(folders: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(folders, name)


def test_no_folder_of_pictures() -> None:
    with pytest.raises(UserError, match="does not exist"):
        ImageToVideo(Path("nowhere"))


# DreamSim's files


@pytest.fixture
def dreamsim_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tiny towers in the published layout."""
    import torch
    from safetensors.torch import save_file

    shape = dreamsim.Shape(width=24, depth=2, heads=2, output=8)
    real = dreamsim.DreamSim
    monkeypatch.setattr(dreamsim, "DreamSim", lambda: real(shape))
    network = real(shape)
    randomize(network, 1)
    for tower, checkpoint in zip(network.towers, dreamsim.CHECKPOINTS, strict=False):
        path = tmp_path / checkpoint.file
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"state_dict": tower.vit.state_dict()}, path)  # type: ignore[union-attr]
    generator = torch.Generator().manual_seed(3)
    factors = {
        dreamsim.LORA.format(tower=t, block=b, side=side): torch.randn(size, generator=generator)
        for t in range(3)
        for b in range(2)
        for side, size in (("A", (4, 24)), ("B", (72, 4)))
    }
    (tmp_path / dreamsim.ADAPTER.file).parent.mkdir(parents=True)
    save_file(factors, tmp_path / dreamsim.ADAPTER.file)
    (tmp_path / dreamsim.CONFIG.file).write_text('{"r": 4, "lora_alpha": 0.5}')
    return tmp_path


def test_dreamsim_reads_its_files_and_batches_do_not_matter(dreamsim_files: Path) -> None:
    embed = dreamsim.load_images(WeightStore(dreamsim_files), Runtime())
    frames_THWC = moving_scene(5)
    together = embed(frames_THWC)
    assert together.shape == (5, 24 + 8 + 8)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([embed(frame[None]) for frame in frames_THWC]), together, atol=1e-6)
    still = embed.picture(frames_THWC[2])
    assert 0.99 < (still @ together.T).max() <= 1 + 1e-6
    assert int((still @ together.T).argmax()) == 2


def test_the_low_rank_factors_count(dreamsim_files: Path) -> None:
    before = dreamsim.load_images(WeightStore(dreamsim_files), Runtime())(moving_scene(1))
    (dreamsim_files / dreamsim.CONFIG.file).write_text('{"r": 4, "lora_alpha": 0.0}')
    after = dreamsim.load_images(WeightStore(dreamsim_files), Runtime())(moving_scene(1))
    assert np.abs(before - after).max() > 1e-3


@pytest.mark.parametrize("spoiled", ["adapter", "config", "clip", "surplus"])
def test_other_files_are_refused(dreamsim_files: Path, spoiled: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    adapter = dreamsim_files / dreamsim.ADAPTER.file
    if spoiled == "adapter":
        adapter.write_bytes(b"nonsense")
    elif spoiled == "config":
        (dreamsim_files / dreamsim.CONFIG.file).write_text("{}")
    elif spoiled == "clip":
        torch.save({"state_dict": {"proj": torch.zeros(1)}}, dreamsim_files / dreamsim.CLIP.file)
    else:
        save_file(load_file(adapter) | {"other": torch.zeros(1)}, adapter)
    with pytest.raises(UserError, match=r"DreamSim|does not fit"):
        dreamsim.load_images(WeightStore(dreamsim_files), Runtime())


def test_what_needs_which_files() -> None:
    assert I2V_DINO.checkpoints == (dino.CHECKPOINT,)
    assert len({checkpoint.file for checkpoint in dreamsim.CHECKPOINTS}) == 5
