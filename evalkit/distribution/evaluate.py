"""Compare folders of videos as sets: identify, decode once, keep features, measure; resumable at every step."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from itertools import combinations
from pathlib import Path
from typing import Any

from evalkit.backbones.base import Runtime
from evalkit.decoding import Decoder
from evalkit.distribution.features import FeaturePass, Features, VideoSet, all_unscored, identify_set, list_videos
from evalkit.distribution.frechet import Gaussian
from evalkit.distribution.measures import MEASURES, REFERENCE, Measure, Sampled, Set
from evalkit.distribution.networks import CLIP_LENGTH, I3D, INCEPTION, Network, i3d, inception
from evalkit.distribution.rows import BASELINE, MIN_VIDEOS, OPTIONS, VIDEOS, row
from evalkit.distribution.statistics import Statistics, load, save
from evalkit.errors import UserError, unknown
from evalkit.files import write_atomically
from evalkit.job import Progress, Silent
from evalkit.lock import holding
from evalkit.provenance import git, hardware, packages
from evalkit.store import Journal
from evalkit.weights import Checkpoint, MissingWeights, WeightStore, default_root

SCHEMA = "m4v-eval/distribution/1"


@dataclass(frozen=True, slots=True)
class Request:
    """What to compare and how.

    Args:
        videos: folder of the model's videos.
        out: run directory; an existing one is resumed.
        reference: folder of real videos, or a file of their statistics.
        baseline: folder of another model's videos, to be compared with.
        measures: names; all by default.
        frames: frames of a video that Inception reads.
        splits: parts that the Inception Score is averaged over.
        weights: folder of checkpoints.
        trust_archives: open weights that are not the published files.
        runtime: device and batch of the networks.
        seed: of the groups that are left out and of the splits.
        save_statistics: where to write the reference's statistics.
    """

    videos: Path
    out: Path
    reference: Path | None = None
    baseline: Path | None = None
    measures: tuple[str, ...] = tuple(MEASURES)
    frames: int = 16
    splits: int = 1
    weights: Path = field(default_factory=default_root)
    trust_archives: bool = False
    runtime: Runtime = field(default_factory=Runtime)
    seed: int = 0
    save_statistics: Path | None = None

    def folders(self, measures: Iterable[Measure]) -> dict[str, Path]:
        """The folders to read, by role; no reference where nothing needs one or it is a file."""
        folders = {VIDEOS: self.videos}
        if self.reference and not self.reference.is_file() and any(m.needs != "nothing" for m in measures):
            folders[REFERENCE] = self.reference
        if self.baseline:
            folders[BASELINE] = self.baseline
        return folders


def evaluate(request: Request, progress: Progress | None = None, command: Sequence[str] = ()) -> dict[str, Any]:
    """Measure, and write `distribution.json` in the run directory; returns its content.

    Raises:
        UserError: bad input (before anything is computed), or a machine that stands in the way.
    """
    progress = progress or Silent()
    created = datetime.now(UTC)
    measures = _chosen(request)
    statistics = _statistics(request, measures)
    networks = _networks(request, measures)
    store = WeightStore(request.weights, request.trust_archives)
    checkpoints = {c.key: c for network in networks.values() for c in network.feature.checkpoints}
    _require(store, checkpoints.values())
    weights = {key: store.sha256(checkpoint) for key, checkpoint in checkpoints.items()}
    if statistics:
        _check_origin(request, measures, statistics, weights)
    with (
        holding(request.out, "Sets of videos are compared in it"),
        Journal(request.out / "results.jsonl") as journal,
        Decoder() as decoder,
    ):
        folders = request.folders(measures)
        sets = {role: identify_set(path, OPTIONS[role], journal, decoder, progress) for role, path in folders.items()}
        passed = FeaturePass(networks, weights, store, request.runtime, request.out, journal, decoder, progress)
        passed.fill(list(sets.values()))
        found = {name: {role: passed.features(videos, name) for role, videos in sets.items()} for name in networks}
        sampled = _sampled(measures, found, statistics, request.seed)
        if request.save_statistics:
            _save(request, sampled, weights)
        record = {
            "schema": SCHEMA,
            "sets": {role: {"path": str(s.folder), "n": len(s.videos)} for role, s in sets.items()}
            | ({REFERENCE: {"path": str(request.reference), "made_by": dict(statistics.about)}} if statistics else {}),
            "measures": {m.protocol: row(m, sampled[m.name], request.splits, request.seed, progress) for m in measures},
            "unscored": [{"set": role, "file": f, "reason": r} for role, f, r in all_unscored(found)],
            "caveats": [*_twins(sets), *_foreign(checkpoints, weights), *_unknown_origin(statistics)],
            "settings": {"frames": request.frames, "splits": request.splits, "seed": request.seed},
            "provenance": {
                "created": created.isoformat("T", "seconds"),
                "command": list(command),
                "weights": weights,
                "packages": packages() | _torch_fidelity(),
                "git": git(),
                "hardware": hardware(request.runtime.device),
            },
        }
        write_atomically(request.out / "distribution.json", as_json(record))
    return record


def as_json(record: Mapping[str, Any]) -> bytes:
    """The record as it is written."""
    return (json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def incomplete(record: Mapping[str, Any]) -> bool:
    """Whether a video or a measure is left out."""
    return bool(record["unscored"]) or any(row["unscored"] for row in record["measures"].values())


# --- before anything is computed --------------------------------------------------------------------------------------


def _chosen(request: Request) -> list[Measure]:
    """The measures asked for, if the options that they need are there."""
    for name in request.measures:
        if name not in MEASURES:
            raise unknown("measure", name, MEASURES)
    measures = [measure for name, measure in MEASURES.items() if name in request.measures]
    if not measures:
        raise UserError("No measure is asked for.", f"Choose from: {', '.join(MEASURES)}.")
    needy = [measure.name for measure in measures if measure.needs != "nothing"]
    if needy and request.reference is None:
        remedy = "Give a folder of real videos with --reference, or ask for `--measures is`."
        raise UserError(f"{', '.join(needy)} measure the distance from a reference, and there is none.", remedy)
    folders = request.folders(measures)
    for role, path in folders.items():
        list_videos(path, OPTIONS[role])
    for one, other in combinations(folders, 2):
        if folders[one].resolve() == folders[other].resolve():
            raise UserError(
                f"{OPTIONS[one]} and {OPTIONS[other]} are the same folder, {folders[one]}.",
                "Give two folders: the distance of a set from itself says nothing.",
            )
    if request.save_statistics and not (REFERENCE in folders and any(measure.width for measure in measures)):
        raise UserError(
            "--save-statistics has nothing to save.",
            "It writes what fid and fvd need of the folder of reference videos: give one, and ask for one of them.",
        )
    return measures


def _require(store: WeightStore, checkpoints: Iterable[Checkpoint]) -> None:
    """Raises MissingWeights that names every file that is not there."""
    if missing := [checkpoint for checkpoint in checkpoints if not store.has(checkpoint)]:
        raise MissingWeights(
            f"Missing in {store.root}: {', '.join(c.file for c in missing)}.",
            f"Run `m4v-eval weights pull {' '.join(c.key for c in missing)}`, or point --weights or $VBENCH_CACHE_DIR"
            " at the folder that holds them.",
        )


def _statistics(request: Request, measures: Sequence[Measure]) -> Statistics | None:
    """The reference's statistics, if it is a file, and if they are enough for what is asked."""
    if request.reference is None or not request.reference.is_file():
        return None
    for measure in measures:
        if measure.needs == "videos":
            raise UserError(
                f"{measure.name} compares videos one by one, and {request.reference} holds their mean and covariance.",
                "Give the folder of reference videos, or leave the measure out of --measures.",
            )
    return load(request.reference, [measure.name for measure in measures if measure.needs == "statistics"])


