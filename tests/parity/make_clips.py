"""Make the parity clips: a camera moving over photographs that ship with scikit-image, encoded as H.264.

The clips are committed, because another ffmpeg build may encode other bytes; run this only to make new ones
(`python -m tests.parity.make_clips`), and `make parity` with `--update` afterwards.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import skimage.data
from av.video.reformatter import Colorspace
from PIL import Image, ImageEnhance

FOLDER = Path(__file__).with_name("clips")
FPS = 8


@dataclass(frozen=True, slots=True)
class Shot:
    """One clip.

    `span` is the shown share of the photograph's limiting side, `pan` its drift in pixels a frame. A `bt709` tag parts
    the two decoders of the official package: decord heeds it, OpenCV does not.
    """

    name: str
    photograph: str
    prompt: str
    width: int
    height: int
    n_frames: int
    span: float
    pan: tuple[float, float]
    flicker: float = 0.0
    bt709: bool = False


SHOTS = (
    Shot("square", "astronaut", "a smiling astronaut in an orange space suit", 256, 256, 7, 0.7, (6.3, 4.1)),
    Shot("wide", "coffee", "a cup of coffee on a wooden table", 328, 184, 8, 0.6, (9.7, 3.3), 0.12, bt709=True),
    Shot("tall", "chelsea", "a cat looking at the camera", 152, 270, 9, 0.9, (12.4, 0.8)),
    Shot("large", "rocket", "a rocket launch at night", 640, 362, 5, 0.8, (2.6, 8.9), 0.05),
)


def frames(shot: Shot) -> Iterator[Image.Image]:
    """The views of a camera that drifts over the photograph and slowly closes in."""
    photograph = Image.fromarray(getattr(skimage.data, shot.photograph)())
    scale = shot.span * min(photograph.width / shot.width, photograph.height / shot.height)
    for t in range(shot.n_frames):
        zoom = scale * (1 - 0.01 * t)
        left, top = 3 + shot.pan[0] * t, 2 + shot.pan[1] * t
        box = (left, top, left + zoom * shot.width, top + zoom * shot.height)
        view = photograph.resize((shot.width, shot.height), Image.Resampling.BICUBIC, box=box)
        yield ImageEnhance.Brightness(view).enhance(1 + shot.flicker * math.sin(2.2 * t))


def encode(shot: Shot, path: Path) -> None:
    """Write the clip as H.264, 4:2:0."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = shot.width, shot.height, "yuv420p"
        stream.codec_context.thread_count = 1
        matrix = Colorspace.ITU709 if shot.bt709 else Colorspace.ITU601
        if shot.bt709:
            stream.codec_context.colorspace = Colorspace.ITU709.value
        for image in frames(shot):
            frame = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24").reformat(
                format="yuv420p", dst_colorspace=matrix
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def main() -> None:
    lines = []
    for shot in SHOTS:
        encode(shot, FOLDER / f"{shot.name}.mp4")
        record = {"file": f"{shot.name}.mp4", "prompt_id": shot.name, "prompt": shot.prompt, "seed": 0}
        lines.append(json.dumps(record) + "\n")
    (FOLDER / "manifest.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
