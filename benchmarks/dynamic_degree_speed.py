"""dynamic_degree against the official package, on clips that all move and on the same clips when none does.

    python -m benchmarks.dynamic_degree_speed --official-python PATH [--clips 2] [--frames 17] [--cases moving still]

The recipe's weights find flows of a few pixels; scaled up, the flow head finds that every pair moves, and scaled down,
that none does. Where a clip moves, a quarter of its pairs settles the verdict here; where it does not, three quarters.
The official package computes all pairs. A pair of 854x480 costs it about ten seconds of one core.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks import dimension_speed
from benchmarks.dimension_speed import Case

FLOW_HEAD = "module.update_block.flow_head.conv2.weight"


def write(gain: float, cache: Path) -> None:
    """The recipe's RAFT with longer or shorter flows, in the official layout."""
    import torch

    from tests.parity import raft_official

    raft_official.write_checkpoint(cache, raft_official.recorded_shapes())
    path = cache / raft_official.FILE
    tensors = torch.load(path)
    tensors[FLOW_HEAD] *= gain
    torch.save(tensors, path)


CASES = (
    Case("moving", "every pair of every clip moves", partial(write, 10.0)),
    Case("still", "no pair of any clip moves", partial(write, 0.1)),
)

if __name__ == "__main__":
    dimension_speed.main("dynamic_degree", CASES, (__doc__ or "").split("\n")[0])
