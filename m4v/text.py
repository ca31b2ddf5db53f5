"""Captions to text conditions: a small trainable encoder, and T5 with CLIP through transformers.

A caption is encoded by itself: what comes out does not depend on the batch it is in. The empty caption is the null
prompt of classifier-free guidance; it has one real token, so that no mask is ever empty.

Axes: B captions, L text tokens, E width of the text features, P width of the pooled feature, J hashes of a word,
H heads, K head dimension.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
import warnings
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from m4v.config import Config
from m4v.layers import mlp
from m4v.ops import attention, sinusoids
from m4v.variants.base import Text


class TextConfig(Config):
    """How captions are encoded; `tokens`, `width` and `pooled_width` are the sizes that a model is given.

    `tokens`: a trained embedding of words with `layers` transformer layers. Its vocabulary is either `words`, any word
    hashed into `buckets`, or `lexicon`, the listed words and one place for all others. `pretrained`: T5 tokens and the
    pooled CLIP feature, loaded from `folder`, in `precision`.
    """

    kind: Literal["tokens", "pretrained"] = "tokens"
    tokens: int = Field(24, ge=1)
    width: int = Field(128, ge=1)
    pooled_width: int = Field(128, ge=1)
    layers: int = Field(1, ge=0)
    heads: int = Field(4, ge=1)
    vocabulary: Literal["words", "lexicon"] = "words"
    buckets: int = Field(1024, ge=1)
    lexicon: tuple[str, ...] = ()
    folder: str = ""
    precision: Literal["float32", "bfloat16"] = "float32"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind == "tokens" and self.layers and self.width % self.heads:
            raise ValueError(f"text width {self.width} does not divide into {self.heads} heads")
        if self.vocabulary == "lexicon" and not self.lexicon:
            raise ValueError("a lexicon vocabulary needs a list of words")
        if any(words(word) != [word] for word in self.lexicon) or len(set(self.lexicon)) < len(self.lexicon):
            raise ValueError("a lexicon lists single words in lower case, each once")
        return self


class TextEncoder(nn.Module, ABC):
    """`forward(captions) -> Text` of `config.tokens` tokens; tokens behind the end of a caption are zero and masked."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self._warned: set[str] = set()

    @abstractmethod
    def forward(self, captions: Sequence[str]) -> Text:
        """Encode captions; the empty one is the null prompt. One too long is cut, with one warning for each caption."""

    def _warn_cut(self, caption: str, length: int, limit: int) -> None:
        if caption not in self._warned:
            self._warned.add(caption)
            warnings.warn(f"caption of {length} tokens is cut to {limit}: {caption!r}", UserWarning, stacklevel=3)


def make_text(config: TextConfig, *, cache: Path | None = None) -> TextEncoder:
    """The encoder of a configuration; `cache` is a folder that keeps the encodings of a pretrained one.

    Raises:
        ValueError: the folder of a pretrained encoder does not hold one, or its sizes differ from the configuration's.
    """
    return TokenEncoder(config) if config.kind == "tokens" else load_pretrained(config, cache)


def words(caption: str) -> list[str]:
    """Words of a caption in lower case (Unicode NFKC); hyphens and apostrophes inside a word belong to it."""
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", unicodedata.normalize("NFKC", caption).lower())


def word_hash(word: str, hashes: int, buckets: int) -> list[int]:
    """Buckets of a word under `hashes` independent hash functions (BLAKE2b); the same on every machine."""
    digest = hashlib.blake2b(word.encode(), digest_size=8 * hashes).digest()
    return [int.from_bytes(digest[8 * i : 8 * i + 8], "little") % buckets for i in range(hashes)]


