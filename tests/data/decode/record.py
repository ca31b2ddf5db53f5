"""Record what the official package's readers make of the clips in this folder.

Run where `vbench` 0.1.5 is installed (numpy < 2, decord, opencv-python): `python tests/data/decode/record.py`.
The clips come from `tests.clips.write_clip(path, moving_scene(12, 50, 70))` with the matrix or range in their names.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import decord
import numpy as np
from vbench.temporal_flickering import cal_score, calculate_mae, get_frames

HERE = Path(__file__).parent
NOISE = [(480, 854, 0), (333, 501, 1), (1080, 1920, 2)]  # height, width, seed; sums far beyond 2**24


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def noise_mae(height: int, width: int, seed: int) -> float:
    first, second = np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    return float(calculate_mae(first[..., ::-1], second[..., ::-1]))


def main() -> None:
    decord.bridge.set_bridge("native")
    clips = {}
    for path in sorted(HERE.glob("*.mp4")):
        reader = decord.VideoReader(str(path), num_threads=1)
        frames = reader.get_batch(range(len(reader))).asnumpy()
        bgr = np.stack(get_frames(str(path)))
        clips[path.name] = {
            "shape": list(frames.shape),
            "decord_sha256": sha256(frames),
            "opencv_sha256": sha256(bgr[..., ::-1]),
            "temporal_flickering": cal_score(str(path)),
        }
    record = {
        "how": "python tests/data/decode/record.py, in an environment with vbench 0.1.5",
        "versions": {"decord": decord.__version__, "opencv": cv2.__version__, "numpy": np.__version__},
        "clips": clips,
        "noise_mae": [{"height": h, "width": w, "seed": s, "mae": noise_mae(h, w, s)} for h, w, s in NOISE],
    }
    (HERE / "official.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
