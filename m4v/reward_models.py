"""Reward models: what reward learning pulls a video model towards.

A reward is a callable from pixels in [-1, 1], (B, T, H, W, 3), and a caption for each clip to a value for each clip,
(B,), differentiable in the pixels; higher is better. Two need no weights and belong to the world of shapes; two are
frozen networks read from the disk.

Axes: B clips, T frames, H height, W width, a last C for red, green, blue; N frames of all clips, F frames looked at,
E features, P colours of the palette.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m4v.data.shapes import PALETTE

Reward = Callable[[Tensor, Sequence[str]], Tensor]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
SHARPNESS = 10.0
"""Of the choice among colours: palette hues are at most 0.6 alike (cosine): the right one takes 98 %."""
TINY = 1e-6


def opponents(pixels_BTHWC: Tensor) -> Tensor:
    """Red against green and yellow against blue, (..., 2), of pixels in [-1, 1] taken as [0, 1]."""
    red, green, blue = ((pixels_BTHWC + 1) / 2).unbind(-1)
    return torch.stack([red - green, (red + green) / 2 - blue], dim=-1)


def colourfulness(pixels_BTHWC: Tensor, captions: Sequence[str]) -> Tensor:
    """Colourfulness plus contrast, (B,): an aesthetic reward that needs no weights. Captions do not matter.

    Colourfulness is sigma + 0.3 mu, with sigma and mu the lengths of the deviation and of the mean of the two opponent
    colours of a frame (Hasler and Suesstrunk 2003, eq. 10, for channels in [0, 1]); contrast is the deviation of the
    mean of the channels. Both are averaged over frames.
    """
    opposed_BTNC = opponents(pixels_BTHWC).flatten(2, 3)
    centre_BTC = opposed_BTNC.mean(2)
    sigma = length((opposed_BTNC - centre_BTC[:, :, None]).square().mean(2).sum(-1))
    grey_BTN = ((pixels_BTHWC + 1) / 2).mean(-1).flatten(2)
    contrast = length((grey_BTN - grey_BTN.mean(2, keepdim=True)).square().mean(2))
    return (sigma + 0.3 * length(centre_BTC.square().sum(-1)) + contrast).mean(1)


def length(square: Tensor) -> Tensor:
    """A square root whose slope at 0 is finite."""
    return (square + TINY).sqrt()


def named_colours(pixels_BTHWC: Tensor, captions: Sequence[str]) -> Tensor:
    """Share of the clip's colour that is of a colour its caption names, (B,) in [0, 1]: a text reward without weights.

    Every pixel chooses among the palette of the world of shapes by the direction of its opponent colours, softly, and
    counts by the square of their length, so that grey backgrounds have no say. 0 for a caption that names no colour.
    """
    palette_PC = torch.tensor(list(PALETTE.values())).to(pixels_BTHWC) / 127.5 - 1
    hue_P2 = F.normalize(opponents(palette_PC), dim=-1)
    opposed_B_2 = opponents(pixels_BTHWC).flatten(1, 3)
    chroma_B_ = opposed_B_2.square().sum(-1)
    alike_B_P = opposed_B_2 @ hue_P2.T / length(chroma_B_)[..., None]
    asked_BP = torch.tensor([[name in words(caption) for name in PALETTE] for caption in captions]).to(alike_B_P)
    right_B_ = torch.einsum("bnp,bp->bn", (SHARPNESS * alike_B_P).softmax(-1), asked_BP)
    return (right_B_ * chroma_B_).sum(1) / (chroma_B_.sum(1) + TINY)


def words(caption: str) -> list[str]:
    return re.findall(r"[a-z]+", caption.lower())


def shapes_rewards() -> dict[str, Reward]:
    """The pair of rewards for the world of shapes: nothing to download."""
    return {"aesthetic": colourfulness, "text": named_colours}


class View(NamedTuple):
    """How a network wants its frames: side in pixels, cut to a square or padded to one with black, mean and deviation.

    The frame is resized so that its shorter side (`crop`) or its longer side (`pad`) fits.
    """

    side: int
    fit: Literal["crop", "pad"] = "crop"
    mean: Sequence[float] = CLIP_MEAN
    std: Sequence[float] = CLIP_STD

    def of(self, frames_NHWC: Tensor) -> Tensor:
        """Frames in [-1, 1] as the network wants them, (N, 3, side, side); bicubic, differentiable."""
        x_NCHW = ((frames_NHWC + 1) / 2).movedim(-1, 1)
        height, width = x_NCHW.shape[2:]
        scale = self.side / (min if self.fit == "crop" else max)(height, width)
        size = [round(height * scale), round(width * scale)]
        x_NCHW = F.interpolate(x_NCHW, size, mode="bicubic", antialias=True).clamp(0, 1)
        spare_y, spare_x = self.side - size[0], self.side - size[1]  # negative where there is something to cut
        around = [spare_x // 2, spare_x - spare_x // 2, spare_y // 2, spare_y - spare_y // 2]
        mean, std = (torch.tensor(v, device=x_NCHW.device).view(3, 1, 1) for v in (self.mean, self.std))
        return (F.pad(x_NCHW, around) - mean) / std


class ImageTextReward(nn.Module, ABC):
    """Mean cosine between the frames of a clip and its caption under a frozen network, (B,) in [-1, 1].

    Args:
        network: image and text encoders; it follows the pixels to their device.
        view: how the network wants its frames.
        looks: frames looked at, evenly spread over the clip.
    """

    def __init__(self, network: nn.Module, view: View, looks: int) -> None:
        super().__init__()
        if looks < 1:
            raise ValueError(f"{looks} frames to look at: a reward looks at one at least")
        self.network: Any = network.eval().requires_grad_(False)
        self.view, self.looks = view, looks

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: the network is frozen."""
        return super().train(False)

    @abstractmethod
    def images(self, x_NCHW: Tensor) -> Tensor:
        """Features (N, E) of prepared frames."""

    @abstractmethod
    def texts(self, captions: Sequence[str], device: torch.device) -> Tensor:
        """Features (B, E) of captions."""

    def forward(self, pixels_BTHWC: Tensor, captions: Sequence[str]) -> Tensor:
        self.network.to(pixels_BTHWC.device)
        frames_BFHWC = pixels_BTHWC[:, spread(pixels_BTHWC.shape[1], self.looks)]
        image_NE = self.images(self.view.of(frames_BFHWC.flatten(0, 1).float()))
        with torch.no_grad():
            text_BE = self.texts(captions, pixels_BTHWC.device)
        image_BFE = torch.unflatten(F.normalize(image_NE, dim=-1), 0, (len(captions), -1))
        return (image_BFE * F.normalize(text_BE, dim=-1)[:, None]).sum(-1).mean(1)


