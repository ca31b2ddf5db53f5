"""Rates from the timings of runs, and the sizes that their files have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.budget import stated
from evalkit.budget.rates import Affine, Clip, Rate, Rates
from evalkit.errors import UserError
from evalkit.records import load_run
from evalkit.timings import TIMINGS, Spent, Timings, read

if TYPE_CHECKING:
    import pandas as pd

WAITING = 0.1
"""From this share of the scoring on, networks waited because decoding is slower than they are."""
HOW = "Score a few videos with m4v-eval vbench, and give its run directory with --from."


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes, where they could be measured.

    Args:
        per_pixel: of the videos.
        poster: of one.
        per_result: of a run's records, for one video in one dimension.
    """

    per_pixel: float | None = None
    poster: float | None = None
    per_result: float | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """What runs tell a planner.

    Args:
        rates: for videos of the size that was measured.
        sizes: of files.
        left_out: commands that were not used, and why.
    """

    rates: Rates
    sizes: Sizes
    left_out: tuple[str, ...]


def measure(runs: Sequence[Path]) -> Measured:
    """Read runs on the hardware that the last of them used.

    Raises:
        UserError: a run without timings, or a damaged file.
    """
    found = [(run, timings) for run in runs for timings in _timings(run)]
    device = _place(found[-1][1])
    used = [(run, t) for run, t in found if _place(t) == device]
    others = sorted({_named(_place(t)) for _, t in found if _place(t) != device})
    timings = [t for _, t in used]
    tables = {run: _table(run) for run in dict.fromkeys(run for run, _ in used)}
    scored = sum((t.score for t in timings), Spent())
    clip = _clip([table for table in tables.values() if table is not None], scored)
    decode, decode_source = _decode(timings, clip)
    rates = Rates(
        source=f"measured in {', '.join(map(str, dict.fromkeys(run for run, _ in used)))}",
        serial=_serial([(run, t, tables[run]) for run, t in used]),
        device=device[0],
        hardware=device[1],
        features=_features(timings, scored),
        overhead=_overhead(timings),
        decode=decode,
        decode_source=decode_source,
        setup=_setup(timings),
        start=_start(timings),
        clip=clip,
        commands=len(timings),
    )
    left_out = tuple(f"commands on {name}: the plan is for {_named(device)}" for name in others)
    return Measured(rates, _sizes(tables), left_out)


def _timings(run: Path) -> list[Timings]:
    if not run.is_dir():
        raise UserError(f"{run} is no run directory.", HOW)
    found = [t for t in read(run) if t.score.videos and t.score.frames]
    if not found:
        raise UserError(f"{run} has no timings of scored videos ({TIMINGS}).", HOW)
    return found


def _place(timings: Timings) -> tuple[str, str]:
    device = timings.device.partition(":")[0]
    name = timings.hardware.get("cpu") if device == "cpu" else timings.hardware.get("gpu")
    return device, str(name or device)


def _named(place: tuple[str, str]) -> str:
    return place[1]


def _rate(pairs: Iterable[tuple[float, float]], times: float) -> Rate:
    """The quotient of sums, and the least and the greatest quotient; each times `times`."""
    known = [(above, below) for above, below in pairs if below]
    if not known:
        return Rate.exactly(0.0)
    each = [above / below for above, below in known]
    mean = sum(above for above, _ in known) / sum(below for _, below in known)
    return Rate(mean, min(each), max(each)) * times


def _features(timings: Sequence[Timings], scored: Spent) -> dict[str, Rate]:
    """Seconds a video of mean length; taken a frame, since commands may have scored clips of other lengths."""
    frames = scored.frames / scored.videos
    names = dict.fromkeys(name for t in timings for name in t.features)
    spent = {name: [t.features[name] for t in timings if name in t.features] for name in names}
    return {name: _rate(((s.seconds, s.frames) for s in all_), frames) for name, all_ in spent.items()}


def _overhead(timings: Sequence[Timings]) -> Rate:
    def rest(t: Timings) -> float:
        return max(0.0, t.score.seconds - t.waiting.seconds - sum(s.seconds for s in t.features.values()))

    return _rate(((rest(t), t.score.videos) for t in timings), 1.0)


