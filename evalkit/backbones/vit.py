"""Transformer blocks of timm and open_clip, rebuilt to run faster with the same numbers up to rounding.

Three savings, none of them an approximation: weights are laid out once for the CPU's matrix kernels; the last block
computes only the class token, because nothing reads the others; hidden layers are computed in parts that stay in cache.

Axes: B batch, N tokens, Q tokens that are kept, D width, H heads, K width of a head, O and I outputs and inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.backbones.base import Runtime
from evalkit.backbones.images import DTYPES

if TYPE_CHECKING:
    from open_clip.transformer import ResidualAttentionBlock

MLP_ROWS = 512
"""Tokens whose hidden layer a CPU computes at once: larger ones (over 32 MB) cost fresh memory at every call."""


class Linear(nn.Module):
    """`F.linear` whose weight can be packed for oneDNN once instead of at every call.

    On AVX-512 machines a packed layer reaches the floating-point peak: 1.1 to 1.2 times the throughput of `F.linear`.
    """

    def __init__(self, weight_OI: Tensor, bias_O: Tensor) -> None:
        super().__init__()
        self.weight_OI, self.bias_O = weight_OI.detach(), bias_O.detach()
        self.packed = False
        self.half_OI: Tensor | None = None

    def narrow(self) -> None:
        """Hold a weight that was published in half precision so, until it is widened."""
        self.half_OI, self.weight_OI = self.weight_OI.half(), self.weight_OI.new_empty(0)

    @contextmanager
    def wide(self) -> Iterator[None]:
        """Have the weight in float32, and packed, inside the context."""
        if self.half_OI is None:
            yield
            return
        self.weight_OI, empty = self.half_OI.float(), self.weight_OI
        self.pack()
        try:
            yield
        finally:  # a batch that failed (out of memory, Ctrl-C) must not leave the layer half changed
            self.weight_OI, self.packed = empty, False

    def pack(self) -> None:
        """Replace the weight by its packed form, where device, precision and library allow it."""
        if not self.packed and _can_pack(self.weight_OI):
            self.weight_OI = torch.ops.mkldnn._reorder_linear_weight(self.weight_OI)
            self.packed = True

    def forward(self, x: Tensor) -> Tensor:
        if self.packed:
            y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight_OI, self.bias_O, "none", [], "")
            return y
        return F.linear(x, self.weight_OI, self.bias_O)


def _can_pack(weight_OI: Tensor) -> bool:
    if weight_OI.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    operators = ("_linear_pointwise", "_reorder_linear_weight", "_is_mkldnn_bf16_supported")  # torch may rename them
    if not all(hasattr(torch.ops.mkldnn, name) for name in operators):
        return False
    if weight_OI.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight_OI.dtype == torch.float32


class Block(nn.Module):
    """A pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x)).

    `kept` is the number of leading tokens to return; the rest serve as keys and values only. None keeps all.
    """

    def __init__(
        self,
        heads: int,
        norm_1: nn.Module,
        qkv: tuple[Tensor, Tensor],
        out: nn.Linear,
        norm_2: nn.Module,
        fc_1: nn.Linear,
        activation: Callable[[Tensor], Tensor],
        fc_2: nn.Linear,
        kept: int | None = None,
    ) -> None:
        super().__init__()
        width = out.out_features
        self.heads = heads
        self.kept = kept
        self.norm_1, self.norm_2 = norm_1, norm_2
        self.q = Linear(qkv[0][:width], qkv[1][:width])
        self.kv = Linear(qkv[0][width:], qkv[1][width:])
        self.out, self.fc_1, self.fc_2 = (Linear(layer.weight, layer.bias) for layer in (out, fc_1, fc_2))
        self.activation = activation

    def linears(self) -> tuple[Linear, ...]:
        return self.q, self.kv, self.out, self.fc_1, self.fc_2

    def forward(self, x_BND: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        with ExitStack() as wide:
            for layer in self.linears():
                wide.enter_context(layer.wide())
            return self._attend_and_mix(x_BND, attn_mask)

    def _attend_and_mix(self, x_BND: Tensor, attn_mask: Tensor | None) -> Tensor:
        y_BND: Tensor = self.norm_1(x_BND)
        q_BHQK = self.q(y_BND[:, : self.kept]).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k_BHNK, v_BHNK = self.kv(y_BND).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended_BHQK = _attend(q_BHQK, k_BHNK, v_BHNK, attn_mask)
        x_BQD: Tensor = x_BND[:, : self.kept] + self.out(attended_BHQK.transpose(1, 2).flatten(2))
        return x_BQD + self._mlp(self.norm_2(x_BQD))

    def _mlp(self, x_BQD: Tensor) -> Tensor:
        size = MLP_ROWS if x_BQD.device.type == "cpu" else x_BQD.shape[:2].numel()
        parts = torch.split(x_BQD.flatten(0, 1), size)
        return torch.cat([self.fc_2(self.activation(self.fc_1(part))) for part in parts]).view_as(x_BQD)


def _attend(q_BHQK: Tensor, k_BHNK: Tensor, v_BHNK: Tensor, attn_mask: Tensor | None) -> Tensor:
    if q_BHQK.device.type == "cpu" and q_BHQK.dtype != torch.float32:
        # The CPU kernel is slower in half precision than in float32.
        wide_BHQK = F.scaled_dot_product_attention(q_BHQK.float(), k_BHNK.float(), v_BHNK.float(), attn_mask)
        return wide_BHQK.to(q_BHQK.dtype)
    return F.scaled_dot_product_attention(q_BHQK, k_BHNK, v_BHNK, attn_mask)


def quick_gelu(x: Tensor) -> Tensor:
    """CLIP's x * sigmoid(1.702 x), with one temporary."""
    return torch.mul(x, 1.702).sigmoid_().mul_(x)


