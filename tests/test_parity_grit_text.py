"""GRiT's text decoder and the four dimensions that read GRiT, against the official code.

`tests/parity/grit_text_golden.json` holds what the official text decoder wrote about features that are drawn from a
seed, and what the official functions of the four dimensions gave for made-up detections
(`tests/parity/grit_text_official.py`). The same weights are drawn here, saved in half precision under the official
file's names and loaded strictly.

The decoder's sizes are those of the official configuration, read off it; that the official network puts its parts
together so is part of the comparison of the whole of GRiT.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from evalkit.auxiliary import equip
from evalkit.backbones._grit_text import BEGIN, Describer, Task, TextDecoder, TextShape, drop_copies, length, prepare
from evalkit.backbones.base import Runtime
from evalkit.backbones.bert_vocab import BERT_VOCAB, load_tokenizer
from evalkit.backbones.grit import CHECKPOINT, detections
from evalkit.metrics import find
from evalkit.types import Clip, Prompt, PromptSuite, Score, VideoInfo
from evalkit.weights import WeightStore, load_strict
from tests.parity import grit_scenes, grit_text, grit_words, recipe

GOLDEN = json.loads((Path(__file__).parent / "parity" / "grit_text_golden.json").read_text(encoding="utf-8"))
LOGITS = 1e-4  # of values up to 12, after float32 layers in another order of summation
LOGPROBS = 1e-5

TASKS: tuple[Task, ...] = get_args(Task)
shallow_cases = pytest.mark.parametrize("case", grit_text.END_BIAS["shallow"])

# One process draws the weights and runs the networks for all of them.
pytestmark = pytest.mark.xdist_group("parity")


def load(size: str, folder: Path) -> Describer:
    """The recipe's decoder, by way of a file as it is published, ready to run."""
    layers = grit_text.LAYERS[size]
    tensors = grit_text.weights(GOLDEN[size]["tensors"], layers)
    assert recipe.fingerprint(tensors) == GOLDEN[size]["fingerprint"]
    state = {name: torch.from_numpy(tensor).half() for name, tensor in tensors.items()}
    state[grit_words.PREFIX + grit_text.TIED] = state[grit_words.EMBEDDING]
    checkpoint, vocabulary = folder / CHECKPOINT.file, folder / BERT_VOCAB.file
    for path in (checkpoint, vocabulary):
        path.parent.mkdir()
    torch.save({grit_text.WRAPPER: state}, checkpoint)
    vocabulary.write_text("\n".join(grit_words.vocabulary()) + "\n", encoding="utf-8")

    store = WeightStore(folder, trust_archives=True)
    with torch.device("meta"):
        decoder = TextDecoder(TextShape(layers=layers))
    read = drop_copies(store.state_dict(CHECKPOINT), CHECKPOINT)
    checkpoint.unlink()
    load_strict(decoder, {name.removeprefix(grit_words.PREFIX): tensor for name, tensor in read.items()}, CHECKPOINT)
    prepare(decoder, Runtime())
    return Describer(decoder, load_tokenizer(store))


@pytest.fixture(scope="module")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Describer:
    return load("shallow", tmp_path_factory.mktemp("grit"))


@contextmanager
def ending(describe: Describer, case: str) -> Iterator[Describer]:
    """The shallow decoder, writing texts that end in one of the ways."""
    bias, end_bias = describe.decoder.output.bias, grit_text.END_BIAS["shallow"][case]
    usual = bias[grit_words.END].clone()
    bias[grit_words.END] = usual if end_bias is None else end_bias
    yield describe
    bias[grit_words.END] = usual


def official_tokens(row: list[int], task: Task) -> list[int]:
    """A text's tokens without the first, which the official code leaves out where all texts are empty."""
    return row[1:] if row[0] == BEGIN[task] else row


@torch.inference_mode()
def assert_written_alike(describe: Describer, size: str, case: str) -> None:
    """Texts, tokens and their log-probabilities, of all boxes and both tasks."""
    official = GOLDEN[size]["cases"][case]
    features = torch.from_numpy(grit_text.features(len(official["DenseCap"]["texts"])))
    memory = describe.decoder.read(features)
    for task in TASKS:
        tokens_NT, logprobs_N = describe.decoder.write(memory, task)
        assert [describe.words(row) for row in tokens_NT.tolist()] == official[task]["texts"]
        rows = zip(tokens_NT.tolist(), length(tokens_NT).tolist(), official[task]["tokens"], strict=True)
        for row, n, expected in rows:
            assert row[:n] == official_tokens(expected, task)[:n]
            assert set(official_tokens(expected, task)[n:]) <= {grit_words.END}
        assert logprobs_N.tolist() == pytest.approx(official[task]["logprobs"], rel=0, abs=LOGPROBS)