def _setup(timings: Sequence[Timings]) -> Rate:
    """Seconds a worker; commands that loaded nothing say nothing."""
    return _rate(((t.setup.seconds, t.workers) for t in timings if t.setup.seconds), 1.0)


def _start(timings: Sequence[Timings]) -> Rate | None:
    """Seconds until a worker process is ready; commands with one worker have none beside their own."""
    started = [(t.start.seconds, t.start.videos) for t in timings if t.start.videos]
    return _rate(started, 1.0) if started else None


def _decode(timings: Sequence[Timings], clip: Clip) -> tuple[Rate, str]:
    """Seconds of one core a video: what networks waited for, or at most what they took themselves."""
    scored = sum((t.score for t in timings), Spent())
    waited = sum((t.waiting for t in timings), Spent())
    whole = _rate(((t.score.seconds, t.score.videos) for t in timings), 1.0)
    if waited.seconds > WAITING * scored.seconds:
        return whole, "measured: networks waited for frames"
    guess = stated.DECODE_S_PER_PIXEL * (clip.frames or 0) * (clip.pixels or 854 * 480)
    if guess >= whole.mean:
        return whole, "at most what the networks took: they did not wait for frames"
    return Rate.exactly(guess), f"stated: {stated.DECODE_SOURCE}"


def _serial(used: Sequence[tuple[Path, Timings, pd.DataFrame | None]]) -> dict[str, Affine]:
    """Each stage's longest measured time, taken apart into a fixed part and one for each video by the stated shape.

    The longest, for a resumed command finds most of it done.
    """
    found = {}
    for stage, shape in stated.SERIAL.items():
        times = [
            t.wall[stage] / shape(t.score.videos if table is None else int(table["file"].nunique()))
            for _, t, table in used
            if stage in t.wall
        ]
        scale = max(times, default=1.0)
        found[stage] = Affine(shape.fixed * scale, shape.per_video * scale)
    return found


def _table(run: Path) -> pd.DataFrame | None:
    """A run's results; None if it has not been summarised."""
    return load_run(run).results if (run / "run.json").exists() else None


def _clip(tables: Sequence[pd.DataFrame], scored: Spent) -> Clip:
    """The usual size of the videos."""
    import pandas as pd

    frames = scored.frames / scored.videos
    if not tables:
        return Clip(frames)
    files = pd.concat([table.drop_duplicates("file") for table in tables]).dropna(subset=["width", "height"])
    if files.empty:
        return Clip(frames)
    [((width, height), _)] = Counter(zip(files["width"], files["height"], strict=True)).most_common(1)
    return Clip(frames, int(width), int(height), float(files["fps"].median()))


def _sizes(tables: Mapping[Path, pd.DataFrame | None]) -> Sizes:
    found = [(run, table) for run, table in tables.items() if table is not None]
    posters = [path.stat().st_size for run, _ in found for path in (run / "posters").glob("*.jpg")]
    results = sum(len(table) for _, table in found)
    records = sum(
        _bytes(run / name) for run, _ in found for name in ("results.jsonl", "results.parquet", "vbench.json")
    )
    return Sizes(
        per_pixel=_per_pixel(found),
        poster=sum(posters) / len(posters) if posters else None,
        per_result=records / results if results else None,
    )


def _per_pixel(found: Sequence[tuple[Path, pd.DataFrame]]) -> float | None:
    taken, pixels = 0, 0
    for run, table in found:
        folder = _videos_of(run)
        files = table.drop_duplicates("file").dropna(subset=["width", "height", "n_frames"])
        each = files["width"] * files["height"] * files["n_frames"]
        for file, count in zip(files["file"], each, strict=True):
            size = _bytes(folder / file) if folder else 0
            taken += size
            pixels += int(count) if size else 0
    return taken / pixels if pixels else None


def _videos_of(run: Path) -> Path | None:
    manifest: Mapping[str, Any] = load_run(run).manifest
    folder = manifest.get("videos_dir")
    return Path(folder) if isinstance(folder, str) else None


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