def _check_origin(
    request: Request, measures: Sequence[Measure], statistics: Statistics, weights: Mapping[str, str]
) -> None:
    """Statistics by another protocol or of other weights are refused."""
    if not statistics.about:
        return
    asked = _origin(measures, request.frames, weights)
    for name, facts in asked.items():
        made = statistics.about.get("measures", {}).get(name)
        if made != facts:
            raise UserError(
                f"The {name} statistics in {request.reference} were made with {made}, not with {facts}.",
                "Use the same --frames and weights, or write the statistics anew with --save-statistics.",
            )


def _origin(measures: Iterable[Measure], frames: int, weights: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """How the numbers of each Fréchet measure come about."""
    networks = {"inception": (INCEPTION, frames), "i3d": (I3D, CLIP_LENGTH)}
    facts = {}
    for measure in measures:
        if measure.width:
            checkpoint, n = networks[measure.network]
            facts[measure.name] = {"protocol": measure.protocol, "weights": weights[checkpoint.key], "frames": n}
    return facts


# --- what is measured -------------------------------------------------------------------------------------------------


def _networks(request: Request, measures: Iterable[Measure]) -> dict[str, Network]:
    known = {"inception": inception(request.frames), "i3d": i3d()}
    return {measure.network: known[measure.network] for measure in measures}


def _sampled(
    measures: Iterable[Measure],
    found: Mapping[str, Mapping[str, Features]],
    statistics: Statistics | None,
    seed: int,
) -> dict[str, dict[str, Set]]:
    """The sets that each measure compares; measures share the features of their network."""
    by_network = {
        network: {role: Sampled.of(features.found, seed) for role, features in sets.items()}
        for network, sets in found.items()
    }
    sampled: dict[str, dict[str, Set]] = {}
    for measure in measures:
        sampled[measure.name] = dict(by_network[measure.network])
        if measure.needs == "nothing":
            sampled[measure.name].pop(REFERENCE, None)
        elif statistics:
            sampled[measure.name][REFERENCE] = statistics.gaussians[measure.name]
    return sampled


def _save(request: Request, sampled: Mapping[str, Mapping[str, Set]], weights: Mapping[str, str]) -> None:
    """Write the statistics of the reference, as far as it has enough videos."""
    assert request.save_statistics is not None
    gaussians = {}
    for name, sets in sampled.items():
        reference = sets.get(REFERENCE)
        if MEASURES[name].width and isinstance(reference, Sampled) and len(reference.videos) >= MIN_VIDEOS:
            gaussians[name] = Gaussian.fit(reference.stacked(None, slice(0, MEASURES[name].width)))
    about = _origin((MEASURES[name] for name in gaussians), request.frames, weights)
    save(request.save_statistics, gaussians, {"measures": about})


def _torch_fidelity() -> dict[str, str]:
    try:
        return {"torch-fidelity": metadata.version("torch-fidelity")}
    except metadata.PackageNotFoundError:
        return {}


# --- what has to be said ----------------------------------------------------------------------------------------------


def _twins(sets: Mapping[str, VideoSet]) -> Iterator[str]:
    for one, other in combinations(sets, 2):
        if shared := len(sets[one].sha256s & sets[other].sha256s):
            videos = f"{shared} video{'s' * (shared > 1)}"
            yield f"{videos} in both {OPTIONS[one]} and {OPTIONS[other]}: that brings the sets closer together."
    for role, found in sets.items():
        if twins := sum(video.sha256 is not None for video in found.videos) - len(found.sha256s):
            yield f"{twins} file{'s' * (twins > 1)} in {OPTIONS[role]} with the same content as another: counted each."


def _foreign(checkpoints: Mapping[str, Checkpoint], weights: Mapping[str, str]) -> Iterator[str]:
    for key, checkpoint in checkpoints.items():
        if weights[key] != checkpoint.sha256:
            yield f"{checkpoint.file} is not the published file: the numbers compare with no others."


def _unknown_origin(statistics: Statistics | None) -> Iterator[str]:
    if statistics and not statistics.about:
        yield "The file of statistics does not say how they were made: frames, scaling and weights may be others."
