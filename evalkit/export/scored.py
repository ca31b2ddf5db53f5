"""A scored run as an entry: what its record says, under names that say whose numbers they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit.export.entry import Curve, Entry, csv_text, flat, moment, present
from evalkit.records import RunRecord
from evalkit.store import content_key
from evalkit.untrusted import shown

NOTES = {
    "official": "VBench",
    "lite": "lite stand-ins, not VBench",
    "vbench-long": "VBench-Long, not comparable with VBench",
    "vbench-i2v": "VBench-I2V, not comparable with VBench",
}
FACTS = ("file", "prompt_id", "prompt", "seed")


def scored_entry(record: RunRecord, name: str | None = None, curves: Mapping[str, Curve] | None = None) -> Entry:
    """A scored run.

    Args:
        record: the run, loaded whole.
        name: of the entry; the directory's by default.
        curves: of the training of the model that it scores.
    """
    summary, manifest = record.summary, record.manifest
    group = _group(summary)
    numbers, missing = present(_numbers(summary, group))
    name = shown(name or record.name)
    suite = manifest["suite"]
    return Entry(
        name=name,
        identity=content_key(
            name=name, videos=manifest["videos_dir"], suite=suite["sha256"], config=manifest["config_sha256"]
        ),
        finished=moment(manifest["finished"]),
        interrupted=bool(summary.get("interrupted", False)),
        numbers=numbers | {"missing/values": float(len(missing))},
        missing=missing,
        curves=curves or {},
        samples=_samples(summary, group),
        settings=flat("config.", manifest["config"])
        | flat("suite.", suite)
        | {"videos_dir": manifest["videos_dir"], "config_sha256": manifest["config_sha256"]},
        origin=_origin(summary, manifest),
        tables={"videos.csv": _videos(summary)},
        pictures=_pictures(record),
        report=_existing(record.path / "report.html"),
    )


def _group(summary: Mapping[str, Any]) -> str:
    """What sets numbers apart that bear the names of VBench's and are not VBench's."""
    parts = [] if summary["profile"] == "lite" or summary["precision"] == "fp32" else [summary["precision"]]
    parts += ["foreign-weights"] if summary.get("foreign_weights") else []
    return "".join(f"{part}/" for part in parts)


def _numbers(summary: Mapping[str, Any], group: str) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, dimension in summary["dimensions"].items():
        low, high = dimension["ci95"] or (None, None)
        found |= {
            f"score/{group}{name}": dimension["score"],
            f"ci95_low/{group}{name}": low,
            f"ci95_high/{group}{name}": high,
            f"scored/{group}{name}": dimension["n"],
            f"unscored/{group}{name}": dimension["unscored"],
        }
    headlines = {name: value for name, value in summary["aggregate"].items() if name != "coverage"}
    found |= {f"headline/{group}{name}": value for name, value in headlines.items()}
    return found | {
        "missing/prompts": len(summary["missing_prompts"]),
        "missing/unmatched_files": len(summary["unmatched_files"]),
    }


def _samples(summary: Mapping[str, Any], group: str) -> dict[str, Sequence[float]]:
    found: dict[str, list[float]] = {}
    for video in summary["videos"]:
        for name, value in video["scores"].items():
            found.setdefault(f"videos/{group}{name}", []).append(value)
    return dict(found)


def _videos(summary: Mapping[str, Any]) -> str:
    """A row a video, a column a dimension; an empty cell is a score that there is not."""
    names = list(summary["dimensions"])
    return csv_text((*FACTS, *names), (_row(video) for video in summary["videos"]))


def _row(video: Mapping[str, Any]) -> dict[str, Any]:
    return {name: video[name] for name in FACTS} | dict(video["scores"])


def _pictures(record: RunRecord) -> dict[str, Path]:
    """Stills of the videos with the lowest and the highest score of each dimension."""
    found: dict[str, Path] = {}
    summary = record.summary
    for name in summary["dimensions"]:
        scored = [v for v in summary["videos"] if name in v["scores"] and v["sha256"]]
        if scored:
            ranked = sorted(scored, key=lambda v: (v["scores"][name], v["file"]))
            for place, video in (("lowest", ranked[0]), ("highest", ranked[-1])):
                poster = record.poster(video["sha256"])
                if poster.is_file():
                    found[f"{place}/{name}"] = poster
    return found


def _origin(summary: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, str]:
    facts = {key: manifest.get(key) or {} for key in ("git", "packages", "hardware", "weights")}
    caveats = [caveat["text"] for caveat in summary.get("comparability", [])]
    profile = summary["profile"]
    return {
        "schema": summary["schema"],
        "profile": profile,
        "what": NOTES.get(profile, profile),
        "precision": summary["precision"],
        "command": " ".join(map(str, manifest["command"])),
        "comparability": " ".join(caveats),
        "foreign_weights": ", ".join(summary.get("foreign_weights", [])),
        "unavailable": ", ".join(summary.get("unavailable", {})),
        **flat("", facts),
    }


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None