class TokenBlock(nn.Module):
    """One transformer layer over the words of a caption, norms first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = mlp(width, 4)

    def forward(self, x_BLE: Tensor, mask_BL: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norms[0](x_BLE)).unflatten(-1, (3, self.heads, -1)).unbind(2)
        x_BLE = x_BLE + self.out(attention(q, k, v, mask_BL[:, None, None, :]).flatten(2))
        return x_BLE + cast(Tensor, self.mlp(self.norms[1](x_BLE)))


class TokenEncoder(TextEncoder):
    """A word embedding, fixed sine positions and a few transformer layers, trained with the model.

    Hashed words are the sum of two embeddings under independent hashes (hash embeddings, Svenstrup et al. 2017): two
    words are confused only if both collide; of 50 words in 1024 buckets some pair is with a chance of 0.2 %.
    The pooled feature is the mean over the real tokens, projected. A caption without words is the null prompt.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__(config)
        self.hashed = config.vocabulary == "words"
        # Row 0 is the null token; with a lexicon row 1 stands for all words that it does not list.
        self.rows = {word: i + 2 for i, word in enumerate(config.lexicon)}
        self.embedding = nn.Embedding((1 + config.buckets) if self.hashed else len(self.rows) + 2, config.width)
        positions_L1 = torch.arange(config.tokens, dtype=torch.float32)[:, None]
        self.register_buffer("positions_LE", sinusoids(positions_L1, config.width), persistent=False)
        self.blocks = nn.ModuleList(TokenBlock(config.width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.pool = nn.Linear(config.width, config.pooled_width)

    def _rows(self, caption: str) -> list[list[int]]:
        """Rows of the embedding that each token sums."""
        found, limit = words(caption), self.config.tokens
        if len(found) > limit:
            self._warn_cut(caption, len(found), limit)
        if not found:
            return [[0]]
        if not self.hashed:
            return [[self.rows.get(word, 1)] for word in found[:limit]]
        return [[1 + i for i in word_hash(word, 2, self.config.buckets)] for word in found[:limit]]

    def _embed(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Sum of the embeddings of each token, (B, L, E), and the mask, (B, L)."""
        table, weight = self.embedding, torch.zeros(len(captions), self.config.tokens, 2)
        rows_BLJ = torch.zeros_like(weight, dtype=torch.long)
        for i, caption in enumerate(captions):
            for j, rows in enumerate(self._rows(caption)):
                rows_BLJ[i, j, : len(rows)] = torch.tensor(rows)
                weight[i, j, : len(rows)] = 1
        device = table.weight.device
        weight_BLJ = weight.to(device, table.weight.dtype)
        return (table(rows_BLJ.to(device)) * weight_BLJ[..., None]).sum(2), weight_BLJ[..., 0] > 0

    def forward(self, captions: Sequence[str]) -> Text:
        x_BLE, mask_BL = self._embed(captions)
        x_BLE = x_BLE + cast(Tensor, self.positions_LE).to(x_BLE.dtype)
        for block in self.blocks:
            x_BLE = block(x_BLE, mask_BL)
        x_BLE = self.norm(x_BLE) * mask_BL[..., None]
        pooled_BP = self.pool(x_BLE.sum(1) / mask_BL.sum(1, keepdim=True))
        return Text(x_BLE, mask_BL, pooled_BP)


class Encoding(NamedTuple):
    """What is kept of one caption: its real tokens (l, E) and the pooled feature (P)."""

    tokens_LE: Tensor
    pooled_P: Tensor


class EncodingCache:
    """Encodings by caption: the latest `capacity` in memory, and all of them in a folder if there is one.

    Files are named by a hash of `identity`, which must tell encoders apart, and of the caption.
    """

    def __init__(self, identity: str, folder: Path | None = None, capacity: int = 4096) -> None:
        self.identity, self.folder, self.capacity = identity, folder, capacity
        self.memory: OrderedDict[str, Encoding] = OrderedDict()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def _file(self, caption: str) -> Path | None:
        name = hashlib.blake2b(f"{self.identity}\0{caption}".encode(), digest_size=16).hexdigest()
        return None if self.folder is None else self.folder / f"{name}.pt"

    def get(self, caption: str) -> Encoding | None:
        file = self._file(caption)
        if caption in self.memory:
            self.memory.move_to_end(caption)
            return self.memory[caption]
        if file is None or not file.exists():
            return None
        return self._remember(caption, Encoding(*torch.load(file, weights_only=True)))

    def put(self, caption: str, encoding: Encoding) -> None:
        """Keep an encoding; the file appears whole or not at all."""
        file = self._file(caption)
        self._remember(caption, encoding)
        if file is not None:
            part = file.with_suffix(f".{os.getpid()}.part")
            torch.save(tuple(encoding), part)
            part.replace(file)

    def _remember(self, caption: str, encoding: Encoding) -> Encoding:
        self.memory[caption] = encoding
        if len(self.memory) > self.capacity:
            self.memory.popitem(last=False)
        return encoding


class PretrainedText(TextEncoder):
    """Tokens of a T5 encoder and the pooled feature of a CLIP text encoder, both frozen (the conditions of FLUX.1 and
    PyramidFlow). Tested with small random networks; no published weights were run.

    The null prompt is the empty string, of which T5 sees its end token. CLIP reads as much of a caption as it can.

    Args:
        config: `tokens` is the length for T5; `width` and `pooled_width` must be those of the networks.
        t5, clip: modules of transformers (`T5EncoderModel`, `CLIPTextModel`) and their tokenizers.
        cache: where encodings are kept; in memory by default.

    Raises:
        ValueError: a width differs from the configuration's.
    """

    def __init__(
        self,
        config: TextConfig,
        t5: nn.Module,
        t5_tokenizer: Any,
        clip: nn.Module,
        clip_tokenizer: Any,
        cache: EncodingCache | None = None,
    ) -> None:
        super().__init__(config)
        for name, said, found in (
            ("width", config.width, cast(Any, t5).config.d_model),
            ("pooled_width", config.pooled_width, cast(Any, clip).config.hidden_size),
        ):
            if said != found:
                raise ValueError(f"text {name} {said}: the networks given have {found}")
        dtype = getattr(torch, config.precision)
        self.t5: Any = t5.to(dtype).eval().requires_grad_(False)
        self.clip: Any = clip.to(dtype).eval().requires_grad_(False)
        self.t5_tokenizer, self.clip_tokenizer = t5_tokenizer, clip_tokenizer
        self.cache = cache or EncodingCache(config.config_hash())

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: the networks are frozen."""
        return super().train(False)

    def _ids(self, tokenizer: Any, caption: str, limit: int) -> Tensor:
        """Token ids (1, l) of a caption, cut before its end token if it has more than `limit`."""
        ids = tokenizer(caption, truncation=False, verbose=False)["input_ids"]
        if len(ids) > limit:
            ids = ids[: limit - 1] + ids[-1:]
        return torch.tensor([ids], device=self.t5.device)

    @torch.no_grad()
    def _encode(self, caption: str) -> Encoding:
        ids = self.t5_tokenizer(caption, truncation=False, verbose=False)["input_ids"]
        if len(ids) > self.config.tokens:
            self._warn_cut(caption, len(ids), self.config.tokens)
        tokens_LE = self.t5(self._ids(self.t5_tokenizer, caption, self.config.tokens)).last_hidden_state[0]
        limit = self.clip.config.max_position_embeddings
        pooled_P = self.clip(self._ids(self.clip_tokenizer, caption, limit)).pooler_output[0]
        return Encoding(tokens_LE.float().cpu(), pooled_P.float().cpu())

    def _encoding(self, caption: str) -> Encoding:
        found = self.cache.get(caption)
        if found is None:
            found = self._encode(caption)
            self.cache.put(caption, found)
        return found

    def forward(self, captions: Sequence[str]) -> Text:
        encodings = [self._encoding(caption) for caption in captions]
        B, L = len(captions), self.config.tokens
        tokens_BLE, mask_BL = torch.zeros(B, L, self.config.width), torch.zeros(B, L, dtype=torch.bool)
        for i, encoding in enumerate(encodings):
            tokens_BLE[i, : len(encoding.tokens_LE)] = encoding.tokens_LE
            mask_BL[i, : len(encoding.tokens_LE)] = True
        pooled_BP = torch.stack([encoding.pooled_P for encoding in encodings])
        device = self.t5.device
        return Text(tokens_BLE.to(device), mask_BL.to(device), pooled_BP.to(device))


def folder_identity(config: TextConfig, folder: Path) -> str:
    """What tells encoders apart in a cache: the configuration, and the names and sizes of the folder's files."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    listing = "\n".join(f"{file.relative_to(folder).as_posix()} {file.stat().st_size}" for file in files)
    return f"{config.but(folder='').config_hash()}\n{listing}"


def load_pretrained(config: TextConfig, cache: Path | None = None) -> PretrainedText:
    """T5 and CLIP from `config.folder`, laid out as FLUX.1 and PyramidFlow are published.

    `text_encoder` and `tokenizer` hold CLIP, `text_encoder_2` and `tokenizer_2` hold T5. Nothing is downloaded.

    Raises:
        ValueError: transformers is missing, a part is missing, or a width differs from the configuration's.
    """
    try:
        import transformers
    except ImportError as error:
        raise ValueError("transformers is not installed: pip install 'm4v-eval[real]'") from error
    folder = Path(config.folder)
    for part in ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"):
        if not config.folder or not (folder / part).is_dir():
            raise ValueError(f"text encoder folder {config.folder!r}: there is no {part}/ in it")
    kinds: Any = transformers
    networks = [
        (kinds.T5EncoderModel, "text_encoder_2"),
        (kinds.AutoTokenizer, "tokenizer_2"),
        (kinds.CLIPTextModel, "text_encoder"),
        (kinds.AutoTokenizer, "tokenizer"),
    ]
    t5, t5_tokenizer, clip, clip_tokenizer = (
        kind.from_pretrained(folder / part, local_files_only=True) for kind, part in networks
    )
    kept = EncodingCache(folder_identity(config, folder), cache)
    return PretrainedText(config, t5, t5_tokenizer, clip, clip_tokenizer, kept)
