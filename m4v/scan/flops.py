"""What the state-space operators cost: 2 FLOPs per multiply-add.

Plain arithmetic on sizes; the counting rules of the operators (`torch.utils.flop_counter`) call these functions.
"""

from __future__ import annotations

from collections.abc import Callable


def selective_scan_flops(batch: int, tokens: int, channels: int, state: int) -> int:
    """Forward Mamba-1 scan, `9 B N D S`: nine operations per token, channel and state.

    The total is the one that Mamba's authors give (github.com/state-spaces/mamba, issue 110) and that is commonly
    reported: a work-efficient parallel scan combines 2N pairs (a, b) at three operations each (six), dt·x enters
    through B (one) and C reads the state (one multiply-add, two). The decays exp(dt A) are not among the nine; a
    sequential recurrence pays two for its update and two for the decays instead of the six.
    """
    return 9 * batch * tokens * channels * state


def selective_scan_backward_flops(batch: int, tokens: int, channels: int, state: int) -> int:
    """Backward Mamba-1 scan as executed here, `20 B N D S`.

    Recomputed decays, inputs and states 2 + 1 + 2; gradient of the state 1 + 2; of B, C and dt·x 2 each; of dt·A 2, and
    from there of dt and of A 2 each.
    """
    return 20 * batch * tokens * channels * state


def ssd_flops(batch: int, tokens: int, heads: int, head_dim: int, groups: int, state: int, chunk: int) -> int:
    """Forward Mamba-2 scan as chunked, unmasked matrix products (Dao and Gu 2024, arXiv 2405.21060, Section 6).

    Per chunk of q tokens: C Bᵀ `2 q² S G`, scores times x `2 q² P H`, the chunk's state and its read-out `2 q S P H`
    each, the state passed on `2 S P H`. The last chunk counts with its own length.
    """

    def one_chunk(q: int) -> int:
        return 2 * q * q * (state * groups + head_dim * heads) + (4 * q + 2) * state * head_dim * heads

    return batch * _over_chunks(one_chunk, tokens, chunk)


def ssd_backward_flops(batch: int, tokens: int, heads: int, head_dim: int, groups: int, state: int, chunk: int) -> int:
    """Backward Mamba-2 scan as executed here.

    Per chunk of q tokens: C Bᵀ again and the gradients of B and C through it `6 q² S G`; the gradients of the scores
    and of x `4 q² P H`; five products with the state or its gradient `10 q S P H`; the gradient passed back `2 S P H`.
    """

    def one_chunk(q: int) -> int:
        return 2 * q * q * (3 * state * groups + 2 * head_dim * heads) + (10 * q + 2) * state * head_dim * heads

    return batch * _over_chunks(one_chunk, tokens, chunk)


def ssd_recurrent_flops(batch: int, tokens: int, heads: int, head_dim: int, state: int) -> int:
    """Mamba-2 scan counted as a recurrence: `4 N d_s d + 2 N d` with d = H P channels.

    Source: LinGen supplement, equation 3, with the expansion factor in d.
    """
    channels = heads * head_dim
    return batch * (4 * tokens * state * channels + 2 * tokens * channels)


def causal_conv1d_flops(batch: int, tokens: int, channels: int, kernel: int) -> int:
    """Forward depthwise causal convolution, `2 B N D K`; taps that read the zero padding count as well."""
    return 2 * batch * tokens * channels * kernel


def causal_conv1d_backward_flops(batch: int, tokens: int, channels: int, kernel: int) -> int:
    """Backward depthwise causal convolution, `4 B N D K`: the gradients of the input and of the weight."""
    return 2 * causal_conv1d_flops(batch, tokens, channels, kernel)


def _over_chunks(one_chunk: Callable[[int], int], tokens: int, chunk: int) -> int:
    whole, rest = divmod(tokens, chunk)
    return whole * one_chunk(chunk) + one_chunk(rest) * (rest > 0)
