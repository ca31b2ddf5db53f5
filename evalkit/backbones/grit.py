"""GRiT: finds the objects of a picture and says for each, in words, what it is or what it looks like.

Wu et al., "GRiT: A Generative Region-to-text Transformer for Object Understanding" (arXiv:2212.00280); VBench runs the
ViT-B trained on both tasks (`vbench/third_party/grit_src`, `vbench/third_party/grit_model.py`).

The official code goes twice over every frame from the proposals on: once for the texts that are asked for, once more
for the objects' names. The boxes are the same both times, and so are the texts where names are asked for.

Axes: B T frames, H W frame, N detections of a frame; a box is x0 y0 x1 y1 in pixels of the frame that the network sees.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit.backbones import _grit_text, _opencv, published
from evalkit.backbones._grit_network import Grit
from evalkit.backbones._grit_text import Describer, Task, drop_copies
from evalkit.backbones.base import Runtime, SelectedFrames
from evalkit.backbones.bert_vocab import load_tokenizer
from evalkit.backbones.detections import FRAMES, Row, detections
from evalkit.backbones.viclip import middle_frames
from evalkit.types import Array, Clip, Frames
from evalkit.weights import WeightStore, load_strict

if TYPE_CHECKING:
    from transformers import BertTokenizer

CHECKPOINT = published.GRIT

LARGEST, REDUCED = 768, 720
"""Frames whose shorter side is longer than the first are scaled to about the second."""

UNUSED = ("roi_heads.mask_head.",)
"""Tensors of the checkpoint that nothing here reads: the official code computes outlines of objects, and drops them."""

RENAMED = {
    r"backbone\.fpn_stride(8|16|32)_(conv|norm)": r"backbone.levels.\1.\2",
    r"roi_heads\.text_decoder\.textual\.": "text_decoder.",
}
"""Where parameter names differ from the checkpoint's: patterns and what they become."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was found in one frame, in words: boxes `(N, 4)`, scores `(N,)`, and the texts of each task."""

    boxes_N4: Array
    scores_N: Array
    texts: Mapping[Task, Sequence[str]]


Scaling = Callable[[Frames, int, int], Tensor]
"""Scales a frame `(H, W, 3)` to a height and a width: `(3, h, w)`, float32, 0 to 255."""


class FrameReader:
    """Runs the network on frames; those of the clip before are remembered, for whoever asks another question of them.

    Args:
        network: loaded.
        tokenizer: BERT's (uncased).
        runtime: where and how the network runs.
    """

    def __init__(self, network: Grit, tokenizer: BertTokenizer, runtime: Runtime) -> None:
        _grit_text.prepare(network, runtime)
        if runtime.compile:
            network.backbone.compile(dynamic=True)
        self.network = network
        self.describe = Describer(network.text_decoder, tokenizer)
        self.device = runtime.device
        # A frame has hundreds of patches, enough to keep a CPU busy.
        self.batch = 1 if runtime.device == "cpu" else runtime.batch
        self.tasks: list[Task] = []
        self.remembered: OrderedDict[bytes, Found] = OrderedDict()

    def also(self, *tasks: Task) -> FrameReader:
        """Write texts for these tasks too, from now on: most of the work is the same for all."""
        self.tasks += [task for task in tasks if task not in self.tasks]
        return self

    def read(self, frames_THWC: Frames, scale: Scaling) -> list[Found]:
        """What is found in each of at most `FRAMES` frames; equal ones are looked at once."""
        height, width = reduced(*frames_THWC.shape[1:3])
        scales = (height, width) != frames_THWC.shape[1:3]
        keys = [_fingerprint(frame_HWC, scale if scales else None) for frame_HWC in frames_THWC]
        new = {key: i for i, key in enumerate(keys) if not self._knows(key)}
        for start in range(0, len(new), self.batch):
            batch = list(new.items())[start : start + self.batch]
            chosen = [frames_THWC[i] for _, i in batch]
            x_B3HW = torch.stack([scale(frame, height, width) if scales else _to_tensor(frame) for frame in chosen])
            for (key, _), found in zip(batch, self.look(x_B3HW), strict=True):
                self.remembered[key] = found
        result = [self.remembered[key] for key in keys]
        while len(self.remembered) > FRAMES:
            self.remembered.popitem(last=False)
        return result

    def _knows(self, key: bytes) -> bool:
        known = self.remembered.pop(key, None)
        if known is None or not known.texts.keys() >= set(self.tasks):
            return False
        self.remembered[key] = known  # the last to be forgotten
        return True

    def look(self, x_B3HW: Tensor) -> Iterator[Found]:
        """What is found in frames of any size, values 0 to 255."""
        for found in self.network.detect(x_B3HW.to(self.device)):
            texts = self.describe(found.features_NSD, self.tasks)
            yield Found(found.boxes_N4.cpu().numpy(), found.scores_N.cpu().numpy(), texts)


