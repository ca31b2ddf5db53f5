"""Checks of this machine: each really does, on a small scale, what it vouches for."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evalkit import provenance


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: `ok`, `missing` (something optional) or `broken` (something essential)."""

    what: str
    state: Literal["ok", "missing", "broken"]
    found: str
    remedy: str = ""


def checks() -> Iterator[Check]:
    """Run every check."""
    for what, check in {
        "packages": _packages,
        "decode and encode H.264": _video,
        "write files": _disk,
        "lite profile": _lite,
        "torch": _torch,
        "GPU": _gpu,
        "official profile": _official,
        "full prompt suite": _full_suite,
    }.items():
        yield _guarded(what, check)


def _guarded(what: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as e:  # noqa: BLE001  # a doctor must survive whatever is wrong with the patient
        return Check(what, "broken", f"{type(e).__name__}: {e}", "Install again with `make install`.")


def _packages() -> Check:
    versions = provenance.packages()
    absent = [name for name, version in versions.items() if version == "not installed"]
    found = ", ".join(f"{name} {versions[name]}" for name in ("m4v-eval", "python", "torch", "av", "numpy"))
    if absent:
        return Check("packages", "broken", f"not installed: {', '.join(absent)}", "Install again with `make install`.")
    return Check("packages", "ok", found)


def _video() -> Check:
    import av
    import numpy as np

    from evalkit.video import probe, read

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=8)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for value in range(3):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * value, np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        frames = sum(len(chunk.frames_THWC) for chunk in read(path, probe(path)))
    what = "decode and encode H.264"
    if frames != 3:
        return Check(what, "broken", f"{frames} of 3 frames", "Install PyAV again: `pip install --force-reinstall av`.")
    return Check(what, "ok", f"PyAV {av.__version__}, 3 of 3 frames")


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    if not os.access(Path.cwd(), os.W_OK):
        return Check("write files", "missing", f"{Path.cwd()} is read-only", "Give --out a folder that can be written.")
    if free < 1:
        return Check("write files", "missing", f"{free:.2f} GiB free here", "Free space before a long run.")
    return Check("write files", "ok", f"{free:.0f} GiB free here")


def _lite() -> Check:
    from evalkit.metrics import registry

    return Check("lite profile", "ok", f"{len(registry('lite'))} dimensions without weights (not VBench)")


def _torch() -> Check:
    import torch

    return Check("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} CPU threads")


def _gpu() -> Check:
    import torch

    if torch.cuda.is_available():
        return Check("GPU", "ok", torch.cuda.get_device_name(0))
    return Check(
        "GPU", "missing", "none: networks run on the CPU", "Fine for small folders; use a GPU for full suites."
    )


def _official() -> Check:
    from evalkit.metrics import registry
    from evalkit.weights import WeightStore, default_root

    store = WeightStore(default_root())
    metrics = registry("official").values()
    ready = [m.name for m in metrics if all(store.has(c) for f in m.features for c in f.checkpoints)]
    found = f"weights for {len(ready)} of {len(metrics)} dimensions in {store.root}"
    if len(ready) < len(metrics):
        return Check("official profile", "missing", found, "Run `m4v-eval weights pull`, or use --profile lite.")
    return Check("official profile", "ok", found)


def _full_suite() -> Check:
    from evalkit.errors import UserError
    from evalkit.prompts import load_suite

    try:
        return Check("full prompt suite", "ok", f"{len(load_suite('full').prompts)} prompts")
    except UserError as e:
        return Check("full prompt suite", "missing", "not installed", e.remedy)
