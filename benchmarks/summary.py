"""From measured parts to ratios: how many times faster than the official package, and at what deviation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.parity.dimensions import NETWORKS, VIDEO_SCALE

Record = dict[str, Any]


def ratios(parts: Mapping[str, Record]) -> Record:
    """Official cost over this project's (above 1: this project is better), and deviations of the scores."""
    theirs, ours = parts["official"]["dimensions"], parts["native"]
    pixels = parts["pixels"]
    total = {clock: sum(entry[clock] for entry in theirs.values()) for clock in ("wall_s", "cpu_s")}
    peak = max(entry["peak_bytes"] for entry in theirs.values())
    return {
        "seconds": {
            "official": total,
            "fp32": _clocks(ours),
            "bf16": _clocks(parts["bf16"]),
            "warm": _clocks(parts["warm"]),
        },
        "speedup": {
            name: {clock: total[clock] / parts[part][clock] for clock in total}
            for name, part in (("fp32", "native"), ("bf16", "bf16"), ("warm", "warm"))
        },
        "speedup_by_dimension": {
            name: {clock: theirs[name][clock] / parts["by_dimension"][name][clock] for clock in total}
            for name in NETWORKS
        },
        "deviation": {"fp32": _deviations(theirs, ours), "bf16": _deviations(theirs, parts["bf16"])},
        "without_networks": _without_networks(pixels["official"], pixels["native"]),
        "decodes_per_video": {side: pixels[side]["decodes_per_video"] for side in ("official", "native")},
        "peak_bytes": {"official": peak, "fp32": ours["peak_bytes"], "bf16": parts["bf16"]["peak_bytes"]},
    }


def _clocks(cost: Record) -> Record:
    return {clock: cost[clock] for clock in ("wall_s", "cpu_s")}


def _deviations(theirs: Record, ours: Record) -> Record:
    """Largest difference of a video's score, and that of the dimension's, per dimension."""
    deviations = {}
    for name, mine in ours["scores"].items():
        scale = VIDEO_SCALE[name]
        videos = (abs(value * scale - mine["videos"][file]) for file, value in theirs[name]["videos"].items())
        deviations[name] = {"video": max(videos), "dimension": abs(theirs[name]["score"] - mine["score"])}
    return deviations


def _without_networks(theirs: Record, ours: Record) -> Record:
    """Processor seconds per video: one decode and all bookkeeping here; flickering, or all seven decodes, there."""
    seconds = theirs["cpu_s"]
    alone, all_seven = seconds["temporal_flickering"] / theirs["clips"], sum(seconds.values()) / theirs["clips"]
    own = ours["cpu_s"] / ours["clips"]
    return {
        "official_flickering_cpu_s": alone,
        "official_seven_decodes_cpu_s": all_seven,
        "native_cpu_s": own,
        "speedup_flickering": alone / own,
        "speedup_seven": all_seven / own,
    }


def table(found: Record) -> str:
    """The ratios as text."""
    lines = [f"{'custom seven':<26}{'wall s':>10}{'cpu s':>10}{'faster, wall':>14}{'faster, cpu':>13}"]
    for name, seconds in found["seconds"].items():
        speedup = found["speedup"].get(name, {"wall_s": 1.0, "cpu_s": 1.0})
        clocks = f"{seconds['wall_s']:>10.1f}{seconds['cpu_s']:>10.1f}"
        lines.append(f"{name:<26}{clocks}{speedup['wall_s']:>14.2f}{speedup['cpu_s']:>13.2f}")
    lines.append(f"\n{'dimension':<26}{'faster, cpu':>12}{'fp32 deviation':>16}{'bf16 deviation':>16}")
    for name, speedup in found["speedup_by_dimension"].items():
        deviation = (found["deviation"][precision][name]["video"] for precision in ("fp32", "bf16"))
        lines.append(f"{name:<26}{speedup['cpu_s']:>12.2f}" + "".join(f"{value:>16.1e}" for value in deviation))
    bare, peak, decodes = found["without_networks"], found["peak_bytes"], found["decodes_per_video"]
    lines += [
        f"\nwithout networks, faster: {bare['speedup_flickering']:.2f} (flickering alone),"
        f" {bare['speedup_seven']:.2f} (the decodes of all seven)",
        f"decodes per video: official {decodes['official']}, here {decodes['native']:g}",
        "peak memory, GiB: " + ", ".join(f"{name} {size / 2**30:.2f}" for name, size in peak.items()),
    ]
    return "\n".join(lines)