def spread(frames: int, looks: int) -> list[int]:
    """The middle frames of `looks` equal parts of a clip; all frames if there are no more."""
    looks = min(looks, frames)
    return [(2 * k + 1) * frames // (2 * looks) for k in range(looks)]


class ClipReward(ImageTextReward):
    """The reward of a `CLIPModel` of transformers and its tokenizer (Radford et al., arXiv 2103.00020)."""

    def __init__(self, network: nn.Module, tokenizer: Any, view: View, looks: int = 4) -> None:
        super().__init__(network, view, looks)
        self.tokenizer = tokenizer

    def images(self, x_NCHW: Tensor) -> Tensor:
        pooled = self.network.vision_model(pixel_values=x_NCHW).pooler_output
        return cast(Tensor, self.network.visual_projection(pooled))

    def texts(self, captions: Sequence[str], device: torch.device) -> Tensor:
        limit = self.network.config.text_config.max_position_embeddings
        ids = self.tokenizer(list(captions), padding=True, truncation=True, max_length=limit, return_tensors="pt")
        pooled = self.network.text_model(
            input_ids=ids["input_ids"].to(device), attention_mask=ids["attention_mask"].to(device)
        ).pooler_output
        return cast(Tensor, self.network.text_projection(pooled))


class OpenClipReward(ImageTextReward):
    """The reward of a CLIP of open_clip and its tokenizer."""

    def __init__(self, network: nn.Module, tokenizer: Callable[[list[str]], Tensor], view: View, looks: int) -> None:
        super().__init__(network, view, looks)
        self.tokenizer = tokenizer

    def images(self, x_NCHW: Tensor) -> Tensor:
        return cast(Tensor, self.network.encode_image(x_NCHW))

    def texts(self, captions: Sequence[str], device: torch.device) -> Tensor:
        return cast(Tensor, self.network.encode_text(self.tokenizer(list(captions)).to(device)))


def clip_reward(folder: Path, looks: int = 4) -> ClipReward:
    """The text-image reward: CLIP as transformers saves it in a folder, with its tokenizer. Nothing is downloaded.

    Tested with small random networks; no published weights were run.

    Raises:
        ValueError: transformers is missing, or the folder does not hold a CLIP model and its tokenizer.
    """
    try:
        import transformers
    except ImportError as error:
        raise ValueError("transformers is not installed: pip install 'm4v-eval[real]'") from error
    kinds: Any = transformers
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: no CLIP model saved by transformers")
    try:
        network = kinds.CLIPModel.from_pretrained(folder, local_files_only=True)
        tokenizer = kinds.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder}: no CLIP model with a tokenizer ({str(error).splitlines()[0]})") from error
    return ClipReward(network, tokenizer, stated_view(folder, network.config.vision_config.image_size), looks)


