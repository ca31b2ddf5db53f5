"""What both sides of the comparison share for VBench-Long and VBench-I2V: clips, checkpoints and their tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from tests.parity import recipe

HERE = Path(__file__).parent
CLIPS = HERE / "clips"
GOLDEN = HERE / "long_i2v_golden.json"

FILES = {
    "dino": "dino_model/dino_vitbase16_pretrain.pth",
    "dinov2": "dino_model/dinov2_vitb14_pretrain.pth",
    "dreamsim_clip": "dreamsim/clip_vitb16_pretrain.pth.tar",
    "dreamsim_open_clip": "dreamsim/open_clip_vitb16_pretrain.pth.tar",
    "dreamsim_adapter": "dreamsim/ensemble_lora/adapter_model.safetensors",
}
ADAPTER_CONFIG = {
    "base_model_name_or_path": None,
    "bias": "none",
    "inference_mode": True,
    "lora_alpha": 0.5,
    "lora_dropout": 0.3,
    "peft_type": "LORA",
    "r": 16,
    "target_modules": ["qkv"],
    "task_type": None,
}
"""As in the published adapter (DreamSim's own configuration, checkpoints of version 0.2.0)."""

PICTURES = {"square": (0, 20, 10), "wide": (3, 0, 30), "tall": (5, 40, 0), "large": (2, 12, 50)}
"""By clip: the frame that serves as its picture, and how much is cut off at the top and at the left."""

FULL_SIZE_CLIPS = ("large",)
"""Clips that networks of the published size are run on."""

LONG_CLIPS: Mapping[str, tuple[Fraction, tuple[tuple[str, int], ...]]] = {
    "three parts": (Fraction(5), (("astronaut", 27),)),
    "odd rate": (Fraction(11, 2), (("coffee", 20),)),
    "short": (Fraction(5), (("chelsea", 8),)),
    "two cuts": (Fraction(5), (("rocket", 17), ("coffee", 24), ("astronaut", 15))),
}
"""By name: frame rate, and the shots of which it consists, as photograph and frames."""

SIZE = (144, 96)

SUBSAMPLE = 97
"""Of a network's vector every 97th number is kept."""


def expand(entry: Mapping[str, Any], depth: int | None) -> dict[str, tuple[int, ...]]:
    """Undo `recipe.collapse`; `depth` keeps only that many blocks of every stack."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in entry["tensors"].items():
        blocks = min(entry["stacks"][name.split("#")[0]], depth or 99) if "#" in name else 1
        shapes |= {name.replace("#", str(i)): tuple(shape) for i in range(blocks)}
    return shapes


def write_checkpoints(cache: Path, table: Mapping[str, Any], depth: int | None) -> dict[str, str]:
    """Write all checkpoints in the published layout and format; return the fingerprint of each one's weights."""
    from safetensors.torch import save_file

    fingerprints = {}
    for network, file in FILES.items():
        shapes = recipe.shapes("dino", depth) if network == "dino" else expand(table[network], depth)
        weights = recipe.weights(network, shapes)
        tensors = {name: torch.from_numpy(tensor) for name, tensor in weights.items()}
        path = cache / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            save_file(tensors, path, metadata={"format": "pt"})
        else:
            torch.save({"state_dict": tensors} if path.suffix == ".tar" else tensors, path)
        fingerprints[network] = recipe.fingerprint(weights)
    config = cache / FILES["dreamsim_adapter"]
    config.with_name("adapter_config.json").write_text(json.dumps(ADAPTER_CONFIG), encoding="utf-8")
    return fingerprints


def write_long_clips(folder: Path) -> None:
    """Make the long clips, losslessly: the committed photographs of scikit-image, shifted a little every frame."""
    import skimage.data

    width, height = SIZE
    folder.mkdir(parents=True, exist_ok=True)
    for name, (rate, shots) in LONG_CLIPS.items():
        frames = [
            getattr(skimage.data, photograph)()[20 + t : 20 + t + height, 30 + 3 * t : 30 + 3 * t + width, :3]
            for photograph, n in shots
            for t in range(n)
        ]
        write_lossless(folder / f"{name}.mp4", np.stack(frames), rate)


def write_lossless(path: Path, frames_THWC: Any, rate: Fraction) -> None:
    """Encode so that decoding gives the same pixels."""
    _encode(path, frames_THWC, rate, "libx264rgb", "rgb24", {"crf": "0"})


def write_as_torchvision(path: Path, frames_THWC: Any, rate: Fraction) -> None:
    """Encode as `torchvision.io.write_video` did (it is gone since 0.25): H.264 with libx264's defaults."""
    _encode(path, frames_THWC, rate, "libx264", "yuv420p", {})


def _encode(path: Path, frames_THWC: Any, rate: Fraction, codec: str, pixels: str, options: dict[str, str]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames_THWC.shape[1:3], pixels
        for frame_HWC in frames_THWC:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_pictures(folder: Path) -> None:
    """Save each clip's picture as PNG, named after the clip."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for name, (index, top, left) in PICTURES.items():
        with av.open(str(CLIPS / f"{name}.mp4")) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        Image.fromarray(frames[index][top:, left:]).save(folder / f"{name}.png")


def waves() -> Any:
    """A picture `(1, 3, 224, 224)`, float32, in multiples of 1/255."""
    y, x = np.mgrid[:224, :224]
    channels = (np.sin(x / 9 + y / 31), np.cos(y / 7 - x / 50), np.sin((x + y) / 13))
    return (np.rint(127.5 + 127 * np.stack(channels))[None] / 255).astype(np.float32)