def _fingerprint(frame_HWC: Frames, scale: Scaling | None) -> bytes:
    how = f"{frame_HWC.shape} {scale.__name__ if scale else ''}"
    return hashlib.sha256(how.encode() + frame_HWC.tobytes()).digest()


def reduced(height: int, width: int) -> tuple[int, int]:
    """The size at which a frame is looked at: sides are rounded down, so the shorter one may become 719."""
    if min(height, width) <= LARGEST:
        return height, width
    scale = REDUCED / min(height, width)
    return int(scale * height), int(scale * width)


def _to_tensor(frame_HWC: Frames) -> Tensor:
    return torch.from_numpy(frame_HWC).permute(2, 0, 1).float()


def scale_smoothly(frame_HWC: Frames, height: int, width: int) -> Tensor:
    """Bilinear with antialiasing, not rounded: torchvision's `Resize` on float frames, since version 0.17."""
    x_13HW = _to_tensor(frame_HWC)[None]
    return F.interpolate(x_13HW, (height, width), mode="bilinear", align_corners=False, antialias=True)[0]


def scale_as_opencv(frame_HWC: Frames, height: int, width: int) -> Tensor:
    """Bilinear without antialiasing, on bytes."""
    return _to_tensor(_opencv.resize(frame_HWC, height, width, slice(None), slice(None)))


def read_objects(reader: FrameReader, clip: Clip, frames_THWC: Frames) -> Array:
    """The names of what is in a clip's frames: see `detections`."""
    rows: list[Row] = []
    for frame, found in enumerate(reader.read(frames_THWC, scale_smoothly)):
        names = found.texts["ObjectDet"]
        rows += zip(repeat(frame), found.boxes_N4, found.scores_N, names, names, strict=False)
    return detections(rows)


def read_captions(reader: FrameReader, clip: Clip, frames_THWC: Frames) -> Array:
    """Descriptions of what is in a clip's frames: see `detections`."""
    rows: list[Row] = []
    for frame, found in enumerate(reader.read(frames_THWC, scale_as_opencv)):
        first = repeat(next(iter(found.texts["ObjectDet"]), ""))
        rows += zip(repeat(frame), found.boxes_N4, found.scores_N, first, found.texts["DenseCap"], strict=False)
    return detections(rows)


def load_network(store: WeightStore) -> Grit:
    """The network with the weights of the official checkpoint.

    Raises:
        UserError: the checkpoint is missing or is another model's.
    """
    with torch.device("meta"):
        network = Grit()
    tensors = drop_copies(store.state_dict(CHECKPOINT), CHECKPOINT)
    load_strict(network, {rename(k): v for k, v in tensors.items() if not k.startswith(UNUSED)}, CHECKPOINT)
    return network


def rename(name: str) -> str:
    """The name here of a tensor of the checkpoint."""
    for pattern, replacement in RENAMED.items():
        name = re.sub(f"^{pattern}", replacement, name)
    return name


def shared_reader(store: WeightStore, runtime: Runtime) -> FrameReader:
    """The reader that both extractors use, loaded by the first of them."""
    return store.shared(f"grit {runtime}", lambda: FrameReader(load_network(store), load_tokenizer(store), runtime))


def extractor_of(reader: FrameReader, read: Callable[[FrameReader, Clip, Frames], Array]) -> SelectedFrames:
    """The extractor that asks `read` of a clip's middle frames."""
    return SelectedFrames(partial(middle_frames, count=FRAMES), partial(read, reader))


def load_objects(store: WeightStore, runtime: Runtime) -> SelectedFrames:
    """Build the extractor of names; raises as `load_network` does."""
    return extractor_of(shared_reader(store, runtime).also("ObjectDet"), read_objects)


def load_captions(store: WeightStore, runtime: Runtime) -> SelectedFrames:
    """Build the extractor of descriptions; raises as `load_network` does."""
    return extractor_of(shared_reader(store, runtime).also("ObjectDet", "DenseCap"), read_captions)
