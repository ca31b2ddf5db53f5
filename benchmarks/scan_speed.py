"""Scans against their reference algorithms, and attention against Mamba mixers over the length of the sequence.

One run, one thread, one process a part. The two sides of a part take turns, so that what slows the machine slows both;
their results are compared before they are timed. Writes a record and a plot to `benchmarks/results/`.

Axes: B batch, N tokens, D channels, S state, H heads, P channels of a head.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks import scan_peers
from benchmarks.measure import CommandFailed
from evalkit.files import write_atomically
from evalkit.provenance import git, hardware, packages
from m4v.layers import Attention, Context, Mamba, MambaConfig
from m4v.scan import selective_scan, ssd

RESULTS = Path(__file__).parent / "results"
CHANNELS, STATE = 256, 16
HEADS, HEAD_CHANNELS, HEAD_STATE = 4, 64, 64
LONG = 15_488
"""128 text tokens and the 15,360 of the last latent frame of 241 frames at 768 x 1280."""
TEXT, FRAME = 128, (8, 16)
LENGTHS = (512, 1024, 2048, 4096, 8192, LONG)
TARGETS = {
    "scan-forward": 8.0,
    "scan-backward": 6.0,
    "scan-backward-reference": 50.0,
    "scan-memory": 10.0,
    "ssd-forward": 2.0,
}

Work = Callable[[], Any]


class Sizes(NamedTuple):
    """Lengths in tokens of the parts, and how often each is timed."""

    forward: int = 2048
    backward: int = 2048
    backward_reference: int = 512
    long: int = LONG
    lengths: tuple[int, ...] = LENGTHS
    rounds: int = 7


QUICK = Sizes(forward=256, backward=256, backward_reference=128, long=1024, lengths=(256, 512, 1024), rounds=2)


# --- timing -----------------------------------------------------------------------------------------------------------


def seconds(work: Work) -> float:
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def taking_turns(works: Mapping[str, Work], rounds: int) -> dict[str, list[float]]:
    """Seconds of each piece of work in each round, after one round that is not counted."""
    for work in works.values():
        work()
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            found[name].append(seconds(work))
    return found


def against(times: Mapping[str, Sequence[float]], own: str) -> list[dict[str, Any]]:
    """Each peer beside `own`: medians, the median of the ratios within a round, and their range."""
    rows = []
    for peer in (name for name in times if name != own):
        ratios = [theirs / ours for theirs, ours in zip(times[peer], times[own], strict=True)]
        rows.append(
            {
                "own": own,
                "peer": peer,
                "peer_s": statistics.median(times[peer]),
                "own_s": statistics.median(times[own]),
                "ratio": statistics.median(ratios),
                "ratio_range": [min(ratios), max(ratios)],
            }
        )
    return rows


def agree(found: Tensor, expected: Tensor, what: str) -> float:
    """Largest difference in units of the largest value.

    Raises:
        ValueError: more than 1e-3: the two do not compute the same.
    """
    off = ((found - expected).abs().max() / expected.abs().max()).item()
    if not off < 1e-3:
        raise ValueError(f"{what}: differs by {off:.1e} of the largest value; nothing to compare")
    return off


def part(target: str, sizes: Mapping[str, Any], rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """A part's record: sizes, a row for each peer, and the ratio to reach against the fastest of them."""
    least = min(row["ratio"] for row in rows)
    return {"sizes": dict(sizes), "rows": rows, "ratio": least, "target": TARGETS[target], **more}


# --- scans ------------------------------------------------------------------------------------------------------------


def scan_inputs(tokens: int) -> tuple[Tensor, ...]:
    """x, dt, A, B, C of one sequence, as a Mamba-1 layer starts: A = -1..-S, steps about 0.01."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, tokens, CHANNELS, generator=draw)
    dt = torch.randn(1, tokens, CHANNELS, generator=draw).sub_(4.6).exp_()
    A = -torch.arange(1, STATE + 1).float().expand(CHANNELS, -1).contiguous()
    return x, dt, A, *torch.randn(2, 1, tokens, STATE, generator=draw).unbind()


def own_scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    return selective_scan(x, dt, A, B[:, :, None], C[:, :, None])


def ssd_inputs(tokens: int) -> tuple[Tensor, ...]:
    """x, dt, A, B, C of one sequence; every head has its own B and C, as the peers want them."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, tokens, HEADS, HEAD_CHANNELS, generator=draw)
    dt = torch.randn(1, tokens, HEADS, generator=draw).sub_(4.6).exp_()
    return x, dt, -torch.linspace(1, 16, HEADS), *torch.randn(2, 1, tokens, HEADS, HEAD_STATE, generator=draw).unbind()


