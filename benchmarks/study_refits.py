"""Bootstrap refits of Bradley-Terry and Plackett-Luce, beside choix doing the same refits.

1,000 resamples of 5,000 simulated votes on 5 models: pairs (Bradley-Terry), pairs with ties (Davidson's model, which
choix does not have) and rankings (Plackett-Luce). Timed from the list of votes to the fitted strengths: counting,
resampling and fitting; the median of several rounds. choix fits the first 20 of the same resamples by I-LSR, the faster
of its ways, and its time is scaled to 1,000; it knows no weights and reads every vote, and writing the votes out for it
is not timed. The strengths of these 20 must agree within 1e-5. Writes a record to `benchmarks/results/`.

Run with OMP_NUM_THREADS=1 for figures of one thread.

Axes: B resamples, N distinct votes, M models.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evalkit.files import write_atomically
from evalkit.provenance import git, hardware, packages
from evalkit.stats import FloatArray
from evalkit.study.simulate import Raters
from evalkit.study.statistics import bradley_terry, plackett_luce
from evalkit.study.statistics.conclude import conclude
from evalkit.study.types import AXES, Ballots, Protocol, Screening, Vote

RESULTS = Path(__file__).parent / "results"
MODELS = tuple("ABCDE")
WORTHS = (0.8, 0.4, 0.0, -0.4, -0.8)
TARGET_S = 5.0
AGREE = 1e-5

Ranking = tuple[int, ...]
Record = dict[str, Any]


class Sizes(NamedTuple):
    """Votes, resamples, how many of them choix fits, and how often each side is timed."""

    votes: int = 5000
    refits: int = 1000
    peer_refits: int = 20
    rounds: int = 5


def simulated(protocol: Protocol, n_votes: int, axes: Sequence[str], tie: float = 0.0) -> tuple[Vote, ...]:
    """Votes of raters who see 50 prompts each, on every axis."""
    raters = Raters(MODELS, dict.fromkeys(axes, WORTHS), rater_sd=0.3, prompt_sd=0.3, tie=tie, seed=1)
    prompts = [f"p{p}" for p in range(50)]
    return raters.votes(protocol, prompts, n_raters=n_votes // 50, n_screens=50, ties=tie > 0)


def ordered(vote: Vote) -> Ranking:
    """Models from best to worst; of a tie as they stand."""
    return tuple(MODELS.index(model) for _, model in sorted(zip(vote.ranks, vote.models, strict=True)))


# --- this side --------------------------------------------------------------------------------------------------------


def resampled(patterns: Counter[Any], n: int) -> tuple[list[Any], NDArray[np.int64]]:
    """Distinct votes, and how often each is in each of n resamples."""
    kinds = sorted(patterns)
    times_N = np.array([patterns[kind] for kind in kinds])
    weights_BN = np.random.default_rng(0).multinomial(times_N.sum(), times_N / times_N.sum(), size=n)
    return kinds, weights_BN


def refit_pairs(votes: Sequence[Vote], n: int) -> FloatArray:
    """Log-strengths (B, M) of Bradley-Terry; with Davidson's parameter if there are ties."""
    kinds, weights_BN = resampled(Counter((ordered(vote), len(set(vote.ranks)) == 1) for vote in votes), n)
    wins_NMM, ties_NMM = np.zeros((2, len(kinds), len(MODELS), len(MODELS)))
    for place, ((a, b), tied) in enumerate(kinds):
        if tied:
            ties_NMM[place, a, b] = ties_NMM[place, b, a] = 1
        else:
            wins_NMM[place, a, b] = 1
    wins_BMM, ties_BMM = (np.tensordot(weights_BN, x_NMM, axes=1) for x_NMM in (wins_NMM, ties_NMM))
    return bradley_terry.fit(wins_BMM, ties_BMM).log_strengths_BM


def refit_rankings(votes: Sequence[Vote], n: int) -> FloatArray:
    """Log-worths (B, M) of Plackett-Luce."""
    kinds, weights_BN = resampled(Counter(ordered(vote) for vote in votes), n)
    return plackett_luce.fit(plackett_luce.choices(kinds, len(MODELS)), weights_BN)


# --- choix ------------------------------------------------------------------------------------------------------------


def written_out(votes: Sequence[Vote], sizes: Sizes) -> list[list[Ranking]]:
    """The first resamples as lists of votes; the same draws as on this side."""
    kinds, weights_BN = resampled(Counter(ordered(vote) for vote in votes), sizes.refits)
    return [
        [kind for kind, times in zip(kinds, weights_N.tolist(), strict=True) for _ in range(times)]
        for weights_N in weights_BN[: sizes.peer_refits]
    ]


