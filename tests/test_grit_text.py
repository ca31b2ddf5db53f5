"""GRiT's text decoder, against a plain version that reads picture and text anew for every word."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evalkit.backbones import _grit_text
from evalkit.backbones._grit_text import (
    BEGIN,
    END,
    MAX_TOKENS,
    Block,
    Describer,
    Task,
    TextDecoder,
    TextShape,
    drop_copies,
    length,
    prepare,
)
from evalkit.backbones.base import Runtime
from evalkit.backbones.bert_vocab import join_pieces
from evalkit.errors import UserError
from evalkit.weights import Checkpoint, WeightStore, load_strict
from tests.networks import randomize
from tests.parity import grit_words

SHAPE = TextShape(features=24, width=48, layers=3, heads=4, hidden=96, words=1_040, positions=48)
CELLS = 9
TASKS: tuple[Task, ...] = ("ObjectDet", "DenseCap")
CHECKPOINT = Checkpoint("grit", "grit.pth", "", 0, "", "")


def decoder(end_bias: float = 6.0) -> TextDecoder:
    """A small decoder with sharp attention whose texts end after a few tokens, depending on the picture."""
    network = TextDecoder(SHAPE)
    randomize(network, seed=5)
    with torch.no_grad():
        for block in network.blocks:
            for name in ("query", "key"):
                block.attention["self"][name].weight.mul_(3)
        network.embedding.words.weight.mul_(SHAPE.width**0.5 / 3)
        network.output.bias[list(BEGIN.values())] = -30.0
        network.output.bias[END] = end_bias
    return network


def pictures(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shapes = (count, 1, SHAPE.features), (count, CELLS, SHAPE.features)
    return sum(torch.randn(shape, generator=generator) for shape in shapes)


def plain_logits(network: TextDecoder, picture_SD: Tensor, tokens: list[int]) -> Tensor:
    """Logits after `tokens`, the whole sequence [picture | text] through every block at once, one head at a time."""
    text = network.embedding.words.weight[tokens] + network.embedding.positions.weight[: len(tokens)]
    x = torch.cat([network.object_feature_projection(picture_SD), network.embedding.layer_norm(text)])
    sees = torch.ones(len(x), len(x)).tril().bool()
    sees[:CELLS, :CELLS] = True
    for block in network.blocks:
        x = plain_block(block, x, sees)
    return F.linear(x[-1], network.embedding.words.weight, network.output.bias)


def plain_block(block: Block, x: Tensor, sees: Tensor) -> Tensor:
    project = block.attention["self"]
    width = SHAPE.width // SHAPE.heads
    heads = []
    for h in range(SHAPE.heads):
        q, k, v = (project[name](x)[:, h * width : (h + 1) * width] for name in ("query", "key", "value"))
        heads.append((q @ k.T / width**0.5).masked_fill(~sees, -torch.inf).softmax(dim=-1) @ v)
    mixed = block.attention["output"]
    x = mixed.LayerNorm(mixed.dense(torch.cat(heads, dim=1)) + x)
    return block.output.LayerNorm(block.output.dense(F.gelu(block.intermediate["dense"](x))) + x)


def plain_text(network: TextDecoder, picture_SD: Tensor, task: Task) -> tuple[list[int], float]:
    """The most probable tokens and the mean of their log-probabilities."""
    tokens, total = [BEGIN[task]], 0.0
    while len(tokens) < MAX_TOKENS and tokens[-1] != END:
        logits = plain_logits(network, picture_SD, tokens)
        if len(tokens) > 1:
            logits[tokens[-1]] = -10_000
        best, token = logits.log_softmax(dim=0).max(dim=0)
        tokens.append(int(token))
        total += float(best)
    return tokens[1:], total / (len(tokens) - 1)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("end_bias", [6.0, 50.0, -50.0], ids=["usual", "empty", "endless"])
def test_texts_written_out(task: Task, end_bias: float) -> None:
    network, features = decoder(end_bias), pictures(9)
    tokens_NT, logprobs_N = network.write(network.read(features), task)
    assert tokens_NT.shape == (9, MAX_TOKENS - 1)
    lengths = length(tokens_NT).tolist()
    assert end_bias != 6.0 or len(set(lengths)) > 2, "texts of several lengths, or nothing is dropped on the way"
    for i, (tokens, logprob) in enumerate(zip(tokens_NT.tolist(), logprobs_N.tolist(), strict=True)):
        expected, mean = plain_text(network, features[i], task)
        assert tokens[: lengths[i]] == expected
        assert set(tokens[lengths[i] :]) <= {END}
        assert logprob == pytest.approx(mean, abs=1e-5)


def test_no_token_follows_itself() -> None:
    network = decoder(-50.0)
    tokens_NT, _ = network.write(network.read(pictures(6)), "DenseCap")
    assert (tokens_NT[:, 1:] != tokens_NT[:, :-1]).all()


def test_texts_depend_on_picture_and_task() -> None:
    network = decoder()
    memory = network.read(pictures(8))
    names, descriptions = (network.write(memory, task)[0] for task in TASKS)
    assert len({tuple(row) for row in names.tolist()}) > 4
    assert not torch.equal(names, descriptions)


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(7)), kept=st.integers(1, 7))
def test_a_text_does_not_depend_on_the_other_boxes(order: list[int], kept: int) -> None:
    network, features = decoder(), pictures(7)
    tokens_NT, logprobs_N = network.write(network.read(features), "DenseCap")
    some = order[:kept]
    tokens, logprobs = network.write(network.read(features[some]), "DenseCap")
    assert torch.equal(tokens, tokens_NT[some])
    torch.testing.assert_close(logprobs, logprobs_N[some], atol=1e-5, rtol=0)


class Pieces:
    """Stands in for the tokenizer: the words of a list."""

    def convert_ids_to_tokens(self, tokens: list[int], skip_special_tokens: bool) -> list[str]:
        words = grit_words.vocabulary()
        return [words[token] for token in tokens if not (skip_special_tokens and token in grit_words.SPECIAL)]


def describer() -> Describer:
    return Describer(decoder(), Pieces())  # type: ignore[arg-type]


@pytest.mark.parametrize("at_once", [1, 2, 5, 32])
def test_how_many_are_described_at_once_does_not_matter(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = describer()(pictures(7), TASKS)
    monkeypatch.setattr(_grit_text, "BOXES", at_once)
    assert describer()(pictures(7), TASKS) == expected


def test_tasks_come_back_by_name() -> None:
    describe, features = describer(), pictures(3)
    both = describe(features, TASKS)
    assert list(both) == list(TASKS)
    assert describe(features, ("DenseCap",)) == {"DenseCap": both["DenseCap"]}
    assert all(isinstance(text, str) for texts in both.values() for text in texts)


def test_no_boxes_have_no_texts() -> None:
    assert describer()(pictures(0), TASKS) == {"ObjectDet": [], "DenseCap": []}


def test_a_text_that_ends_at_once_is_empty() -> None:
    describe = Describer(decoder(50.0), Pieces())  # type: ignore[arg-type]
    assert describe(pictures(2), ("ObjectDet",)) == {"ObjectDet": ["", ""]}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_prepared_networks_write_alike(precision: str) -> None:
    network, features = decoder(), pictures(4)
    expected, _ = network.write(network.read(features), "DenseCap")
    exact = network.step(torch.full((4,), 101), 0, network.read(features), [])[0]
    prepare(network, Runtime(precision=precision))  # type: ignore[arg-type]
    logits, _ = network.step(torch.full((4,), 101), 0, network.read(features), [])
    assert logits.dtype == torch.float32
    if precision == "fp32":
        torch.testing.assert_close(logits, exact, atol=1e-5, rtol=0)
        assert torch.equal(network.write(network.read(features), "DenseCap")[0], expected)
    else:
        assert not torch.equal(logits, exact)
        assert torch.nn.functional.cosine_similarity(logits, exact).min() > 0.99


# Words


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["a", "sky", "##scrap", "##er"], "a skyscraper"),
        (["a", "man", "'", "s", "hat", "."], "a man's hat."),
        (["it", "'s", "red", ",", "is", "##n't", "it", "?"], "it's red, isn't it?"),
        (["do", "n't"], "don't"),
        (["##ing"], "##ing"),
        ([], ""),
    ],
)
def test_pieces_are_joined(pieces: list[str], text: str) -> None:
    assert join_pieces(pieces) == text


# Checkpoints


def table(copies: bool) -> dict[str, Tensor]:
    """A checkpoint's table under full names, with or without the tensors that stand in it twice."""
    own = {f"roi_heads.text_decoder.textual.{name}": tensor for name, tensor in decoder().state_dict().items()}
    own["backbone.net.norm.weight"] = torch.ones(3)
    if copies:
        own["roi_heads.text_decoder.textual.output.weight"] = own[
            "roi_heads.text_decoder.textual.embedding.words.weight"
        ].clone()
        own |= {
            name.replace("text_decoder", "text_decoder_det"): tensor.clone()
            for name, tensor in own.items()
            if "text_decoder" in name
        }
    return own