def forward(function: scan_peers.Scan, inputs: Sequence[Tensor]) -> Tensor:
    with torch.no_grad():
        return function(*inputs)


def gradients(function: scan_peers.Scan, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Forward and backward: gradients of the sum of squares in all inputs."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    return torch.autograd.grad(function(*leaves).square().sum(), leaves)


def timed(
    target: str, functions: Mapping[str, scan_peers.Scan], inputs: Sequence[Tensor], backward: bool, rounds: int
) -> dict[str, Any]:
    """A part that times the first function against the others, after comparing their results."""
    run: Callable[..., Any] = gradients if backward else forward
    results = {name: run(function, inputs) for name, function in functions.items()}
    own = next(iter(functions))
    flat = {name: found if backward else (found,) for name, found in results.items()}
    off = max(
        agree(ours, theirs, f"{own} and {peer}")
        for peer in list(flat)[1:]
        for ours, theirs in zip(flat[own], flat[peer], strict=True)
    )
    del results, flat
    times = taking_turns({name: partial(run, f, inputs) for name, f in functions.items()}, rounds)
    sizes = {"tokens": inputs[0].shape[1], "backward": backward}
    return part(target, sizes, against(times, own), largest_difference=off)


def references(official: Path | None) -> dict[str, scan_peers.Scan]:
    own: dict[str, scan_peers.Scan] = {"selective_scan": own_scan, "reference algorithm": scan_peers.reference_scan}
    return own | ({"official reference": scan_peers.official_scan(official)} if official else {})


def scan_forward(sizes: Sizes, official: Path | None) -> dict[str, Any]:
    return timed("scan-forward", references(official), scan_inputs(sizes.forward), False, sizes.rounds)


def scan_backward(sizes: Sizes, official: Path | None) -> dict[str, Any]:
    functions = {
        "selective_scan": own_scan,
        "unbind loop, decays ahead": scan_peers.unbind_scan,
        "unbind loop, token by token": scan_peers.unbind_tokens_scan,
    }
    return timed("scan-backward", functions, scan_inputs(sizes.backward), True, sizes.rounds)


def scan_backward_reference(sizes: Sizes, official: Path | None) -> dict[str, Any]:
    inputs = scan_inputs(sizes.backward_reference)
    return timed("scan-backward-reference", references(official), inputs, True, sizes.rounds)


def ssd_against_minimal(own: int, sizes: Sizes, official: Path | None) -> dict[str, Any]:
    """`own` is the chunk of ours; the peer's is named."""
    functions: dict[str, scan_peers.Ssd] = {f"ssd, chunk {own}": partial(ssd, chunk=own)}
    for chunk in (64, 128):
        functions[f"minimal, chunk {chunk}"] = scan_peers.minimal_ssd(chunk)
        if official:
            functions[f"official minimal, chunk {chunk}"] = scan_peers.official_ssd(official, chunk)
    return timed("ssd-forward", functions, ssd_inputs(sizes.long), False, sizes.rounds)


# --- memory -----------------------------------------------------------------------------------------------------------

MEASURED = {"selective_scan": own_scan, "reference algorithm": scan_peers.reference_scan}


def peak() -> int:
    """Most bytes of this process in memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def growth(name: str, tokens: int) -> int:
    """Bytes by which one forward pass raises the peak of a process that holds its inputs.

    The pass runs in a fork: the peak of a fresh process may be that of its start, under which a small pass could not be
    seen; a fork's peak starts at what is in memory.
    """
    inputs, short = scan_inputs(tokens), scan_inputs(64)
    function = MEASURED[name]
    gc.collect()
    return in_fork(partial(rise, partial(forward, function, inputs), partial(forward, function, short)))


def rise(work: Work, short: Work) -> int:
    """Bytes by which `work` raises the peak, after `short` work of the same kind.

    A fork shares its parent's code but must map it anew, which counts as memory: the short work does that first.
    """
    short()
    before = peak()
    work()
    return peak() - before


def in_fork(work: Callable[[], int]) -> int:
    """A number from a forked process.

    Raises:
        CommandFailed: it gave none.
    """
    receive, send = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(send, str(work()).encode())
        finally:
            os._exit(0)
    os.close(send)
    with os.fdopen(receive) as said:
        text = said.read()
    os.waitpid(child, 0)
    if not text:
        raise CommandFailed("the measured process died")
    return int(text)


def scan_memory(sizes: Sizes, official: Path | None) -> dict[str, Any]:
    """Growth of a fresh process by one forward pass, median of three; ratio of the reference's to ours."""
    found = {name: [in_fresh_process(name, sizes.long) for _ in range(3)] for name in MEASURED}
    rows = against(found, "selective_scan")
    names = {"peer_s": "peer_bytes", "own_s": "own_bytes"}
    rows = [{names.get(key, key): value for key, value in row.items()} for row in rows]
    return part("scan-memory", {"tokens": sizes.long, "backward": False}, rows)


def in_fresh_process(name: str, tokens: int) -> int:
    """`growth` in a process of its own.

    Raises:
        CommandFailed: it gave an error.
    """
    command = [sys.executable, "-m", "benchmarks.scan_speed", "--growth", name, str(tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent)
    if done.returncode:
        raise CommandFailed(f"{' '.join(command)}: {done.stderr.strip()}")
    return int(done.stdout)


# --- mixers over the length of the sequence ---------------------------------------------------------------------------


def mixers() -> dict[str, torch.nn.Module]:
    """Single-stream mixers of width 256 with four heads, as the blocks hold them (projections in, none out)."""
    torch.manual_seed(0)
    found = {
        "attention": Attention(CHANNELS, HEADS, streams=1),
        "Mamba-2 mixer": Mamba(CHANNELS, HEADS, 0, 1, MambaConfig()),
        "Mamba-1 mixer": Mamba(CHANNELS, HEADS, 0, 1, MambaConfig(ssm="mamba1", state=STATE, groups=1)),
    }
    return {name: mixer.eval() for name, mixer in found.items()}


def sequence(tokens: int) -> tuple[Tensor, Tensor, Context]:
    """Text and video of `tokens` tokens in all, frames of 8 x 16, the last one noisy; attention without a mask."""
    text = min(TEXT, tokens // 4)
    frames = (tokens - text) // (FRAME[0] * FRAME[1])
    draw = torch.Generator().manual_seed(tokens)
    text_BLD = torch.randn(1, tokens - frames * FRAME[0] * FRAME[1], CHANNELS, generator=draw)
    video_BND = torch.randn(1, tokens - text_BLD.shape[1], CHANNELS, generator=draw)
    context = Context(
        text_mask_BL=torch.ones(1, text_BLD.shape[1], dtype=torch.bool),
        angles_NR=None,
        mask=None,
        frames=(FRAME,) * frames,
        noisy=1,
        levels=(0,) * frames,
        stages=1,
        registers_FD=torch.randn(frames, CHANNELS, generator=draw),
    )
    return text_BLD, video_BND, context


def mix(mixer: torch.nn.Module, text_BLD: Tensor, video_BND: Tensor, context: Context) -> Any:
    with torch.no_grad():
        return mixer(text_BLD, video_BND, context)


def length_sweep(sizes: Sizes, official: Path | None) -> dict[str, Any]:
    """Seconds of a forward pass of each mixer at each length, and where Mamba becomes faster than attention."""
    curves: dict[str, list[float]] = {name: [] for name in mixers()}
    for tokens in sizes.lengths:
        inputs = sequence(tokens)
        works = {name: partial(mix, m, *inputs) for name, m in mixers().items()}
        for name, found in taking_turns(works, sizes.rounds).items():
            curves[name].append(statistics.median(found))
    crossings = {
        name: crossing(sizes.lengths, curves["attention"], curve)
        for name, curve in curves.items()
        if name != "attention"
    }
    return {"tokens": list(sizes.lengths), "seconds": curves, "crossing_tokens": crossings}


def crossing(lengths: Sequence[int], one: Sequence[float], other: Sequence[float]) -> float | None:
    """Length from which `other` stays below `one`, between two measured ones on straight lines in logarithms.

    None if it is not below at the end; the shortest length if it always is.
    """
    gaps = [math.log(b / a) for a, b in zip(one, other, strict=True)]
    if gaps[-1] >= 0:
        return None
    last = max((i for i, gap in enumerate(gaps) if gap >= 0), default=None)
    if last is None:
        return float(lengths[0])
    share = gaps[last] / (gaps[last] - gaps[last + 1])
    return math.exp((1 - share) * math.log(lengths[last]) + share * math.log(lengths[last + 1]))


def plot(sweep: Mapping[str, Any], path: Path) -> None:
    """Seconds over tokens, both logarithmic, with the crossings marked."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.2), layout="constrained")
    for (name, curve), colour in zip(sweep["seconds"].items(), ("#333333", "#0072b2", "#d55e00"), strict=True):
        axes.plot(sweep["tokens"], curve, "o-", color=colour, markersize=4, label=name)
        tokens = sweep["crossing_tokens"].get(name)
        if tokens:
            axes.axvline(tokens, color=colour, linestyle=":", linewidth=1)
            axes.annotate(
                f"{tokens:,.0f}", (tokens, 0.02), xycoords=("data", "axes fraction"), color=colour, rotation=90
            )
    axes.set(xscale="log", yscale="log", xlabel="tokens", ylabel="seconds a forward pass")
    axes.set_xticks(sweep["tokens"], [f"{tokens:,}" for tokens in sweep["tokens"]], rotation=30)
    axes.minorticks_off()
    axes.set_title("Mixers of width 256 on one thread; dotted: faster than attention from here on", fontsize=9)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


# --- the run ----------------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Sizes, Path | None], dict[str, Any]]] = {
    "scan-forward": scan_forward,
    "scan-backward": scan_backward,
    "scan-backward-reference": scan_backward_reference,
    "scan-memory": scan_memory,
    "ssd-forward": partial(ssd_against_minimal, 64),
    "ssd-forward-chunk-256": partial(ssd_against_minimal, MambaConfig().chunk),
    "length-sweep": length_sweep,
}


def measure(names: Sequence[str], sizes: Sizes, official: Path | None) -> dict[str, Any]:
    """All parts asked for, each with the load average before it."""
    found = {}
    for name in names:
        load = os.getloadavg()[0]
        print(f"{name} (load average {load:.2f})", file=sys.stderr)
        found[name] = {**PARTS[name](sizes, official), "load_1min": load}
    return found


def record(names: Sequence[str], sizes: Sizes, official: Path | None) -> dict[str, Any]:
    setting = {
        "channels": CHANNELS,
        "state": STATE,
        "heads": HEADS,
        "head_channels": HEAD_CHANNELS,
        "head_state": HEAD_STATE,
        "dtype": "float32",
        "threads": torch.get_num_threads(),
        "opt_einsum": torch.backends.opt_einsum.is_available(),
        **sizes._asdict(),
    }
    about = {"hardware": hardware("cpu"), "packages": packages(), "git": git()}
    parts = measure(names, sizes, official)
    return {"schema": "m4v-eval/scan-speed/1", "setting": setting, **about, "parts": parts}


def table(parts: Mapping[str, Any]) -> str:
    """The parts for people."""
    lines = [
        "| part | tokens | here | peer | peer's | ours | ratio (range) | target |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in parts.items():
        lines += [line(name, found, row) for row in found.get("rows", [])]
        for mixer, tokens in found.get("crossing_tokens", {}).items():
            where = f"faster than attention from {tokens:,.0f} tokens on" if tokens else "not faster than attention"
            lines.append(f"| {name} | | {mixer} | attention | | | {where} | |")
    return "\n".join(lines)


def line(name: str, found: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    say, unit = (megabytes, "bytes") if "own_bytes" in row else (milliseconds, "s")
    low, high = row["ratio_range"]
    cost = f"{say(row[f'peer_{unit}'])} | {say(row[f'own_{unit}'])} | {row['ratio']:.2f} ({low:.2f} to {high:.2f})"
    return f"| {name} | {found['sizes']['tokens']:,} | {row['own']} | {row['peer']} | {cost} | {found['target']:g} |"


def megabytes(value: float) -> str:
    return f"{value / 2**20:.1f} MiB"


def milliseconds(value: float) -> str:
    return f"{1e3 * value:.1f} ms"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scan_speed", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated, by default all")
    parser.add_argument("--quick", action="store_true", help="short sequences: does it run? Not for figures")
    parser.add_argument("--rounds", type=int, help="how often each side is timed")
    parser.add_argument("--official", type=Path, help="a checkout of state-spaces/mamba, to run its reference as well")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the record and the plot")
    parser.add_argument("--growth", nargs=2, metavar=("NAME", "TOKENS"), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if given.growth:
        print(growth(given.growth[0], int(given.growth[1])))
        return 0
    names = given.parts.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    sizes = QUICK if given.quick else Sizes()
    if given.rounds:
        sizes = sizes._replace(rounds=given.rounds)
    made = record(names, sizes, given.official)
    write(made, given.out, "scan_speed_quick" if given.quick else "scan_speed")
    print(table(made["parts"]))
    return 0


def write(made: Mapping[str, Any], folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{name}.json", (json.dumps(made, indent=1) + "\n").encode())
    if "length-sweep" in made["parts"]:
        plot(made["parts"]["length-sweep"], folder / f"{name}.png")


if __name__ == "__main__":
    sys.exit(main())
