"""Text encoders: padding, hashing, the null prompt; T5 with CLIP as small random networks against transformers."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from m4v.text import (
    Encoding,
    EncodingCache,
    PretrainedText,
    TextConfig,
    TextEncoder,
    TokenEncoder,
    make_text,
    word_hash,
    words,
)

CAPTIONS = ["a red square moves left", "", "two blue circles", "the camera pans up over a green star"]
SMALL = TextConfig(tokens=10, width=32, pooled_width=16, layers=2, heads=4)
LEXICON = ("a", "red", "square", "moves", "left", "blue")


def build(config: TextConfig = SMALL) -> TextEncoder:
    torch.manual_seed(0)
    return make_text(config)


# --- words and hashes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A red Square, moving left.", ["a", "red", "square", "moving", "left"]),
        ("slow-motion of the dog's tail", ["slow-motion", "of", "the", "dog's", "tail"]),
        ("ＦＵＬＬ ｗｉｄｔｈ", ["full", "width"]),
        ("été 北京 2 x3", ["été", "北京", "2", "x3"]),
        ("  ... !? _ ", []),
    ],
)
def test_words(caption: str, expected: list[str]) -> None:
    assert words(caption) == expected


@given(st.text(max_size=40))
def test_words_are_words_of_their_own(caption: str) -> None:
    """Reading the found words once more finds the same."""
    assert words(" ".join(words(caption))) == words(caption)


def test_hash_is_blake2b_and_the_same_on_every_machine() -> None:
    """`printf red | b2sum -l 128` prints this digest; its halves are numbers in little endian."""
    digest = bytes.fromhex("c8474a914a6e277e86f81f27dc4b2f96")
    assert word_hash("red", 2, 1024) == [int.from_bytes(half, "little") % 1024 for half in (digest[:8], digest[8:])]


def test_hashes_spread_evenly() -> None:
    """Chi-square of 20,000 words over 64 buckets, 63 degrees of freedom: below 120 but once in 30,000 hashes."""
    counts = torch.zeros(2, 64)
    for i in range(20_000):
        for j, bucket in enumerate(word_hash(f"word{i}", 2, 64)):
            counts[j, bucket] += 1
    expected = 20_000 / 64
    assert ((counts - expected).square().sum(1) / expected < 120).all()


def test_no_two_words_of_a_large_caption_vocabulary_are_confused() -> None:
    vocabulary = {f"{a}{b}" for a, b in itertools.product("abcdefgh", "mnopqrst")}
    assert len({tuple(sorted(word_hash(word, 2, 1024))) for word in vocabulary}) == 64


# --- the trainable encoder --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [SMALL, SMALL.but(vocabulary="lexicon", lexicon=LEXICON), SMALL.but(layers=0)])
def test_shapes_mask_and_zeros_behind_the_end(config: TextConfig) -> None:
    text = build(config)(CAPTIONS)
    assert text.tokens_BLE.shape == (4, 10, 32)
    assert text.pooled_BP.shape == (4, 16)
    assert text.mask_BL.sum(1).tolist() == [5, 1, 3, 8]
    assert bool(text.mask_BL[:, 0].all())
    assert not bool(text.tokens_BLE[~text.mask_BL].any())
    assert bool(text.tokens_BLE.isfinite().all())


caption_lists = st.lists(
    st.lists(st.sampled_from(["red", "blue", "star", "moves", "left"]), max_size=10).map(" ".join),
    min_size=1,
    max_size=6,
)


@given(captions=caption_lists)
@settings(max_examples=30, deadline=None)
def test_an_encoding_does_not_depend_on_its_batch(captions: list[str]) -> None:
    """Each caption alone and among others, within 1e-6 of values about 1."""
    encoder = build()
    together = encoder(captions)
    for i, caption in enumerate(captions):
        alone = encoder([caption])
        for one, many in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], many[i], rtol=0, atol=1e-6)


def test_an_encoding_does_not_depend_on_the_padding() -> None:
    """The same weights with room for 10 and for 40 tokens, within 1e-6."""
    short, long = build(), build(SMALL.but(tokens=40))
    long.load_state_dict(short.state_dict())
    for a, b in zip(short(CAPTIONS), long(CAPTIONS), strict=True):
        torch.testing.assert_close(a, b[:, :10] if b.shape[1] == 40 else b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("null", ["", "  ", "?!"])
def test_null_prompt_is_one_trained_token_of_its_own(null: str) -> None:
    encoder = build()
    text = encoder([null])
    assert text.mask_BL.tolist() == [[True] + [False] * 9]
    torch.testing.assert_close(text.tokens_BLE, encoder([""]).tokens_BLE, rtol=0, atol=0)
    text.pooled_BP.square().sum().backward()
    assert isinstance(encoder, TokenEncoder)
    assert encoder.embedding.weight.grad is not None
    assert encoder.embedding.weight.grad.abs().sum(1).nonzero().flatten().tolist() == [0]


@torch.no_grad()
def test_order_matters_and_words_matter() -> None:
    encoder = build()
    text = encoder(["red square blue circle", "blue square red circle", "red square blue star"])
    for i, j in itertools.combinations(range(3), 2):
        assert float((text.pooled_BP[i] - text.pooled_BP[j]).abs().max()) > 1e-3


@torch.no_grad()
def test_a_lexicon_tells_its_words_apart_and_takes_all_others_for_one() -> None:
    encoder = build(SMALL.but(vocabulary="lexicon", lexicon=LEXICON))
    text = encoder(["a RED square", "a blue square", "a green square", "a pink square"])
    assert float((text.pooled_BP[0] - text.pooled_BP[1]).abs().max()) > 1e-3
    torch.testing.assert_close(text.pooled_BP[2], text.pooled_BP[3], rtol=0, atol=1e-6)


def test_a_long_caption_is_cut_with_one_warning() -> None:
    encoder, caption = build(), " ".join(f"word{i}" for i in range(12))
    with pytest.warns(UserWarning, match="12 tokens is cut to 10: 'word0 word1") as caught:
        text = encoder([caption, caption])
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = encoder([caption, " ".join(f"word{i}" for i in range(10))])
    assert int(text.mask_BL.sum()) == 20
    torch.testing.assert_close(again.tokens_BLE[0], again.tokens_BLE[1], rtol=0, atol=1e-6)


def test_every_parameter_learns() -> None:
    encoder = build(SMALL.but(buckets=4))
    text = encoder([*CAPTIONS, "one three five seven nine eleven"])
    (text.tokens_BLE.square().sum() + text.pooled_BP.sum() + text.tokens_BLE.pow(3).sum()).backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None or not bool(p.grad.any())] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 30}, "does not divide"),
        ({"vocabulary": "lexicon"}, "needs a list"),
        ({"lexicon": ("Red",)}, "lower case"),
        ({"lexicon": ("red", "red")}, "each once"),
        ({"tokens": 0}, "tokens"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SMALL.but(**changes)


# --- T5 and CLIP ------------------------------------------------------------------------------------------------------

VOCABULARY = {"<pad>": 0, "</s>": 1, "<unk>": 2, "<s>": 3} | {
    word: i + 4 for i, word in enumerate(["a", "red", "square", "moves", "left", "two", "blue", "circles"])
}
REAL = TextConfig(kind="pretrained", tokens=8, width=16, pooled_width=24)


def tokenizer(start: str) -> Any:
    """Words by their numbers, an end token behind and, if given, a start token before."""
    raw = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    template = f"{start} $A </s>".strip()
    special = [(token, VOCABULARY[token]) for token in ("<s>", "</s>") if token in template]
    raw.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=6
    )


def networks() -> tuple[Any, Any, Any, Any]:
    torch.manual_seed(0)
    t5 = transformers.T5EncoderModel(
        transformers.T5Config(vocab_size=12, d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4)
    )
    clip = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=12,
            hidden_size=24,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=6,
            bos_token_id=3,
            eos_token_id=1,
            pad_token_id=0,
        )
    )
    return t5, tokenizer(""), clip, tokenizer("<s>")


def save(folder: Path) -> None:
    parts = ("text_encoder_2", "tokenizer_2", "text_encoder", "tokenizer")
    for part, thing in zip(parts, networks(), strict=True):
        thing.save_pretrained(folder / part)


@torch.no_grad()
def test_pretrained_against_transformers_with_padding() -> None:
    """The usual call, padded to the full length with an attention mask, within 1e-5 on the real tokens."""
    t5, t5_tokenizer, clip, clip_tokenizer = networks()
    text = PretrainedText(REAL, t5, t5_tokenizer, clip, clip_tokenizer)(["a red square", "two blue circles moves", ""])
    batch = t5_tokenizer(["a red square", "two blue circles moves", ""], padding="max_length", max_length=8)
    ids, mask = torch.tensor(batch["input_ids"]), torch.tensor(batch["attention_mask"])
    theirs = t5(input_ids=ids, attention_mask=mask).last_hidden_state
    assert text.mask_BL.tolist() == mask.bool().tolist()
    torch.testing.assert_close(text.tokens_BLE, theirs * mask[..., None], rtol=1e-5, atol=1e-5)
    batch = clip_tokenizer(["a red square", "two blue circles moves", ""], padding="max_length", max_length=6)
    pooled = clip(input_ids=torch.tensor(batch["input_ids"])).pooler_output
    torch.testing.assert_close(text.pooled_BP, pooled, rtol=1e-5, atol=1e-5)


def test_pretrained_null_is_the_end_token_and_nothing_is_trained() -> None:
    encoder = PretrainedText(REAL, *networks())
    text = encoder.train()([""])
    assert text.mask_BL.sum() == 1
    assert not encoder.t5.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_pretrained_cuts_before_the_end_token_and_warns_once() -> None:
    encoder = PretrainedText(REAL, *networks())
    with pytest.warns(UserWarning, match="10 tokens is cut to 8") as caught:
        text = encoder(["a red square moves left two blue circles a"] * 2)
    assert len(caught) == 1
    # Seven words and the end token are left, so it is encoded as the caption of its first seven words is.
    other = encoder(["a red square moves left two blue"])
    torch.testing.assert_close(text.tokens_BLE[:1], other.tokens_BLE, rtol=0, atol=1e-6)


def test_pretrained_from_a_folder_with_encodings_kept_on_disk(tmp_path: Path) -> None:
    save(tmp_path / "model")
    config = REAL.but(folder=str(tmp_path / "model"))
    first = make_text(config, cache=tmp_path / "cache")(CAPTIONS[:3])
    assert len(list((tmp_path / "cache").iterdir())) == 3
    again = make_text(config, cache=tmp_path / "cache")
    assert isinstance(again, PretrainedText)
    again.t5 = None  # what is on disk is not computed again
    torch.testing.assert_close(again.cache.get(""), Encoding(first.tokens_BLE[1, :1], first.pooled_BP[1]))
    direct = PretrainedText(REAL, *networks())(CAPTIONS[:3])
    torch.testing.assert_close(first, direct, rtol=1e-6, atol=1e-6)


def test_pretrained_in_bfloat16_is_near_float32() -> None:
    """Eight bits of mantissa through two layers: within 0.1 of values about 1."""
    exact = PretrainedText(REAL, *networks())(CAPTIONS[:3])
    rough = PretrainedText(REAL.but(precision="bfloat16"), *networks())(CAPTIONS[:3])
    assert rough.tokens_BLE.dtype == torch.float32
    torch.testing.assert_close(rough.tokens_BLE, exact.tokens_BLE, rtol=0.1, atol=0.1)
    assert not torch.equal(rough.tokens_BLE, exact.tokens_BLE)


def test_pretrained_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no text_encoder/"):
        make_text(REAL.but(folder=str(tmp_path)))
    with pytest.raises(ValueError, match="width 17: the networks given have 16"):
        PretrainedText(REAL.but(width=17), *networks())
    with pytest.raises(ValueError, match="pooled_width 16: the networks given have 24"):
        PretrainedText(REAL.but(pooled_width=16), *networks())


def encoding(value: float) -> Encoding:
    return Encoding(torch.full((2, 3), value), torch.full((4,), value))


def test_the_cache_forgets_the_least_recently_used_first() -> None:
    cache = EncodingCache("", capacity=2)
    cache.put("a", encoding(1))
    cache.put("b", encoding(2))
    assert cache.get("a") is not None
    cache.put("c", encoding(3))
    assert cache.get("b") is None
    assert cache.get("a") is not None


def test_the_cache_on_disk_is_of_one_encoder_and_one_caption(tmp_path: Path) -> None:
    EncodingCache("one", tmp_path, capacity=1).put("a", encoding(1))
    found = EncodingCache("one", tmp_path).get("a")
    assert found is not None
    assert torch.equal(found.tokens_LE, encoding(1).tokens_LE)
    assert EncodingCache("two", tmp_path).get("a") is None
    assert EncodingCache("one", tmp_path).get("b") is None
