"""Tag2Text: beam search by hand, the decoder with and without its memory, tags, frames, and files that do not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from evalkit.backbones import tag2text
from evalkit.backbones._beam import Rules, beam_search
from evalkit.backbones._captioner import TextDecoder, Writing
from evalkit.backbones.base import Runtime
from evalkit.backbones.bert_vocab import BERT_VOCAB, load_tokenizer
from evalkit.backbones.features import TAG2TEXT
from evalkit.backbones.tag2text import (
    CHECKPOINT,
    FRAMES,
    MEAN,
    PROMPT,
    STD,
    TAGS,
    UNTOLD_TAGS,
    Captioner,
    ClipCaptions,
    Shape,
    Tag2Text,
    chosen_frames,
    found_tags,
    preprocess,
    tag_names,
)
from evalkit.errors import UserError
from evalkit.job import Request
from evalkit.metrics.scene import METRIC
from evalkit.runner import score_folder
from evalkit.types import Clip, Frames, VideoInfo
from evalkit.video import probe, read
from evalkit.weights import MissingWeights, WeightStore
from tests.networks import randomize
from tests.parity.tag2text_files import write_vocabulary

CLIPS = Path(__file__).parent / "parity" / "clips"
RNG = np.random.default_rng(5)
TINY = Shape(
    image_width=16,
    image_blocks=(1, 2, 1, 1),
    image_heads=(1, 2, 4, 8),
    width=48,
    heads=4,
    tagging_heads=2,
    encoder_layers=3,
    decoder_layers=2,
)
END, A, B, C = range(4)
"""Words for searches by hand."""


@cache
def tiny_tensors() -> dict[str, Tensor]:
    network = Tag2Text(TINY)
    randomize(network, seed=1)
    network.tagging.b.fill_(-2.0)  # a few tags in a hundred
    network.text_decoder.bias[102] = 3.0  # captions end
    return network.state_dict()


def tiny() -> Tag2Text:
    """A small network, always the same."""
    network = Tag2Text(TINY)
    network.load_state_dict(tiny_tensors())
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary")
    write_vocabulary(folder)
    return folder


@pytest.fixture
def captioner(vocabulary: Path) -> Captioner:
    return Captioner(tiny(), load_tokenizer(WeightStore(vocabulary, trust_archives=True)), Runtime())


def frames(count: int, height: int = 384, width: int = 384) -> Frames:
    return RNG.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


# Beam search


class Chain:
    """Next-token probabilities that depend on the last token alone; where none are given, all are alike."""

    def __init__(self, probabilities: Mapping[int, Mapping[int, float]]) -> None:
        self.logits_VV = torch.zeros(40, 40)
        for last, following in probabilities.items():
            self.logits_VV[last] = -30.0
            for token, probability in following.items():
                self.logits_VV[last, token] = np.log(probability)

    def __call__(self, tokens_BSN: Tensor, parents_BS: Tensor | None) -> Tensor:
        return self.logits_VV[tokens_BSN[..., -1]]


def search(chain: Chain, beams: int, shortest: int, longest: int) -> list[int]:
    return beam_search(chain, [A], 1, Rules(beams, shortest, longest, END))[0]


def test_two_beams_see_past_a_likely_word_that_leads_nowhere() -> None:
    # a b . has 0.6 x 0.3, a c . has 0.4 x 1.0.
    chain = Chain({A: {B: 0.6, C: 0.4}, B: {END: 0.3, A: 0.35, B: 0.35}, C: {END: 1.0}})
    assert search(chain, beams=2, shortest=1, longest=3) == [A, C]


def test_the_prompt_counts_towards_the_length() -> None:
    # By tokens with the prompt: "a" has ln 0.5 / 1 = -0.69, "a b" ln 0.3 / 2 = -0.60. Without it, "a" would win.
    chain = Chain({A: {END: 0.5, B: 0.3, C: 0.2}, B: {END: 1.0}, C: {A: 0.5, B: 0.5}})
    assert search(chain, beams=2, shortest=1, longest=6) == [A, B]


def test_no_end_before_the_shortest_length_and_none_after_the_longest() -> None:
    chain = Chain({A: {END: 0.9, B: 0.1}, B: {END: 0.9, A: 0.1}})
    assert search(chain, beams=2, shortest=4, longest=9) == [A, B, A, B]
    endless = Chain({A: {B: 0.8, C: 0.2}, B: {A: 0.9, C: 0.1}, C: {C: 0.9, B: 0.1}})
    assert search(endless, beams=2, shortest=1, longest=5) == [A, B, A, B, A]


def test_an_end_behind_the_first_beams_is_passed_over() -> None:
    # The end is third: "a" ranks ln 0.32 = -1.1, "a b x" (ln 0.34 + ln 1/40) / 3 = -1.6, yet two beams do not see it.
    chain = Chain({A: {B: 0.34, C: 0.34, END: 0.32}})
    assert search(chain, beams=3, shortest=1, longest=3) == [A]
    assert len(search(chain, beams=2, shortest=1, longest=3)) == 3


def test_frames_are_searched_each_for_itself() -> None:
    early = Chain({A: {END: 1.0}, B: {END: 1.0}})
    late = Chain({A: {B: 1.0}, B: {C: 1.0}, C: {C: 1.0}})

    def both(tokens_BSN: Tensor, parents_BS: Tensor | None) -> Tensor:
        return torch.cat([early(tokens_BSN[:1], None), late(tokens_BSN[1:], None)])

    rules = Rules(2, 2, 6, END)
    assert beam_search(both, [A], 2, rules) == [search(early, 2, 2, 6), search(late, 2, 2, 6)]


class Forgetful:
    """The decoder as the official package runs it: every beam read anew from its first token at each step."""

    def __init__(self, decoder: TextDecoder, memory_BMD: Tensor) -> None:
        self.decoder, self.memory_BMD = decoder, memory_BMD
        self.read_BSN = torch.zeros(0)

    def __call__(self, tokens_BSN: Tensor, parents_BS: Tensor | None) -> Tensor:
        if parents_BS is not None:
            before = self.read_BSN.gather(1, parents_BS[..., None].expand(-1, -1, self.read_BSN.shape[-1]))
            tokens_BSN = torch.cat([before, tokens_BSN], dim=2)
        self.read_BSN = tokens_BSN
        rows = [
            Writing(self.decoder, self.memory_BMD[frame : frame + 1])(beam_N[None, None], None)
            for frame, beams_SN in enumerate(tokens_BSN)
            for beam_N in beams_SN
        ]
        return torch.cat(rows).unflatten(0, tokens_BSN.shape[:2])[:, :, 0]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), n_frames=st.integers(1, 3))
def test_what_is_kept_between_steps_changes_nothing(seed: int, n_frames: int) -> None:
    torch.manual_seed(seed)
    decoder = TextDecoder(layers=2, heads=4, vocabulary=40, width=24)
    randomize(decoder, seed)
    decoder.bias[3] = 1.5
    memory_BMD = torch.randn(n_frames, 7, 24)
    rules = Rules(beams=3, shortest=6, longest=14, end=3)
    kept = beam_search(Writing(decoder, memory_BMD), [5, 6, 7], n_frames, rules)
    assert kept == beam_search(Forgetful(decoder, memory_BMD), [5, 6, 7], n_frames, rules)


# Tags and text


def test_tags_above_the_threshold_are_told_but_for_numbers() -> None:
    logits_BG = torch.full((2, TAGS), -5.0)
    at_threshold = float(np.log(0.7 / 0.3))
    logits_BG[0, 3], logits_BG[0, 40], logits_BG[0, 41] = at_threshold + 1e-3, 4.0, at_threshold - 1e-3
    logits_BG[:, UNTOLD_TAGS] = 9.0
    assert found_tags(logits_BG) == [[tag_names()[3], tag_names()[40]], []]
    assert {tag_names()[index] for index in UNTOLD_TAGS} == {"quarter", "one", "two", "three", "four", "five"}


def test_padding_is_read_by_no_word(captioner: Captioner) -> None:
    image_BPD = torch.randn(1, 145, 128)
    tokens_BN, real_BN = torch.tensor([[30523, 7, 9, 102, 0, 0]]), torch.tensor([[1, 1, 1, 1, 0, 0]])
    encoder = captioner.network.tag_encoder
    other_BN = tokens_BN.clone()
    other_BN[:, 4:] = 55
    with torch.inference_mode():
        read, other = encoder(tokens_BN, real_BN, image_BPD), encoder(other_BN, real_BN, image_BPD)
    assert torch.equal(read[:, :4], other[:, :4])
    assert not torch.equal(read[:, 4:], other[:, 4:])


def test_a_long_list_of_tags_is_cut_and_an_empty_one_is_padded(captioner: Captioner) -> None:
    memory_BND = captioner.read_tags([list(tag_names()[:100]), []], torch.randn(2, 145, 128))
    assert memory_BND.shape == (2, 40, 48)


def test_captions_start_with_the_prompt_and_hide_it(captioner: Captioner) -> None:
    with torch.inference_mode():
        tokens = captioner.write(torch.randn(2, 40, 48))
    for caption in tokens:
        assert captioner.tokenizer.decode(caption[1:4]) == PROMPT.strip()
        assert caption[0] == captioner.caption_begins == 30_522
        assert 10 <= len(caption) <= 30
        assert captioner.end not in caption
    assert captioner._text([30_522, *tokens[0][1:4]]) == ""


def test_batches_do_not_matter(captioner: Captioner) -> None:
    clip_THWC = frames(3)
    captioner.runtime = Runtime(batch=3)
    together = captioner(clip_THWC)
    captioner.runtime = Runtime(batch=2)
    assert captioner(clip_THWC) == together
    assert len(set(together)) > 1, "the network must see the pictures"


# Frames


@given(st.integers(1, 2000))
def test_the_first_six_of_sixteen_middle_frames(n_frames: int) -> None:
    edges = np.linspace(0, n_frames, min(n_frames, FRAMES) + 1).astype(int)
    middles = [int((start + end - 1) // 2) for start, end in pairwise(edges)]
    padded = middles + middles[-1:] * FRAMES
    assert chosen_frames(n_frames) == padded[:6]


def test_frames_of_the_right_size_are_only_normed() -> None:
    frames_THWC = frames(2)
    expected = (frames_THWC.astype(np.float64) / 255 - MEAN) / STD
    np.testing.assert_allclose(preprocess(frames_THWC, "cpu").permute(0, 2, 3, 1), expected, atol=1e-6)


def test_frames_of_a_gif_are_scaled_by_pillow() -> None:
    frames_THWC = frames(2, 30, 50)
    resized = [Image.fromarray(f).resize((384, 384), Image.Resampling.BILINEAR) for f in frames_THWC]
    assert torch.equal(preprocess(frames_THWC, "cpu"), preprocess(np.stack([np.asarray(i) for i in resized]), "cpu"))


@pytest.mark.parametrize("n_frames", [1, 2, 17])
def test_every_clip_gets_sixteen_captions(captioner: Captioner, n_frames: int) -> None:
    clip = Clip(VideoInfo(384, 384, n_frames, 8.0, "h264", "yuv420p"), "", {"scene": {"scene": "a b"}})
    reader = tag2text.SelectedFrames(chosen_frames, ClipCaptions(captioner)).open(clip)
    reader.push(0, frames(n_frames))
    captions = reader.close()
    assert captions.shape == (FRAMES,)
    assert all(captions[3 * i] == captions[3 * i + 1] == captions[3 * i + 2] for i in range(5))
    verdict = METRIC.score(clip, {TAG2TEXT.name: captions})
    assert verdict.value is not None
    assert 0 <= verdict.value <= 1
    assert verdict.n_terms == FRAMES


# Files


def official() -> dict[str, Tensor]:
    """The small network's tensors under the checkpoint's names."""
    tensors = {}
    for name, tensor in tiny_tensors().items():
        for own, theirs in (
            ("image.layers.1.downsample", "visual_encoder.layers.0.downsample"),
            ("image.layers.2.downsample", "visual_encoder.layers.1.downsample"),
            ("image.layers.3.downsample", "visual_encoder.layers.2.downsample"),
            ("image.", "visual_encoder."),
            ("tagging.labels.", "label_embed."),
            ("tagging.layers.", "vision_multi.layers."),
            ("tagging.", "fc."),
            ("text_decoder.layers", "text_decoder.bert.layers"),
            ("text_decoder.embeddings", "text_decoder.bert.embeddings"),
            ("text_decoder.dense", "text_decoder.cls.predictions.transform.dense"),
            ("text_decoder.norm", "text_decoder.cls.predictions.transform.LayerNorm"),
            ("text_decoder.bias", "text_decoder.cls.predictions.bias"),
        ):
            if name.startswith(own):
                name = theirs + name.removeprefix(own)
                break
        if not name.startswith("visual_encoder."):
            for own, theirs in (
                (".layers.", ".encoder.layer."),
                (".mlp.fc_1.", ".intermediate.dense."),
                (".mlp.fc_2.", ".output.dense."),
                (".mlp.norm.", ".output.LayerNorm."),
                ("attention.out.", "attention.output.dense."),
                ("attention.norm.", "attention.output.LayerNorm."),
                ("embeddings.norm.", "embeddings.LayerNorm."),
                *((f"attention.{part}.", f"attention.self.{part}.") for part in ("query", "key", "value")),
            ):
                name = name.replace(own, theirs)
        tensors[name] = tensor
    return tensors


def save(folder: Path, tensors: Mapping[str, Tensor]) -> WeightStore:
    path = folder / CHECKPOINT.file
    path.parent.mkdir(parents=True)
    torch.save({"model": dict(tensors), "optimizer": {"state": {}}, "epoch": 1}, path)
    write_vocabulary(folder)
    return WeightStore(folder, trust_archives=True)


@pytest.fixture
def build_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tag2text, "Tag2Text", partial(Tag2Text, TINY))


@pytest.mark.usefixtures("build_tiny")
def test_a_network_comes_back_from_its_file_and_outlives_it(tmp_path: Path) -> None:
    tensors = official() | {"tag_encoder.embeddings.position_ids": torch.arange(512)[None]}
    store = save(tmp_path, tensors)
    captioner = tag2text.load_captioner(store, Runtime())
    (tmp_path / CHECKPOINT.file).write_bytes(b"another file by now")
    clip_THWC = frames(2)
    again = Captioner(tiny(), load_tokenizer(store), Runtime())
    assert captioner(clip_THWC) == again(clip_THWC)


@pytest.mark.usefixtures("build_tiny")
def test_shared_tensors_are_read_where_they_stand_last(tmp_path: Path) -> None:
    tensors = official()
    shared = "encoder.layer.1.output.dense.weight"
    tensors[f"tag_encoder.{shared}"] = torch.zeros_like(tensors[f"tag_encoder.{shared}"])
    words = tensors.pop("text_decoder.bert.embeddings.word_embeddings.weight")
    tensors = {"text_decoder.bert.embeddings.word_embeddings.weight": torch.zeros_like(words), **tensors}
    tensors["text_decoder.cls.predictions.decoder.weight"] = words
    network = Tag2Text(TINY)
    tag2text.load_weights(network, save(tmp_path, tensors))
    assert all(torch.equal(tensor, tiny_tensors()[name]) for name, tensor in network.state_dict().items())


@pytest.mark.usefixtures("build_tiny")
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"fc.W": None}, "tagging.W is missing"),
        ({"fc.W": torch.zeros(1, 7, 48)}, r"tagging.W is \(1, 7, 48\)"),
        ({"momentum.weight": torch.zeros(2)}, "momentum.weight does not belong there"),
    ],
)
def test_another_networks_file_is_refused(tmp_path: Path, change: Mapping[str, Tensor | None], complaint: str) -> None:
    tensors = {name: tensor for name, tensor in (official() | change).items() if tensor is not None}
    with pytest.raises(UserError, match=complaint):
        tag2text.load_captioner(save(tmp_path, tensors), Runtime())


@pytest.mark.usefixtures("build_tiny")
def test_a_run_shows_it_the_frames_that_decord_scales(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, videos, suite, seen = save(tmp_path, official()), tmp_path / "videos", tmp_path / "suite.jsonl", []
    videos.mkdir()
    path = shutil.copy(CLIPS / "large.mp4", videos / "p-0.mp4")
    suite.write_text(json.dumps({"id": "p", "text": "at sea", "auxiliary": {"scene": {"scene": "sea"}}}) + "\n")
    read_pixels = tag2text.preprocess
    monkeypatch.setattr(tag2text, "preprocess", lambda x, device: (seen.append(x), read_pixels(x, device))[1])
    request = Request(videos, str(suite), tmp_path / "run", "official", ("scene",), store.root, trust_archives=True)
    summary = score_folder(request).summary
    assert summary["dimensions"]["scene"]["n"] == 1
    scaled_THWC = np.concatenate([c.colours("decord", (384, 384)) for c in read(path, probe(path), sizes=[(384, 384)])])
    assert np.array_equal(np.concatenate(seen), scaled_THWC[chosen_frames(len(scaled_THWC))])


def test_a_missing_vocabulary_and_a_wrong_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match="bert-vocab"):
        load_tokenizer(WeightStore(tmp_path))
    path = tmp_path / BERT_VOCAB.file
    path.parent.mkdir()
    path.write_text("a\nb\n")
    with pytest.raises(UserError, match="sha256"):
        load_tokenizer(WeightStore(tmp_path))
    with pytest.raises(UserError, match="not the vocabulary"):
        load_tokenizer(WeightStore(tmp_path, trust_archives=True))


def test_declared_files() -> None:
    assert TAG2TEXT.checkpoints == (CHECKPOINT, BERT_VOCAB)
    assert TAG2TEXT.size == (384, 384)
    assert len(tag_names()) == TAGS
