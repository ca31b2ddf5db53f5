"""From the features of a box to words: GRiT's text decoder.

Wu et al., "GRiT: A Generative Region-to-text Transformer for Object Understanding" (arXiv:2212.00280); the decoder is
that of Wang et al., "GIT: A Generative Image-to-text Transformer for Vision and Language" (arXiv:2205.14100): blocks of
BERT over the sequence [picture | text], in which the picture sees itself only and a word sees the picture and the words
before it. Which kind of text is written, an object's name or a description, is said by the first token.

Because no picture token sees the text, its keys and values are computed once for all words and both kinds of text;
the official code computes them anew for every word. The numbers are the same up to rounding.

Axes: N boxes, R boxes whose text is still being written, S picture tokens of a box, Q queries, T tokens of text,
V vocabulary, D width, H heads, K width of a head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.backbones import vit
from evalkit.backbones.base import Runtime
from evalkit.backbones.bert_vocab import write_out
from evalkit.backbones.images import DTYPES
from evalkit.errors import UserError
from evalkit.weights import Checkpoint

if TYPE_CHECKING:
    from transformers import BertTokenizer

Task = Literal["ObjectDet", "DenseCap"]
"""What is written for a box: its object's name, or a description."""

BEGIN: Mapping[Task, int] = {"ObjectDet": 101, "DenseCap": 104}
"""First token of a text: `[CLS]` for the task trained first, an unused token for the other."""

END = 102
MAX_TOKENS = 40
"""Longest text, first token included."""

REPEATED = -10_000.0
"""Logit of the token just written: no token follows itself, though the network may be certain of it."""

