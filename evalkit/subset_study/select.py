"""Which runs belong together, and which prompts are the subset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evalkit.compare import refuse_unlike
from evalkit.errors import UserError, nearest
from evalkit.prompts import load_suite, shipped
from evalkit.records import RunRecord

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Subset:
    """The prompts that are to predict the suite.

    Args:
        name: what it is called.
        prompts: ids of its prompts in the runs of the full suite; empty for a suite of other prompts.
        unknown: its prompts that those runs do not have.
        size: prompts it asks for.
    """

    name: str
    prompts: frozenset[str]
    unknown: tuple[str, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Models:
    """The same models on one suite, or on two.

    Args:
        full: the runs of the full suite, by the name of the model.
        subset: their runs of a suite of other prompts; empty if the subset is part of the full suite.
        unpaired: models with a run of one suite only, and which.
    """

    full: Mapping[str, RunRecord]
    subset: Mapping[str, RunRecord]
    unpaired: Mapping[str, str]


def sort_runs(runs: Sequence[RunRecord], subset: str | None) -> Models:
    """Tell the runs of the full suite from those of the subset's suite, and name the models.

    Raises:
        UserError: fewer than two models, runs that do not compare, or more than two suites.
    """
    repeated = [str(path) for path, n in Counter(run.path.resolve() for run in runs).items() if n > 1]
    if repeated:
        raise UserError(f"{repeated[0]} is given twice.", "Give each run once: a copy would always agree with itself.")
    if len(runs) < 2:
        raise UserError(
            "A subset study needs at least two models: with one there is no order and no difference to find.",
            "Score the videos of more models on the same prompts and give all run directories.",
        )
    suites: dict[str, list[RunRecord]] = {}
    for run in runs:
        suites.setdefault(_suite(run)["sha256"], []).append(run)
    for run in runs[1:]:  # the suites may differ, nothing else
        refuse_unlike(runs[0], replace(run, manifest=run.manifest | {"suite": _suite(runs[0])}))
    if len(suites) == 1:
        return Models(_named(runs), {}, {})
    small, full = _two_suites(suites, subset)
    return _paired(_named(small), _named(full))


def _suite(run: RunRecord) -> dict[str, Any]:
    if "suite" not in run.manifest:
        raise UserError(f"{run.path / 'run.json'} does not say its suite.", "Run the scoring command again.")
    return dict(run.manifest["suite"])


def _two_suites(
    suites: Mapping[str, list[RunRecord]], subset: str | None
) -> tuple[Sequence[RunRecord], Sequence[RunRecord]]:
    """The runs of the suite that is asked for (else of the smaller one), and the others."""
    by_size = sorted(suites.values(), key=lambda runs: _suite(runs[0])["n_prompts"])
    names = [_suite(runs[0])["name"] for runs in by_size]
    if len(by_size) > 2:
        raise UserError(
            f"These runs answered {len(by_size)} prompt suites: {', '.join(names)}.",
            "Give the runs of one suite, or of two: the full one and the one that is to predict it.",
        )
    if subset is None or subset == names[0] or _sha256(subset) == _suite(by_size[0][0])["sha256"]:
        return by_size[0], by_size[1]
    if subset == names[1] or _sha256(subset) == _suite(by_size[1][0])["sha256"]:
        return by_size[1], by_size[0]
    raise UserError(
        f"These runs answered two prompt suites, {names[0]} and {names[1]}, and neither is the subset {subset!r}.",
        f"Use --subset {names[0]}, or give the runs of one suite only.",
    )


def _sha256(subset: str) -> str | None:
    return load_suite(subset).sha256 if subset in shipped() or Path(subset).is_file() else None


def _named(runs: Sequence[RunRecord]) -> dict[str, RunRecord]:
    """Name each model by what its directory does not share with the others: `a` for runs/a/full beside runs/b/full."""
    paths = [run.path.resolve().parts for run in runs]
    if len(runs) == 1:
        return {runs[0].name: runs[0]}
    shortest = min(map(len, paths))
    head = next((k for k in range(shortest) if len({path[k] for path in paths}) > 1), shortest - 1)
    tail = next((k for k in range(shortest - head) if len({path[-1 - k] for path in paths}) > 1), 0)
    return {"/".join(path[head : len(path) - tail]): run for path, run in zip(paths, runs, strict=True)}


def _paired(small: Mapping[str, RunRecord], full: Mapping[str, RunRecord]) -> Models:
    both = [name for name in full if name in small]
    suites = {id(runs): _suite(next(iter(runs.values())))["name"] for runs in (small, full)}
    if len(both) < 2:
        raise UserError(
            f"Models of the two suites are matched by the names of their directories, and {len(both)} of them match:"
            f" {', '.join(small)} of {suites[id(small)]} and {', '.join(full)} of {suites[id(full)]}.",
            "Name the directories alike, such as full/A full/B custom50/A custom50/B, with at least two models.",
        )
    unpaired = {name: suites[id(runs)] for runs in (small, full) for name in runs if name not in both}
    return Models({name: full[name] for name in both}, {name: small[name] for name in both}, unpaired)


def scored_videos(runs: Mapping[str, RunRecord]) -> pd.DataFrame:
    """A row a scored video and dimension: `model`, `prompt_id`, `file`, `dimension`, `value`.

    Raises:
        UserError: nothing was scored.
    """
    import pandas as pd

    columns = ["model", "prompt_id", "file", "dimension", "value"]
    rows = pd.concat(
        run.results[run.results["value"].notna()].assign(model=model)[columns] for model, run in runs.items()
    )
    if rows.empty:
        raise UserError("None of these runs has a scored video.", "Look into their reports for the reasons.")
    return rows.astype({"model": str, "prompt_id": str, "file": str, "dimension": str, "value": "float64"})


def choose(subset: str, runs: Iterable[RunRecord], prompts: Sequence[str], seed: int) -> Subset:
    """Find the subset among the prompts of the full suite.

    Args:
        subset: a number of random prompts, the name or file of a suite, or prompt ids with commas between.
        runs: of the full suite.
        prompts: ids of the prompts that were scored, to draw random ones from.
        seed: of that draw.

    Raises:
        UserError: no such suite or id, too many random prompts, or no prompt in common.
    """
    if subset.isdecimal():
        return _random(int(subset), prompts, seed)
    texts, ids = _known(runs)
    if subset not in shipped() and subset != "full" and not Path(subset).is_file():
        return _listed([part.strip() for part in subset.split(",") if part.strip()], subset, ids)
    suite = load_suite(subset)
    found: set[str] = set()
    unknown: list[str] = []
    for prompt in suite.prompts:
        here = texts.get(prompt.text) or ({prompt.text} & ids)  # a .txt may list ids
        found |= here
        if not here:
            unknown.append(prompt.id)
    if not found:
        raise UserError(
            f"None of the {len(suite.prompts)} prompts of {suite.name} is among the prompts of these runs.",
            f"{suite.name} has prompts of its own: score every model on it too, and give both runs of each model,"
            f" in directories of the same name (full/A full/B {suite.name}/A {suite.name}/B).",
        )
    return Subset(suite.name, frozenset(found), tuple(unknown), len(suite.prompts))


def _random(n: int, prompts: Sequence[str], seed: int) -> Subset:
    if not 1 <= n <= len(prompts):
        raise UserError(
            f"--subset {n}: the suite has {len(prompts)} prompts that were scored.",
            f"Give a number from 1 to {len(prompts)}.",
        )
    drawn = np.random.default_rng([seed, 5]).choice(sorted(prompts), n, replace=False)
    return Subset(f"random draw of {n} prompts", frozenset(map(str, drawn)), (), n)


def _listed(names: Sequence[str], subset: str, ids: set[str]) -> Subset:
    unknown = [name for name in names if name not in ids]
    if unknown or not names:
        near = nearest(unknown[0] if unknown else subset, ids)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise UserError(
            f"--subset {subset}: {unknown[0] if unknown else subset!r} is no suite, no file and no prompt id of these"
            " runs.",
            f"{hint}Give {', '.join(shipped())}, a prompt file, a number of random prompts, or ids and commas.",
        )
    return Subset(f"list of {len(set(names))} prompts", frozenset(names), (), len(set(names)))


def _known(runs: Iterable[RunRecord]) -> tuple[dict[str, set[str]], set[str]]:
    """Ids of each prompt text, and all ids, whether scored or not."""
    texts: dict[str, set[str]] = {}
    for run in runs:
        pairs = run.results[["prompt_id", "prompt"]].drop_duplicates().astype(str)
        for id_, text in zip(pairs["prompt_id"], pairs["prompt"], strict=True):
            texts.setdefault(text, set()).add(id_)
        for prompt in run.summary.get("missing_prompts", ()):
            texts.setdefault(str(prompt["text"]), set()).add(str(prompt["id"]))
    return texts, {id_ for found in texts.values() for id_ in found}
