"""From decoded frames to a network's input: the official package's tensor preprocessing, step by step.

torchvision's size and crop rounding rules are kept; its own `resize` is not used because its uint8 kernels round
differently from one version to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from evalkit.types import Frames, Precision

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def scaled(sides: Sequence[int], size: int) -> tuple[int, int]:
    """Height and width once the shorter of both is `size` pixels; the longer is rounded down."""
    height, width = sides
    longer = int(size * max(height, width) / min(height, width))
    return (size, longer) if height <= width else (longer, size)


def centre(side: int, size: int) -> slice:
    """The central `size` of `side` pixels; half a pixel is rounded to even, as in torchvision."""
    start = round((side - size) / 2)
    return slice(start, start + size)


def load_resized(frames_BHWC: Frames, size: int, mode: Literal["bilinear", "bicubic"], device: str) -> Tensor:
    """Scale frames to a shorter side of `size` pixels, without antialiasing.

    Returns `(B, 3, h, w)` float32 in [0, 255]; bicubic overshoots.
    """
    target = scaled(frames_BHWC.shape[1:3], size)
    # One frame at a time: a float copy of a batch of large frames would leave the cache and cost twice the time.
    return torch.cat([_resize(frame_HWC, target, mode, device) for frame_HWC in frames_BHWC])


def load_antialiased(frames_BHWC: Frames, size: int | tuple[int, int], device: str) -> Tensor:
    """Scale frames by bicubic interpolation with antialiasing, as torchvision does since 0.17 unless told otherwise.

    Args:
        frames_BHWC: the frames.
        size: of the shorter side, or height and width.
        device: where the result goes.

    Returns `(B, 3, h, w)` float32 in about [0, 255]; bicubic overshoots.
    """
    target = scaled(frames_BHWC.shape[1:3], size) if isinstance(size, int) else size
    return torch.cat([_resize(frame_HWC, target, "bicubic", device, antialias=True) for frame_HWC in frames_BHWC])


def load_picture(picture_HWC: Frames, size: int | tuple[int, int], device: str) -> Tensor:
    """Scale a still by Pillow's bicubic filter, which antialiases and rounds to 8 bits: `(1, 3, h, w)` in [0, 255]."""
    target = scaled(picture_HWC.shape[:2], size) if isinstance(size, int) else size
    resized = Image.fromarray(picture_HWC).resize((target[1], target[0]), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized)).to(device).permute(2, 0, 1)[None].float()


def _resize(frame_HWC: Frames, target: tuple[int, int], mode: str, device: str, antialias: bool = False) -> Tensor:
    x_1CHW = torch.from_numpy(frame_HWC).to(device).permute(2, 0, 1)[None].float()
    if x_1CHW.shape[-2:] == target:
        return x_1CHW
    return F.interpolate(x_1CHW, size=target, mode=mode, align_corners=False, antialias=antialias)


def center_crop(x_BCHW: Tensor, size: int) -> Tensor:
    """Cut the central `size` x `size` pixels."""
    height, width = x_BCHW.shape[-2:]
    return x_BCHW[..., centre(height, size), centre(width, size)]


def standardize(x_BCHW: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Map [0, 255] to zero mean and unit variance per channel; `mean` and `std` refer to [0, 1]."""
    mean_C11, std_C11 = (torch.tensor(v, device=x_BCHW.device)[:, None, None] for v in (mean, std))
    return (x_BCHW / 255).sub_(mean_C11).div_(std_C11)
