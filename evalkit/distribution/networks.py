"""The two networks whose features are compared, and the frames that they read.

Array names: B batch, T frames, H height, W width, C channels, D feature width.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evalkit.backbones.base import Extractor, FeatureSpec, Runtime, SelectedFrames
from evalkit.errors import UserError
from evalkit.types import Array, Clip, Frames
from evalkit.weights import Checkpoint, WeightStore

if TYPE_CHECKING:
    from torch import nn

POOLED = 2048
"""The first columns of Inception's features are pooled activations, the rest are logits without their bias."""

CLIP_LENGTH = 16
"""Frames that I3D reads, as StyleGAN-V's protocol has it."""

SIDE = 224

INCEPTION = Checkpoint(
    key="inception-2015",
    file="distribution/weights-inception-2015-12-05-6726825d.pth",
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    size=95628359,
    licence="Apache-2.0",
    source="Google's Inception-v3 of 2015, converted by torch-fidelity",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)

I3D = Checkpoint(
    key="i3d-400",
    file="distribution/i3d_torchscript.pt",
    url="https://huggingface.co/flateon/FVD-I3D-torchscript/resolve/1c2d61711c52571ad617a1063e6fa691b212e184/i3d_torchscript.pt",
    size=51235320,
    licence="Apache-2.0 (DeepMind's I3D)",
    source="DeepMind's I3D of Kinetics-400, converted by the authors of StyleGAN-V",
    sha256="bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
    archive=True,
)


@dataclass(frozen=True, slots=True)
class Network:
    """A network, the width of what is compared, and the fewest frames that it reads."""

    feature: FeatureSpec
    width: int
    min_frames: int = 1


def inception(frames: int) -> Network:
    """Inception-v3 on `frames` frames of a clip, evenly spread; on all of them if it has fewer.

    Features `(T, 2048 + 1008)`. torch-fidelity's network scales frames to 299 x 299 as TensorFlow 1 does; it reads
    them as they were decoded.
    """

    def load(store: WeightStore, runtime: Runtime) -> Extractor:
        return SelectedFrames(lambda n: spread(n, frames), _inception(store, runtime))

    return Network(FeatureSpec(f"inception-2015, {frames} frames", 1, load, (INCEPTION,)), POOLED)


def i3d() -> Network:
    """I3D on the middle 16 frames of a clip: `(1, 400)`, the logits.

    Frames are scaled to 224 x 224 without regard to their aspect (bilinear, half-pixel centres, no antialiasing) and to
    [-1, 1], as StyleGAN-V and cd-fvd do. They take 16 frames from elsewhere in a clip: at random, and the first.
    """

    def load(store: WeightStore, runtime: Runtime) -> Extractor:
        return SelectedFrames(middle, _i3d(store, runtime))

    return Network(FeatureSpec("i3d-400", 1, load, (I3D,)), 400, CLIP_LENGTH)


def spread(n_frames: int, wanted: int) -> Sequence[int]:
    """The frames in the middle of `wanted` equal parts of a clip; every frame of a shorter clip."""
    wanted = min(n_frames, wanted)
    return [(2 * i + 1) * n_frames // (2 * wanted) for i in range(wanted)]


def middle(n_frames: int) -> Sequence[int]:
    """The middle 16 frames, the earlier ones if there are two such runs.

    Raises:
        ValueError: the clip is shorter.
    """
    if n_frames < CLIP_LENGTH:
        raise ValueError(f"needs {CLIP_LENGTH} frames")
    start = (n_frames - CLIP_LENGTH) // 2
    return range(start, start + CLIP_LENGTH)


def _inception(store: WeightStore, runtime: Runtime) -> Callable[[Clip, Frames], Array]:
    import torch

    network = _torch_fidelity(store).to(runtime.device)

    @torch.inference_mode()
    def embed(clip: Clip, frames_THWC: Frames) -> Array:
        features = []
        for start in range(0, len(frames_THWC), runtime.batch):
            batch_BCHW = torch.from_numpy(frames_THWC[start : start + runtime.batch]).permute(0, 3, 1, 2)
            features.append(torch.cat(network(batch_BCHW.to(runtime.device)), dim=1).cpu().numpy())
        return np.concatenate(features)

    return embed


def _torch_fidelity(store: WeightStore) -> nn.Module:
    """torch-fidelity's network with the published weights.

    Its constructor unpickles a file without restraint; it is given one that was written here, from tensors that were
    read with `weights_only`.
    """
    import torch

    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as e:
        raise UserError(
            "FID, KID and the Inception Score need the package torch-fidelity.",
            "Install it with `pip install 'm4v-eval[distribution]'`, or ask for `--measures fvd` alone.",
        ) from e
    buffer = io.BytesIO()
    torch.save(store.state_dict(INCEPTION), buffer)
    buffer.seek(0)
    layers = ["2048", "logits_unbiased"]
    try:
        network: nn.Module = FeatureExtractorInceptionV3(INCEPTION.key, layers, feature_extractor_weights_path=buffer)
    except RuntimeError as e:
        raise _unfit(INCEPTION, e) from e
    return network


def _i3d(store: WeightStore, runtime: Runtime) -> Callable[[Clip, Frames], Array]:
    import torch

    network = _archive(store).to(runtime.device)

    @torch.inference_mode()
    def embed(clip: Clip, frames_THWC: Frames) -> Array:
        video_BCTHW = to_i3d(frames_THWC).to(runtime.device)
        logits_BD = network(video_BCTHW, rescale=False, resize=False, return_features=True)
        return np.asarray(logits_BD.float().cpu().numpy())

    return embed


def to_i3d(frames_THWC: Frames) -> Any:
    """A clip as I3D reads it: a float tensor `(1, 3, T, 224, 224)` in [-1, 1]."""
    import torch
    from torch.nn import functional

    frames_TCHW = torch.from_numpy(frames_THWC).permute(0, 3, 1, 2).float()
    scaled_TCHW = functional.interpolate(frames_TCHW, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return (2.0 * scaled_TCHW / 255.0 - 1.0).transpose(0, 1)[None]


def _archive(store: WeightStore) -> nn.Module:
    """The TorchScript archive: it is code, so it is opened only if it is the published one, or on the user's word."""
    import torch

    store.sha256(I3D)
    try:
        with warnings.catch_warnings(action="ignore"):  # that torch.jit is deprecated is no news to the user
            network: nn.Module = torch.jit.load(str(store.path(I3D)), map_location="cpu")  # type: ignore[no-untyped-call]
    except RuntimeError as e:
        raise _unfit(I3D, e) from e
    return network.eval()


def _unfit(checkpoint: Checkpoint, error: Exception) -> UserError:
    why = str(error).strip().splitlines()[0][:160]
    return UserError(
        f"The file {checkpoint.file} is not the {checkpoint.key} checkpoint: {why}.",
        f"Fetch it again with `m4v-eval weights pull {checkpoint.key} --force`.",
    )
