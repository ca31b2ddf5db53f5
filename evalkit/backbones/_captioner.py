"""Transformers that read and write text beside an image: BERT's layers with cross-attention, norms last.

Devlin et al., "BERT" (arXiv:1810.04805); Li et al., "BLIP" (arXiv:2201.12086), whose mixture of encoder and decoder
Tag2Text is built from. Keys and values of what a caption has read are kept, so that each step computes one token.

Axes: B frames, N tokens, M tokens of a memory (what is attended to), S beams, D width, H heads, K width of a head,
V vocabulary, L layers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-12
MAX_POSITIONS = 512
MLP_ROWS = 1024
"""Tokens whose hidden layer is computed at once: all those of a tagging head would take 40 MB a frame."""

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of a memory, each `(B, H, M, K)`."""


class Attention(nn.Module):
    """Attention to a memory of width `memory` (default: its own), added to the input and normed.

    How many heads there are is a property of the memory, not of the weights: two stacks may share weights and differ in
    the number of their heads.
    """

    def __init__(self, width: int, memory: int | None = None) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(memory or width, width)
        self.value = nn.Linear(memory or width, width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, EPSILON)

    def remember(self, x_BMD: Tensor, heads: int) -> KeysValues:
        """Keys and values of a memory."""
        return _split(self.key(x_BMD), heads), _split(self.value(x_BMD), heads)

    def forward(self, x_BND: Tensor, memory: KeysValues, mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """`x_BND` may be one for all memories."""
        frames, heads = memory[0].shape[:2]
        q_BHNK = _split(self.query(x_BND), heads).expand(frames, -1, -1, -1)
        attended_BHNK = F.scaled_dot_product_attention(q_BHNK, *memory, attn_mask=mask, is_causal=is_causal)
        y_BND: Tensor = self.norm(x_BND + self.out(attended_BHNK.transpose(1, 2).flatten(2)))
        return y_BND


def _split(x_BND: Tensor, heads: int) -> Tensor:
    batch, length, width = x_BND.shape
    return x_BND.view(batch, length, heads, width // heads).transpose(1, 2)


class Mlp(nn.Module):
    """A hidden layer of four times the width, added to the input and normed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc_1, self.fc_2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm = nn.LayerNorm(width, EPSILON)

    def forward(self, x_BND: Tensor) -> Tensor:
        parts = [self.fc_2(F.gelu(self.fc_1(part))) for part in torch.split(x_BND.flatten(0, 1), MLP_ROWS)]
        y_BND: Tensor = self.norm(x_BND + torch.cat(parts).view_as(x_BND))
        return y_BND


class CrossLayer(nn.Module):
    """Attention to a memory, then the hidden layer."""

    def __init__(self, width: int, memory: int) -> None:
        super().__init__()
        self.crossattention = Attention(width, memory)
        self.mlp = Mlp(width)

    def forward(self, x_BND: Tensor, memory: KeysValues) -> Tensor:
        y_BND: Tensor = self.mlp(self.crossattention(x_BND, memory))
        return y_BND


class Layer(CrossLayer):
    """Attention of the tokens to each other (`own`), to a memory, then the hidden layer."""

    def __init__(self, width: int, memory: int) -> None:
        super().__init__(width, memory)
        self.attention = Attention(width)

    def share(self, other: CrossLayer) -> None:
        """Use the other layer's weights for all but the tokens' attention to each other."""
        self.crossattention, self.mlp = other.crossattention, other.mlp


def stack(layers: nn.ModuleList) -> list[Layer]:
    """The layers of a stack, by their type."""
    return list(cast(Iterable[Layer], layers))


class Embeddings(nn.Module):
    """Words and their places."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, width)
        self.position_embeddings = nn.Embedding(MAX_POSITIONS, width)
        self.norm = nn.LayerNorm(width, EPSILON)

    def forward(self, tokens_BN: Tensor, start: int = 0) -> Tensor:
        positions_ND = self.position_embeddings.weight[start : start + tokens_BN.shape[-1]]
        x_BND: Tensor = self.norm(self.word_embeddings(tokens_BN) + positions_ND)
        return x_BND


class TextEncoder(nn.Module):
    """Reads a text beside an image."""

    def __init__(self, layers: int, heads: int, vocabulary: int, width: int, memory: int) -> None:
        super().__init__()
        self.heads = heads
        self.embeddings = Embeddings(vocabulary, width)
        self.layers = nn.ModuleList(Layer(width, memory) for _ in range(layers))

    def forward(self, tokens_BN: Tensor, real_BN: Tensor, memory_BMD: Tensor) -> Tensor:
        """Tokens that are not `real` (padding) are attended to by none, but are returned like the others."""
        x_BND: Tensor = self.embeddings(tokens_BN)
        for layer in stack(self.layers):
            own = layer.attention.remember(x_BND, self.heads)
            x_BND = layer.attention(x_BND, own, real_BN[:, None, None].bool())
            x_BND = layer(x_BND, layer.crossattention.remember(memory_BMD, self.heads))
        return x_BND


class TextDecoder(nn.Module):
    """Writes a text about a memory. The output layer's weights are those of the word embeddings."""

    def __init__(self, layers: int, heads: int, vocabulary: int, width: int) -> None:
        super().__init__()
        self.heads = heads
        self.embeddings = Embeddings(vocabulary, width)
        self.layers = nn.ModuleList(Layer(width, width) for _ in range(layers))
        self.dense, self.norm = nn.Linear(width, width), nn.LayerNorm(width, EPSILON)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, x_ND: Tensor) -> Tensor:
        """Features of a last token to the logits `(..., V)` of the next."""
        return F.linear(self.norm(F.gelu(self.dense(x_ND))), self.embeddings.word_embeddings.weight, self.bias)


class Writing:
    """Texts being written by beam search, one memory per frame: the `Step` that the search asks for.

    The beams of a frame attend to one copy of its memory.
    """

    def __init__(self, decoder: TextDecoder, memory_BMD: Tensor) -> None:
        self.decoder = decoder
        self.memories = [layer.crossattention.remember(memory_BMD, decoder.heads) for layer in stack(decoder.layers)]
        self.past: list[KeysValues] = []
        self.length = 0

    def __call__(self, tokens_BSN: Tensor, parents_BS: Tensor | None) -> Tensor:
        beams, n_tokens = tokens_BSN.shape[1:]
        x_RND = self.decoder.embeddings(tokens_BSN.flatten(0, 1), self.length)
        past = self._continued(parents_BS)
        self.past = []
        for i, layer in enumerate(stack(self.decoder.layers)):
            own = layer.attention.remember(x_RND, self.decoder.heads)
            if past:
                own = (torch.cat([past[i][0], own[0]], dim=2), torch.cat([past[i][1], own[1]], dim=2))
            self.past.append(own)
            x_RND = layer.attention(x_RND, own, is_causal=n_tokens > 1)
            of_one_frame = x_RND.reshape(-1, beams * n_tokens, x_RND.shape[-1])
            x_RND = layer(of_one_frame, self.memories[i]).view_as(x_RND)
        self.length += n_tokens
        logits_BSV: Tensor = self.decoder(x_RND[:, -1]).unflatten(0, (-1, beams))
        return logits_BSV

    def _continued(self, parents_BS: Tensor | None) -> list[KeysValues]:
        """Keys and values of the beams that live on, `(B * S, H, M, K)`."""
        if parents_BS is None:
            return []
        frames, before = len(parents_BS), len(self.past[0][0]) // len(parents_BS)
        rows = (parents_BS + before * torch.arange(frames, device=parents_BS.device)[:, None]).flatten()
        return [(keys[rows], values[rows]) for keys, values in self.past]
