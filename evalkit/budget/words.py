"""What a reader of a plan must know, in plain sentences."""

from __future__ import annotations

from collections.abc import Iterator

from evalkit.budget import stated
from evalkit.budget.plan import Plan
from evalkit.budget.schedule import MARGIN, amdahl


def notes(plan: Plan) -> Iterator[str]:
    """Where the figures come from, what bounds the speed, and what is not known."""
    yield from _sources(plan)
    yield from _bounds(plan)
    yield from _unknowns(plan)


def _sources(plan: Plan) -> Iterator[str]:
    rates = plan.order.rates
    if rates.measured:
        commands = f"{rates.commands} command{'s' * (rates.commands > 1)}"
        yield f"Rates: {rates.source}, {commands} on {rates.hardware}. Other hardware has other rates."
        if rates.commands == 1:
            yield "One command was measured: there is no range. Give several runs with --from to see how rates vary."
        else:
            yield "Ranges: from the least and the greatest rate that a command had; no confidence is claimed."
        yield from _extrapolated(plan)
    else:
        yield f"Rates: {rates.source}."
        yield (
            "The paper says neither how long its videos are nor whether generating them is included, and gives no"
            " figure of a single dimension: all are taken to cost the same, and its 50 prompts to have a video"
            " each. Measure yours: --from RUN."
        )
    for dimension, networks in plan.stated.items():
        yield f"{dimension}: {', '.join(networks)} not measured; reckoned at the paper's A100 rate instead."
    yield f"Start of a process: {plan.order.machine.startup:g} s" + _startup_source(plan)
    if plan.order.gpu is not None:
        gpu = plan.order.gpu
        yield (
            f"Training and sampling: counted FLOPs over {100 * gpu.utilisation:g} % of {gpu.peak / 1e12:g} TFLOP/s"
            f" ({gpu.source}). Text encoders, the codec and reward learning are not counted; training counts"
            " every step as the largest, and pre-training comes before all else."
        )
        if gpu.utilisation == stated.UTILISATION:
            yield f"The share of the peak is {stated.UTILISATION_SOURCE}."


def _startup_source(plan: Plan) -> str:
    return f" ({stated.STARTUP_SOURCE})." if plan.order.machine.startup == stated.STARTUP_S else "."


def _extrapolated(plan: Plan) -> Iterator[str]:
    here, there = plan.order.rates.clip, plan.order.clip
    known = {
        "frames": (here.frames, there.frames),
        "width": (here.width, there.width),
        "height": (here.height, there.height),
        "fps": (here.fps, there.fps),
    }
    changed = [f"{name} {a:g} to {b:g}" for name, (a, b) in known.items() if a and b and a != b]
    lacking = [name for name, (a, b) in known.items() if b and not a]
    if changed:
        yield (
            f"Extrapolated from the videos measured: {', '.join(changed)}. Networks that read every frame are taken to"
            " grow with the frames, AMT, RAFT and pixel statistics with the pixels as well."
        )
    if lacking:
        yield f"The measured videos' {' and '.join(lacking)} is not known: nothing is scaled by it."


def _bounds(plan: Plan) -> Iterator[str]:
    order, f = plan.order, plan.serial_fraction
    yield (
        f"Serial fraction {_percent(f)}: {sum(plan.serial.values()):.3g} s that no further {_kind(plan)} shortens"
        f" ({', '.join(f'{name} {seconds:.2g} s' for name, seconds in plan.serial.items() if seconds)})."
        f" By Amdahl's law 1,000 would be {amdahl(f, 1000):,.0f} times as fast as one, if videos could be divided."
    )
    most = f"{plan.worth_doubling_to:,} {_kind(plan)}s"
    yield f"Beyond {most} doubling them saves less than {100 * MARGIN:g} % of the time."
    idle = [f"{row.gpus:,} ({row.used:,})" for row in plan.rows if row.used < row.gpus]
    if idle:
        yield f"Some have nothing to do, for whole videos cannot be shared among so many: {', '.join(idle)} used."
    if len(plan.rows) and plan.rows[-1].gpus > order.machine.per_host * order.runs:
        yield (
            f"Hosts of {order.machine.per_host} share a run by whole prompts, cut beforehand; within a host each worker"
            " takes the next video. The time is that of the last host."
        )
    if plan.decode_cores is not None:
        yield (
            f"Decoding: {order.rates.decode.mean:.3g} s of a core a video ({order.rates.decode_source});"
            f" each {_kind(plan)} needs {plan.decode_cores:.2f} cores for networks not to wait."
            + ("" if order.machine.cores else " Not checked: give --cores-per-host.")
        )
    if order.price is None:
        yield "Cost: no price is assumed; --price 2.10 (yours, a GPU-hour) adds it."
    else:
        yield (
            "Cost: of the GPU-hours, if each GPU is given back when its part is done; held, if all are kept to the end."
        )


def _unknowns(plan: Plan) -> Iterator[str]:
    order = plan.order
    if plan.unknown:
        names = "; ".join(f"{dimension} ({', '.join(networks)})" for dimension, networks in plan.unknown.items())
        yield f"Unknown, and not counted: {names}. All times are lower bounds; measure these with --from."
    if order.work.candidates:
        yield (
            f"Static filter: up to {order.work.candidates:,} videos are looked at, of which each prompt's first five"
            " without motion are scored; the mean takes all of them, the range as few as five a prompt."
            + (
                ""
                if order.rates.measured
                else " Its time is not known apart, and is taken to be in the paper's figure."
            )
        )
    if order.work.listed != order.work.videos and order.work.suite == "full":
        yield (
            f"{order.work.entries} prompts with {order.work.per_prompt} videos are {order.work.listed:,}; texts that"
            f" stand twice share theirs, and {order.work.videos:,} are scored."
        )
    for item in plan.storage:
        if item.bytes is None:
            yield f"Storage of {item.name} is unknown: {item.source}."


def _kind(plan: Plan) -> str:
    return "worker" if plan.order.rates.device == "cpu" else "GPU"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.3g} %"
