"""All-pairs correlation of two feature maps, looked up in both directions (AMT section 3.1, after RAFT section 3.2).

Axes: B batch, C channels, H W map, N = H * W positions, K = 2 * radius + 1 offsets a side, S = K + 1 samples a side.
"""

from __future__ import annotations

from itertools import zip_longest

import torch
from torch import Tensor
from torch.nn import functional as F


class CorrelationVolume:
    """Similarity of every position of one map with every position of another, at several target resolutions.

    The volume over the full-size maps is kept once and read in both directions. A coarser volume is the average of the
    full one over target cells; since correlation is linear it is computed from averaged features, so nothing of size
    N x N is ever copied, transposed or pooled.

    The volume's memory is kept from one pair to the next: asking the system for hundreds of megabytes anew costs as
    much as the multiplication that fills them.

    Args:
        levels: number of target resolutions, each half the one before.
        radius: lookups return offsets -radius..radius.
    """

    def __init__(self, levels: int, radius: int) -> None:
        self.levels = levels
        self.radius = radius
        self.sizes: list[tuple[int, int]] = []
        self.to_1: list[Tensor] = []
        self.to_0: list[Tensor] = []

    def fill(self, map0_BCHW: Tensor, map1_BCHW: Tensor) -> CorrelationVolume:
        """Correlate two feature maps of the same shape; overwrites the pair before."""
        # Sums over channels and positions near each other lose too much in half precision.
        maps0 = _pyramid(map0_BCHW.float() * map0_BCHW.shape[1] ** -0.5, self.levels)
        maps1 = _pyramid(map1_BCHW.float(), self.levels)
        self.sizes = [(level.shape[2], level.shape[3]) for level in maps0]
        self.to_1 = [_correlate(maps0[0], level, old) for level, old in zip_longest(maps1, self.to_1)]
        coarse_to_0 = zip_longest(maps0[1:], self.to_0[1:])
        self.to_0 = [self.to_1[0].mT] + [_correlate(maps1[0], level, old) for level, old in coarse_to_0]
        return self

    def lookup(self, in_1_B2HW: Tensor, in_0_B2HW: Tensor) -> Tensor:
        """Correlations around a point per position, both directions.

        Args:
            in_1_B2HW: for each position of map 0, the point (x, y) of map 1 to look around.
            in_0_B2HW: for each position of map 1, the point (x, y) of map 0 to look around.

        Returns:
            `(B, 2 * levels * K * K, H, W)` in channels-last memory: direction, level, x offset, y offset.
        """
        found = [
            _sample_windows(volume_BNM, points_B2HW.flatten(2).mT / 2**level, size, self.radius)
            for volumes, points_B2HW in ((self.to_1, in_1_B2HW.float()), (self.to_0, in_0_B2HW.float()))
            for level, (volume_BNM, size) in enumerate(zip(volumes, self.sizes, strict=True))
        ]
        batch, _, height, width = in_1_B2HW.shape
        return torch.cat(found, dim=-1).view(batch, height, width, -1).permute(0, 3, 1, 2)


def _correlate(queries_BCHW: Tensor, targets_BCHW: Tensor, old_BNM: Tensor | None) -> Tensor:
    queries_BNC, targets_BCM = queries_BCHW.flatten(2).mT, targets_BCHW.flatten(2)
    shape = (*queries_BNC.shape[:2], targets_BCM.shape[2])
    fits = old_BNM is not None and old_BNM.shape == shape and old_BNM.device == queries_BNC.device
    return torch.bmm(queries_BNC, targets_BCM, out=old_BNM if fits else queries_BNC.new_empty(shape))


def _pyramid(map_BCHW: Tensor, levels: int) -> list[Tensor]:
    maps = [map_BCHW]
    for _ in range(levels - 1):
        maps.append(F.avg_pool2d(maps[-1], 2))
    return maps


def _sample_windows(volume_BNM: Tensor, points_BN2: Tensor, size: tuple[int, ...], radius: int) -> Tensor:
    """Bilinear samples at all integer offsets around each query's point; zero outside the map.

    All offsets of a window share one fractional part, so (K + 1)^2 values serve K^2 bilinear samples.

    Args:
        volume_BNM: for each query N, a map of `size` flattened to M.
        points_BN2: window centres (x, y) in pixels of that map.
        size: height and width of that map.
        radius: offsets run from -radius to radius.

    Returns:
        `(B, N, K * K)`, the x offset varying slowest.
    """
    height, width = size
    corner_BN2 = points_BN2.floor()
    fraction_BN2 = points_BN2 - corner_BN2
    reach = torch.arange(-radius, radius + 2, device=points_BN2.device)
    x_BNS = corner_BN2[..., 0:1].clamp(-radius - 2, width + radius).long() + reach
    y_BNS = corner_BN2[..., 1:2].clamp(-radius - 2, height + radius).long() + reach
    cells_BNSS = x_BNS.clamp(0, width - 1)[..., :, None] + y_BNS.clamp(0, height - 1)[..., None, :] * width
    values_BNSS = volume_BNM.gather(2, cells_BNSS.flatten(2)).view(cells_BNSS.shape)
    x_low, x_high = _weights(x_BNS, fraction_BN2[..., 0:1], width)
    y_low, y_high = _weights(y_BNS, fraction_BN2[..., 1:2], height)
    rows_BNKS = torch.addcmul(values_BNSS[..., :-1, :] * x_low[..., None], values_BNSS[..., 1:, :], x_high[..., None])
    low_BNKK = rows_BNKS[..., :-1] * y_low[..., None, :]
    return torch.addcmul(low_BNKK, rows_BNKS[..., 1:], y_high[..., None, :]).flatten(2)


def _weights(position_BNS: Tensor, fraction_BN1: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Linear weights of the lower and upper neighbour of each of the K offsets; zero where it lies outside."""
    inside_BNS = (position_BNS >= 0) & (position_BNS < size)
    return inside_BNS[..., :-1] * (1 - fraction_BN1), inside_BNS[..., 1:] * fraction_BN1