@torch.inference_mode()
def worst_logit(describe: Describer, size: str, case: str) -> float:
    """The largest difference among the watched logits, and of their normaliser, when the official tokens are read."""
    worst = 0.0
    features = torch.from_numpy(grit_text.features(grit_text.WATCHED_BOXES))
    memory = describe.decoder.read(features)
    for task in TASKS:
        official = GOLDEN[size]["cases"][case][task]
        written = [official_tokens(row, task) for row in official["tokens"][: grit_text.WATCHED_BOXES]]
        columns = [[BEGIN[task]] * len(written), *map(list, zip(*written, strict=True))]
        watched = [step for step in grit_text.WATCHED_STEPS if step < len(columns) - 1]
        assert len(watched) == len(official["logits"])
        past: Any = []
        for position, column in enumerate(columns[:-1]):
            logits, past = describe.decoder.step(torch.tensor(column), position, memory, past)
            if position in watched:
                at = watched.index(position)
                ours = logits[:, list(grit_text.WATCHED_WORDS)].numpy()
                sums = logits.logsumexp(dim=1).numpy()
                worst = max(
                    worst,
                    float(np.abs(ours - official["logits"][at]).max()),
                    float(np.abs(sums - official["logsumexp"][at]).max()),
                )
    return worst


@shallow_cases
def test_shallow_decoder_writes_as_the_official_one(case: str, shallow: Describer) -> None:
    with ending(shallow, case) as describe:
        assert_written_alike(describe, "shallow", case)


@shallow_cases
def test_shallow_logits_are_the_official_ones(case: str, shallow: Describer) -> None:
    with ending(shallow, case) as describe:
        assert worst_logit(describe, "shallow", case) < LOGITS


def test_boxes_are_described_as_officially(shallow: Describer) -> None:
    official = GOLDEN["shallow"]["cases"]["usual"]
    features = torch.from_numpy(grit_text.features(grit_text.BOXES["shallow"]))
    assert shallow(features, TASKS) == {task: official[task]["texts"] for task in TASKS}


def test_official_texts_tell_boxes_and_tasks_apart() -> None:
    """Parity proves something only if the recipe's decoder sees the picture and is told the task."""
    for size in grit_text.LAYERS:
        names, descriptions = (GOLDEN[size]["cases"]["usual"][task]["texts"] for task in TASKS)
        assert len(set(names)) > 2
        assert names != descriptions


def test_official_texts_end_in_every_way() -> None:
    cases = GOLDEN["shallow"]["cases"]
    assert all(len(row) == 40 and grit_words.END not in row for row in cases["endless"]["DenseCap"]["tokens"])
    assert cases["empty"]["DenseCap"]["texts"] == ["", ""]
    assert len({len(text.split()) for text in cases["usual"]["ObjectDet"]["texts"]}) > 1


def test_pieces_are_joined_as_officially(shallow: Describer) -> None:
    assert [shallow.words(tokens) for tokens in grit_text.token_sequences()] == GOLDEN["joined"]


@pytest.mark.slow
def test_full_decoder_writes_as_the_official_one(tmp_path: Path) -> None:
    describe = load("full", tmp_path)
    assert_written_alike(describe, "full", "usual")
    assert worst_logit(describe, "full", "usual") < LOGITS


# The four dimensions


def judge(dimension: str) -> dict[str, Score]:
    """Every scene's score, by number, with the prompts' auxiliary entries read as the official list gives them."""
    metric = find(dimension, "official")
    scenes = grit_scenes.scenes(dimension)
    suite = PromptSuite(
        "scenes",
        tuple(Prompt(str(i), s.prompt, (dimension,), {dimension: s.auxiliary}) for i, s in enumerate(scenes)),
        "made up",
    )
    scores = {}
    for scene, prompt in zip(scenes, equip(suite, [metric]).prompts, strict=True):
        clip = Clip(VideoInfo(120, 120, 16, 8.0, "none", "rgb24"), prompt.text, prompt.auxiliary)
        scores[prompt.id] = metric.score(clip, {metric.features[0].name: detections(rows(scene, dimension))})
    return scores


def rows(scene: grit_scenes.Scene, dimension: str) -> Iterator[Any]:
    for frame, found in enumerate(scene.frames):
        for text, box, name in found:
            yield frame, box, 0.9, found[0][2] if dimension == "color" else name, text


@pytest.mark.parametrize("dimension", grit_scenes.DIMENSIONS)
def test_dimensions_judge_as_the_official_ones(dimension: str) -> None:
    official = GOLDEN["dimensions"][dimension]
    assert grit_scenes.identity(dimension) == official["scenes"]
    scores = judge(dimension)
    ours = {i: score.value for i, score in scores.items() if score.value is not None}
    assert ours == pytest.approx(official["videos"], rel=0, abs=1e-12)
    terms = [float(scores[i].n_terms) for i in ours] if find(dimension, "official").pooling == "frames" else None
    pooled = np.average(list(ours.values()), weights=terms)
    assert pooled == pytest.approx(official["score"], rel=0, abs=1e-12)


def test_official_judgements_are_of_many_kinds() -> None:
    for dimension, official in GOLDEN["dimensions"].items():
        values = official["videos"].values()
        assert len(set(values)) > 6, dimension
        assert (len(values) < grit_scenes.CLIPS) == (dimension == "color")
    fractions = [16 * value % 1 for value in GOLDEN["dimensions"]["spatial_relationship"]["videos"].values()]
    assert any(fraction > 1e-6 for fraction in fractions), "some overlap counts"


def test_the_official_code_stops_at_boxes_without_a_pixel() -> None:
    assert GOLDEN["without_area"] == "ZeroDivisionError"