def against_choix(own: FloatArray, own_s: float, votes: Sequence[Vote], protocol: Protocol, sizes: Sizes) -> Record:
    """choix's seconds for as many refits, and how far its strengths are from ours.

    Raises:
        ValueError: it finds other strengths.
    """
    import choix

    fit: Callable[..., FloatArray] = choix.ilsr_rankings if protocol == "rank" else choix.ilsr_pairwise
    lists = written_out(votes, sizes)
    found, seconds = timed(lambda: [fit(len(MODELS), data) for data in lists], 1)
    off = float(np.abs(np.array(found) - own[: len(lists)]).max())
    if not off < AGREE:
        raise ValueError(f"choix's strengths differ by {off:.1e}; nothing to compare")
    peer_s = seconds / len(lists) * sizes.refits
    return {"peer": fit.__name__, "peer_s": peer_s, "ratio": peer_s / own_s, "largest_difference": off}


# --- the run ----------------------------------------------------------------------------------------------------------


def timed(work: Callable[[], Any], rounds: int) -> tuple[Any, float]:
    """What the work gives, and the median of its seconds."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        found = work()
        seconds.append(time.perf_counter() - start)
    return found, statistics.median(seconds)


def refits(protocol: Protocol, sizes: Sizes, tie: float = 0.0) -> Record:
    """One kind of votes refitted by both sides."""
    votes = simulated(protocol, sizes.votes, (AXES[0].name,), tie)
    refit = refit_rankings if protocol == "rank" else refit_pairs
    own, own_s = timed(lambda: refit(votes, sizes.refits), sizes.rounds)
    made = {"own_s": own_s, "refits": sizes.refits, "finite": int(np.isfinite(own).all(axis=1).sum())}
    return made if tie else {**made, **against_choix(own, own_s, votes, protocol, sizes)}


def conclusion(n_votes: int, n_axes: int, rounds: int) -> Record:
    """Everything that `study aggregate` computes of rankings, with 1,000 resamples of raters, prompts and both."""
    axes = tuple(axis.name for axis in AXES[:n_axes])
    votes = simulated("rank", n_votes // n_axes, axes)
    ballots = Ballots("simulated", "rank", False, MODELS, axes, votes, Screening(n_votes // n_axes // 50))
    _, seconds = timed(lambda: conclude(ballots), rounds)
    return {"own_s": seconds, "votes": len(votes), "axes": n_axes}


def measure(sizes: Sizes) -> Record:
    """All parts, each with the load average before it."""
    parts: dict[str, Callable[[], Record]] = {
        "bradley-terry": lambda: refits("pairwise", sizes),
        "bradley-terry-ties": lambda: refits("pairwise", sizes, tie=0.3),
        "plackett-luce": lambda: refits("rank", sizes),
        "conclude": lambda: conclusion(sizes.votes, 1, sizes.rounds),
        "conclude-large": lambda: conclusion(15 * sizes.votes, 3, 1),
    }
    return {name: {"load_1min": os.getloadavg()[0], **work()} for name, work in parts.items()}


def record(sizes: Sizes) -> Record:
    parts = measure(sizes)
    total = sum(parts[name]["own_s"] for name in ("bradley-terry", "plackett-luce"))
    return {
        "schema": "m4v-eval/study-refits/1",
        "setting": {"models": len(MODELS), "threads": os.environ.get("OMP_NUM_THREADS"), **sizes._asdict()},
        "hardware": hardware("cpu"),
        "packages": {**packages(), "choix": version("choix")},
        "git": git(),
        "target_s": TARGET_S,
        "total_s": total,
        "parts": parts,
    }


def table(made: Mapping[str, Any]) -> str:
    """The record for people."""
    lines = ["| part | here | choix, scaled | ratio |", "|---|---|---|---|"]
    for name, found in made["parts"].items():
        peer = f"{found['peer']}: {found['peer_s']:.1f} s | {found['ratio']:.0f}" if "peer" in found else "|"
        lines.append(f"| {name} | {found['own_s']:.3f} s | {peer} |")
    lines.append(
        f"\nBradley-Terry and Plackett-Luce together: {made['total_s']:.3f} s (to reach: {made['target_s']:g} s)"
    )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.study_refits", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="few refits: does it run? Not for figures")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the record")
    given = parser.parse_args(arguments)
    sizes = Sizes(votes=500, refits=50, peer_refits=2, rounds=1) if given.quick else Sizes()
    made = record(sizes)
    given.out.mkdir(parents=True, exist_ok=True)
    name = "study_refits_quick.json" if given.quick else "study_refits.json"
    write_atomically(given.out / name, (json.dumps(made, indent=1) + "\n").encode())
    print(table(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