BOXES = 32
"""Boxes described at once; the keys and values of one take 7 MB in float32."""

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one block, each `(N, H, S, K)`."""

Memory = list[KeysValues]
"""What a text is written from: keys and values of every block."""


@dataclass(frozen=True, slots=True)
class TextShape:
    """Sizes of the decoder; the default is the published network."""

    features: int = 256
    width: int = 768
    layers: int = 6
    heads: int = 12
    hidden: int = 3072
    words: int = 30_522
    positions: int = 1024


class _AddNorm(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x_NQD: Tensor, residual_NQD: Tensor) -> Tensor:
        y_NQD: Tensor = self.LayerNorm(self.dense(x_NQD) + residual_NQD)
        return y_NQD


class Block(nn.Module):
    """A post-norm block of BERT whose keys and values are handed over by the caller."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        project = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
        self.attention = nn.ModuleDict({"self": project, "output": _AddNorm(width, width)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, shape.hidden)})
        self.output = _AddNorm(shape.hidden, width)

    def keys_values(self, x_NQD: Tensor) -> KeysValues:
        return self._project("key", x_NQD), self._project("value", x_NQD)

    def forward(self, x_NQD: Tensor, *seen: KeysValues) -> Tensor:
        """Attend from every query to all tokens that are `seen`, then mix."""
        attended_NHQK = _attend(self._project("query", x_NQD), seen)
        x_NQD = self.attention["output"](attended_NHQK.transpose(1, 2).flatten(2), x_NQD)
        parts = torch.split(x_NQD.flatten(0, 1), vit.MLP_ROWS if x_NQD.device.type == "cpu" else x_NQD[..., 0].numel())
        return torch.cat([self._mix(part) for part in parts]).view_as(x_NQD)

    def _mix(self, x_QD: Tensor) -> Tensor:
        y_QD: Tensor = self.output(F.gelu(self.intermediate["dense"](x_QD)), x_QD)
        return y_QD

    def _project(self, name: str, x_NQD: Tensor) -> Tensor:
        project = self.attention["self"][name]  # type: ignore[index]
        y_NHQK: Tensor = project(x_NQD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return y_NHQK


def _attend(q_NHQK: Tensor, seen: Sequence[KeysValues]) -> Tensor:
    """Attention over several sets of keys and values, without joining them: the picture's are large."""
    if len(seen) == 1:
        return F.scaled_dot_product_attention(q_NHQK, *seen[0])
    q_NHQK = q_NHQK * q_NHQK.shape[-1] ** -0.5
    scores = torch.cat([q_NHQK @ keys.transpose(-1, -2) for keys, _ in seen], dim=-1).softmax(dim=-1)
    parts = torch.split(scores, [keys.shape[2] for keys, _ in seen], dim=-1)
    return torch.stack([part @ values for part, (_, values) in zip(parts, seen, strict=True)]).sum(dim=0)


class _Embedding(nn.Module):
    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.words = nn.Embedding(shape.words, shape.width)
        self.positions = nn.Embedding(shape.positions, shape.width)
        self.layer_norm = nn.LayerNorm(shape.width, eps=1e-8)

    def forward(self, tokens_N: Tensor, position: int) -> Tensor:
        x_ND: Tensor = self.layer_norm(self.words(tokens_N) + self.positions.weight[position])
        return x_ND


class _Output(nn.Module):
    """Logits; the weight is that of the word embedding."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(words))
        self.packed: vit.Linear | None = None

    def pack(self, weight_VD: Tensor) -> None:
        """Keep a second copy of the weight (94 MB), in which logits of a few boxes take a third of the time."""
        self.packed = vit.Linear(weight_VD, self.bias)
        self.packed.pack()

    def forward(self, x_RD: Tensor, weight_VD: Tensor) -> Tensor:
        return F.linear(x_RD, weight_VD, self.bias) if self.packed is None else self.packed(x_RD)


class TextDecoder(nn.Module):
    """Writes texts token by token, each time the most probable.

    Parameter names are the checkpoint's below `roi_heads.text_decoder.textual.`, but for `output.weight`, which is
    `embedding.words.weight` (see `drop_copies`).
    """

    def __init__(self, shape: TextShape | None = None) -> None:
        super().__init__()
        shape = shape or TextShape()
        self.object_feature_projection = nn.Sequential(
            nn.Linear(shape.features, shape.width), nn.LayerNorm(shape.width)
        )
        self.embedding = _Embedding(shape)
        blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.transformer = nn.ModuleDict({"encoder": nn.ModuleDict({"layer": blocks})})
        self.output = _Output(shape.words)

    @property
    def blocks(self) -> list[Block]:
        return list(self.transformer["encoder"]["layer"])  # type: ignore[index]

    def read(self, features_NSD: Tensor) -> Memory:
        """Keys and values of the picture, from the features `(N, S, features)` of boxes."""
        x_NSD = self.object_feature_projection(features_NSD.to(self.output.bias.dtype))
        memory = [self.blocks[0].keys_values(x_NSD)]
        for block, following in pairwise(self.blocks):  # the last block's tokens would be read by nothing
            x_NSD = block(x_NSD, memory[-1])
            memory.append(following.keys_values(x_NSD))
        return memory

    def step(self, tokens_R: Tensor, position: int, memory: Memory, past: Memory) -> tuple[Tensor, Memory]:
        """Read one more token of every text.

        Args:
            tokens_R: the tokens.
            position: their place in the texts, 0 for the first.
            memory: the picture, as `read` returns it.
            past: the texts before, as `step` returns them; empty at position 0.

        Returns:
            Logits of the next token `(R, V)` in float32, and the texts with this token.
        """
        x_R1D = self.embedding(tokens_R, position)[:, None]
        texts: Memory = []
        for i, block in enumerate(self.blocks):
            own = block.keys_values(x_R1D)
            texts.append(_append(past[i], own) if past else own)
            x_R1D = block(x_R1D, memory[i], texts[i])
        logits_RV: Tensor = self.output(x_R1D[:, 0], self.embedding.words.weight)
        return logits_RV.float(), texts

    @torch.inference_mode()
    def write(self, memory: Memory, task: Task) -> tuple[Tensor, Tensor]:
        """Write a text for every box, the most probable token each time.

        Returns:
            Tokens `(N, T)` without the first and filled up with `END`, and the mean log-probability `(N,)` of a text's
            tokens, `END` included.
        """
        keys, _ = memory[0]
        n, device = len(keys), keys.device
        tokens_NT = torch.full((n, MAX_TOKENS - 1), END, device=device)
        total_N = torch.zeros(n, device=device)
        rows_R, last_R = torch.arange(n, device=device), torch.full((n,), BEGIN[task], device=device)
        past: Memory = []
        for position in range(MAX_TOKENS - 1):
            logits_RV, past = self.step(last_R, position, memory, past)
            if position:
                logits_RV.scatter_(1, last_R[:, None], REPEATED)
            best_R, words_R = logits_RV.log_softmax(dim=1).max(dim=1)
            over_R = last_R == END
            last_R = words_R.masked_fill(over_R, END)
            tokens_NT[rows_R, position] = last_R
            total_N[rows_R] += best_R.masked_fill(over_R, 0.0)
            open_R = last_R != END
            n_open = int(open_R.sum())
            if not n_open:
                break
            if 2 * n_open <= len(open_R):  # drop finished texts, not one by one: it copies what the others still need
                rows_R, last_R = rows_R[open_R], last_R[open_R]
                memory, past = _keep(memory, open_R), _keep(past, open_R)
        return tokens_NT, total_N / length(tokens_NT)


def _append(past: KeysValues, own: KeysValues) -> KeysValues:
    return torch.cat([past[0], own[0]], dim=2), torch.cat([past[1], own[1]], dim=2)


def _keep(memory: Memory, rows_N: Tensor) -> Memory:
    return [(keys[rows_N], values[rows_N]) for keys, values in memory]


def length(tokens_NT: Tensor) -> Tensor:
    """Tokens of each text, one `END` included, `(N,)`."""
    return ((tokens_NT != END).sum(dim=1) + 1).clamp(max=tokens_NT.shape[1])


class Describer:
    """Boxes to texts, as the official package words them.

    Args:
        decoder: a loaded and prepared network.
        tokenizer: BERT's (uncased).
    """

    def __init__(self, decoder: TextDecoder, tokenizer: BertTokenizer) -> None:
        self.decoder = decoder
        self.tokenizer = tokenizer

    @torch.inference_mode()
    def __call__(self, features_NSD: Tensor, tasks: Sequence[Task]) -> dict[Task, list[str]]:
        """The texts of `N` boxes (of one frame or several, or none) for each task; a second task costs little more."""
        texts: dict[Task, list[str]] = {task: [] for task in tasks}
        for features in torch.split(features_NSD, BOXES) if len(features_NSD) else ():
            memory = self.decoder.read(features)
            for task in texts:
                tokens_NT, _ = self.decoder.write(memory, task)
                texts[task] += map(self.words, tokens_NT.tolist())
        return texts

    def words(self, tokens: list[int]) -> str:
        return write_out(self.tokenizer, tokens)


def drop_copies(tensors: Mapping[str, Tensor], checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The table of a GRiT checkpoint without the tensors that are others under a second name.

    The logits' weight is that of the word embedding, and the decoder of object names is that of descriptions; the
    published file may hold either or both.

    Raises:
        UserError: a copy is not equal to its original.
    """
    kept: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        original = name.replace("roi_heads.text_decoder_det.", "roi_heads.text_decoder.")
        original = original.replace("text_decoder.textual.output.weight", "text_decoder.textual.embedding.words.weight")
        if original == name:
            kept[name] = tensor
        elif original not in tensors or not torch.equal(tensor, tensors[original]):
            raise UserError(
                f"The checkpoint {checkpoint.file} does not fit GRiT: {name} is not equal to {original}.",
                "It may be another model's file; fetch it again with"
                f" `m4v-eval weights pull {checkpoint.key} --force`.",
            )
    return kept


def prepare(network: nn.Module, runtime: Runtime) -> None:
    """Make a loaded network ready to run: device, precision, and weights laid out once for the CPU's matrix kernels."""
    network.to(runtime.device, DTYPES[runtime.precision])
    if runtime.compile:
        return  # the compiler picks its own weight layout and refuses a packed one
    for module in list(network.modules()):
        if isinstance(module, TextDecoder):
            module.output.pack(module.embedding.words.weight)
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                layer = vit.Linear(child.weight, child.bias)
                layer.pack()
                module.register_module(name, layer)