def from_timm(block: Any, kept: int | None = None) -> Block:
    """Rebuild a block of a timm `VisionTransformer`."""
    attn, mlp = block.attn, block.mlp
    qkv = (attn.qkv.weight, attn.qkv.bias)
    return Block(attn.num_heads, block.norm1, qkv, attn.proj, block.norm2, mlp.fc1, F.gelu, mlp.fc2, kept)


def from_open_clip(block: ResidualAttentionBlock, kept: int | None = None) -> Block:
    """Rebuild a block of an open_clip `Transformer` with QuickGELU."""
    attn, mlp = block.attn, block.mlp
    qkv = (attn.in_proj_weight, attn.in_proj_bias)
    return Block(attn.num_heads, block.ln_1, qkv, attn.out_proj, block.ln_2, mlp.c_fc, quick_gelu, mlp.c_proj, kept)


def prepare(
    network: nn.Module,
    blocks: nn.Sequential | nn.ModuleList,
    rebuild: Callable[..., Block],
    runtime: Runtime,
    published_in_half: bool = False,
    kept: int | None = 1,
) -> None:
    """Make a loaded network ready to run: device, precision, fast `blocks`.

    The last block returns the first `kept` tokens, all if None: the class token alone where nothing reads the others.

    Weights are packed one by one, so that they are never held twice. Those published in half precision stay so on a
    CPU and are widened block by block as they are used: half the memory, the same numbers, 2 to 3 % of the time.
    """
    network.to(runtime.device, DTYPES[runtime.precision])
    for i, block in enumerate(blocks):
        blocks[i] = rebuild(block, kept=kept if i == len(blocks) - 1 else None)
    if runtime.compile:
        network.compile(dynamic=True)  # the compiler picks its own weight layout and refuses a packed one
        return
    narrow = published_in_half and runtime.device == "cpu" and runtime.precision == "fp32"
    for layer in network.modules():
        if isinstance(layer, Linear):
            layer.narrow() if narrow else layer.pack()
