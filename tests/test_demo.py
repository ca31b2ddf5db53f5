from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from evalkit.demo import LOOKS, SCENES, Scene, make_clips, shoot
from evalkit.errors import UserError
from evalkit.video import probe, read_frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    make_clips(folder)
    return folder


def test_clips_are_small_and_as_announced(folder: Path) -> None:
    paths = sorted(folder.glob("*.mp4"))
    assert len(paths) == 8
    assert sum(path.stat().st_size for path in paths) < 800_000
    for path in paths:
        info = probe(path)
        assert (info.width, info.height, info.n_frames, info.fps, info.codec) == (320, 240, 33, 16.0, "h264")


def test_manifest_and_prompts_agree(folder: Path) -> None:
    manifest = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    prompts = [json.loads(line) for line in (folder / "prompts.jsonl").read_text().splitlines()]
    assert {line["file"] for line in manifest} == {path.name for path in folder.glob("*.mp4")}
    assert [(line["prompt_id"], line["prompt"]) for line in manifest] == [(p["id"], p["text"]) for p in prompts]
    assert len({p["text"] for p in prompts}) == 8
    assert {line["seed"] for line in manifest} == {0}


def test_clips_show_what_was_shot(folder: Path) -> None:
    for scene in SCENES:
        source = list(shoot(scene))
        decoded = read_frames(folder / f"{scene.id}.mp4", [0, 32])
        error = np.abs(decoded.astype(int) - np.stack([source[0], source[32]])).mean()
        assert error < 12  # compression at CRF 23; another photograph differs by 50 and more


def test_making_them_again_gives_the_same_files(folder: Path, tmp_path: Path) -> None:
    make_clips(tmp_path)
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_every_prompt_names_a_colour_or_light_and_a_motion() -> None:
    for scene in SCENES:
        words = set(scene.prompt.lower().replace(",", "").rstrip(".").split())
        assert words & {"orange", "red", "green", "white", "blue", "black", "bright", "dark"}
        assert words & {"zooms", "pans", "tilts", "still"}


@pytest.mark.parametrize("scene", SCENES[:3], ids=lambda scene: scene.id)
def test_other_models_are_softer_or_jerkier(scene: Scene) -> None:
    sharp, soft, jerky = (np.stack(list(shoot(scene, look))).astype(float) for look in LOOKS.values())
    assert np.abs(np.diff(soft, axis=2)).mean() < 0.8 * np.abs(np.diff(sharp, axis=2)).mean()
    stands = [bool((a == b).all()) for a, b in itertools.pairwise(jerky)]
    assert stands == [t % 6 != 0 for t in range(1, len(jerky))]
    assert (jerky[::6] == sharp[::6]).all()


def test_an_unknown_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean sharp"):
        make_clips(tmp_path / "clips", "shap")
    assert not (tmp_path / "clips").exists()