def stated_view(folder: Path, side: int) -> View:
    """The mean and deviation that `preprocessor_config.json` of a folder states, CLIP's own if there is none."""
    file = folder / "preprocessor_config.json"
    said: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return View(side, "crop", said.get("image_mean", CLIP_MEAN), said.get("image_std", CLIP_STD))


def hpsv2_reward(path: Path, looks: int = 4, architecture: str = "ViT-H-14") -> OpenClipReward:
    """The aesthetic reward: Human Preference Score v2 (Wu et al., arXiv 2306.09341), a fine-tuned OpenCLIP ViT-H/14.

    As in the authors' code, a frame is resized by its longer side and padded with black, and the score is the cosine.
    Code and weights are published under Apache-2.0. Tested with small random networks; the published weights were not
    run.

    Args:
        path: the authors' checkpoint, such as `HPS_v2.1_compressed.pt`, or a folder with just one `HPS_v2*.pt`.
        looks: frames looked at, evenly spread over the clip.
        architecture: its name in open_clip.

    Raises:
        ValueError: there is no such file, or it holds another network.
    """
    import open_clip

    network = open_clip.create_model(architecture, pretrained=None)
    try:
        state = torch.load(checkpoint_in(path), map_location="cpu", weights_only=True)["state_dict"]
        network.load_state_dict(state)
    except (RuntimeError, KeyError, TypeError, OSError) as error:
        raise ValueError(f"{path}: no weights of {architecture} ({str(error).splitlines()[0]})") from error
    side = network.visual.image_size
    view = View(side[0] if isinstance(side, tuple) else side, "pad")
    return OpenClipReward(network, open_clip.get_tokenizer(architecture), view, looks)


def checkpoint_in(path: Path) -> Path:
    """The file itself, or the only `HPS_v2*.pt` of a folder.

    Raises:
        ValueError: the folder holds none, or several.
    """
    if not path.is_dir():
        return path
    found = sorted(path.glob("HPS_v2*.pt"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise ValueError(f"{path}: one HPS_v2*.pt is needed, and there are {names}: give the file itself")
    return found[0]
