"""Tag2Text against the official package: tensors on the way, tags, tokens, captions and scores.

`tests/parity/tag2text_golden.json` holds what the official package gave for the clips in `tests/parity/clips` with the
recipe's weights (`python -m tests.parity.tag2text_official` in the official environment). Quick tests use networks of
two blocks per stack; `slow` ones the published size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from evalkit.backbones import tag2text
from evalkit.backbones._captioner import Writing
from evalkit.backbones.base import Runtime
from evalkit.backbones.features import TAG2TEXT
from evalkit.backbones.tag2text import BEAMS, Captioner, Shape, Tag2Text, chosen_frames, preprocess
from evalkit.metrics.scene import METRIC
from evalkit.types import Clip, Frames
from evalkit.video import probe, read
from evalkit.weights import WeightStore
from tests.parity import recipe, tag2text_files

CLIPS = Path(__file__).parent / "parity" / "clips"
GOLDEN = tag2text_files.read_golden()
DEPTH = recipe.SHALLOW
SHALLOW = Shape(image_blocks=(DEPTH,) * 4, encoder_layers=DEPTH, decoder_layers=DEPTH)
SIZE = (384, 384)

# Largest differences allowed to the tensors on the way, whose values reach about 3, logits of words 12. Measured: a
# tenth of these.
TOLERANCE = {"image": 5e-5, "tag_logits": 2e-5, "memory": 5e-5, "first_logits": 2e-4}

pytestmark = pytest.mark.xdist_group("parity")


@pytest.fixture(scope="module")
def shallow_weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WeightStore]:
    cache = tmp_path_factory.mktemp("shallow")
    assert tag2text_files.write_vocabulary(cache) == GOLDEN["vocabulary"]
    assert tag2text_files.write_checkpoint(cache, DEPTH) == GOLDEN["shallow"]["fingerprint"]
    yield WeightStore(cache, trust_archives=True)
    (cache / tag2text_files.CHECKPOINT).unlink()


@pytest.fixture
def shallow_store(shallow_weights: WeightStore) -> Iterator[WeightStore]:
    """The checkpoint of a shallow network; networks are shallow for as long as the test lasts."""
    with mock.patch.object(tag2text, "Tag2Text", partial(Tag2Text, SHALLOW)):
        yield shallow_weights


def scaled(file: str, chunk: int = 4) -> Frames:
    """All frames of a clip as decord scales them for the network."""
    path = CLIPS / file
    chunks = read(path, probe(path), chunk, sizes=[SIZE])
    return np.concatenate([piece.colours(TAG2TEXT.pixels, TAG2TEXT.size) for piece in chunks])


@pytest.mark.parametrize("file", sorted(GOLDEN["frames"]))
def test_frames_are_those_that_decord_scales(file: str) -> None:
    assert hashlib.sha256(scaled(file).tobytes()).hexdigest() == GOLDEN["frames"][file]


def assert_near(kind: str, values: Tensor, official: dict[str, Any]) -> None:
    ours = np.array(tag2text_files.sample(values))
    difference = np.abs(ours - np.array(official[kind])).max()
    print(f"{kind}: {difference:.2e}")
    assert difference <= TOLERANCE[kind], kind


@torch.inference_mode()
def assert_equal(captioner: Captioner, file: str, official: dict[str, Any]) -> None:
    """Every stage on the way from the frames to the captions about them."""
    frames_THWC, n_captions = scaled(file), len(official["captions"])
    x_BCHW = preprocess(frames_THWC[chosen_frames(len(frames_THWC))[:n_captions]], "cpu")
    image_BPD = captioner.network.encode(x_BCHW)
    logits_BG = captioner.network.tagging(image_BPD)
    assert_near("image", image_BPD, official)
    assert_near("tag_logits", logits_BG, official)
    tags = tag2text.found_tags(logits_BG)
    # The official list of tags is cut off after it was repeated for the beams.
    of_frames = official["tags"][::BEAMS]
    assert [" | ".join(names) for names in tags[: len(of_frames)]] == of_frames
    memory_BND = captioner.read_tags(tags, image_BPD)
    assert_near("memory", memory_BND, official)
    prompt_B1N = torch.tensor([[official["tokens"][0][:4]]] * len(memory_BND))
    first_BV = Writing(captioner.network.text_decoder, memory_BND)(prompt_B1N, None)[:, 0]
    # The official decoder's rows read the memory of the frame that is written about, not of their own.
    assert_near("first_logits", first_BV.repeat_interleave(BEAMS, dim=0)[:n_captions], official)
    assert captioner.write(memory_BND[: -(-n_captions // BEAMS)]) == official["tokens"][::BEAMS]


def captions(store: WeightStore, file: str, chunk: int) -> tuple[Clip, np.ndarray]:
    """The feature of a clip, as a scoring pass gathers it."""
    info = probe(CLIPS / file)
    clip = Clip(info, "", {"scene": {"scene": tag2text_files.SCENES[file]}})
    reader = TAG2TEXT.load(store, Runtime(batch=4)).open(clip)
    for piece in read(CLIPS / file, info, chunk, sizes=[SIZE]):
        reader.push(piece.start, piece.colours(TAG2TEXT.pixels, TAG2TEXT.size))
    return clip, reader.close()


@pytest.mark.parametrize("file", ["wide.mp4", pytest.param("tall.mp4", marks=pytest.mark.slow)])
def test_every_stage_of_a_shallow_network(file: str, shallow_store: WeightStore) -> None:
    assert_equal(tag2text.load_captioner(shallow_store, Runtime()), file, GOLDEN["shallow"]["clips"][file])


@pytest.mark.parametrize(("file", "chunk"), [("tall.mp4", 3), pytest.param("square.mp4", 16, marks=pytest.mark.slow)])
def test_captions_and_score_of_a_shallow_network(file: str, chunk: int, shallow_store: WeightStore) -> None:
    official = GOLDEN["shallow"]["clips"][file]
    clip, found = captions(shallow_store, file, chunk)
    assert found.tolist() == official["captions"]
    assert METRIC.score(clip, {TAG2TEXT.name: found}).value == official["score"]


def test_official_results_tell_the_clips_apart() -> None:
    """Parity proves something only if both verdicts on tags and on scenes occur, and captions end and go on."""
    clips = GOLDEN["shallow"]["clips"]
    assert len({official["score"] for official in clips.values()}) > 1
    assert {len(tokens) < 30 for official in clips.values() for tokens in official["tokens"]} == {True, False}
    assert all(any(official["tags"]) for official in clips.values())
    for size in ("shallow", "full"):
        texts = [text for official in GOLDEN[size]["clips"].values() for text in official["captions"]]
        assert len(set(texts)) > len(GOLDEN[size]["clips"])


def test_official_captions_describe_the_first_six_frames_alone() -> None:
    for size in ("shallow", "full"):
        for official in GOLDEN[size]["clips"].values():
            written = official["captions"]
            assert written == [written[i // BEAMS * BEAMS] for i in range(len(written))]


@pytest.mark.slow
def test_the_published_network(tmp_path: Path) -> None:
    assert tag2text_files.write_vocabulary(tmp_path) == GOLDEN["vocabulary"]
    assert tag2text_files.write_checkpoint(tmp_path, None) == GOLDEN["full"]["fingerprint"]
    captioner = tag2text.load_captioner(WeightStore(tmp_path, trust_archives=True), Runtime())
    (tmp_path / tag2text_files.CHECKPOINT).unlink()
    for file, official in GOLDEN["full"]["clips"].items():
        assert_equal(captioner, file, official)
