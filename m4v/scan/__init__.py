"""State-space operators of the Mamba mixers: exact, differentiable, and countable without data (meta device).

`selective_scan` (Mamba-1), `ssd` (Mamba-2) and `causal_conv1d` are operators of the namespace `m4v`, opaque to
`torch.compile`, each with a counting rule for `torch.utils.flop_counter`; the same figures come from plain functions.
"""

from m4v.scan._backend import backend
from m4v.scan._conv import causal_conv1d
from m4v.scan._selective import selective_scan
from m4v.scan._ssd import ssd
from m4v.scan.flops import (
    causal_conv1d_backward_flops,
    causal_conv1d_flops,
    selective_scan_backward_flops,
    selective_scan_flops,
    ssd_backward_flops,
    ssd_flops,
    ssd_recurrent_flops,
)

__all__ = [
    "backend",
    "causal_conv1d",
    "causal_conv1d_backward_flops",
    "causal_conv1d_flops",
    "selective_scan",
    "selective_scan_backward_flops",
    "selective_scan_flops",
    "ssd",
    "ssd_backward_flops",
    "ssd_flops",
    "ssd_recurrent_flops",
]