def test_copies_are_dropped() -> None:
    assert drop_copies(table(copies=True), CHECKPOINT).keys() == table(copies=False).keys()
    assert drop_copies(table(copies=False), CHECKPOINT).keys() == table(copies=False).keys()


@pytest.mark.parametrize(
    "name",
    [
        "roi_heads.text_decoder.textual.output.weight",
        "roi_heads.text_decoder_det.textual.output.weight",
        "roi_heads.text_decoder_det.textual.transformer.encoder.layer.1.intermediate.dense.bias",
    ],
)
def test_a_copy_that_differs_is_refused(name: str) -> None:
    tensors = table(copies=True)
    tensors[name][0] += 1
    with pytest.raises(UserError, match=name):
        drop_copies(tensors, CHECKPOINT)


def test_a_copy_without_an_original_is_refused() -> None:
    tensors = table(copies=True)
    del tensors["roi_heads.text_decoder.textual.output.bias"]
    with pytest.raises(UserError, match=r"output\.bias"):
        drop_copies(tensors, CHECKPOINT)


@pytest.mark.parametrize("fault", ["missing", "surplus", "shape"])
def test_tensors_that_do_not_fit_are_refused(fault: str, tmp_path: Path) -> None:
    tensors = decoder().state_dict()
    if fault == "missing":
        del tensors["output.bias"]
    elif fault == "surplus":
        tensors["transformer.encoder.layer.3.output.dense.bias"] = torch.zeros(48)
    else:
        tensors["embedding.positions.weight"] = torch.zeros(40, 48)
    torch.save({"model": tensors}, tmp_path / CHECKPOINT.file)
    with torch.device("meta"):
        network = TextDecoder(SHAPE)
    with pytest.raises(UserError, match="does not fit TextDecoder"):
        load_strict(network, WeightStore(tmp_path).state_dict(CHECKPOINT), CHECKPOINT)
