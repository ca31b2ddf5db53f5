"""`m4v-eval weights`: the checkpoints that the official profile needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalkit import cli

if TYPE_CHECKING:
    from evalkit.backbones.base import FeatureSpec
    from evalkit.weights import Checkpoint, WeightStore

Folder = Annotated[
    Path | None,
    typer.Option("--weights", help="Folder in VBench's layout.", show_default="$VBENCH_CACHE_DIR or ~/.cache/vbench"),
]
Keys = Annotated[list[str] | None, typer.Argument(help="Names as `weights list` shows them; default: all.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="List, download and verify the networks' checkpoints.")
    group.command("list")(list_)
    group.command("pull")(pull)
    group.command("verify")(verify)
    app.add_typer(group, name="weights")


def features() -> list[FeatureSpec]:
    """Every network of the official profile, of the sister suites and of the distances of sets, once."""
    from evalkit.distribution.networks import i3d, inception
    from evalkit.metrics import registry
    from evalkit.suites import own_features

    official = {f.name: f for m in registry("official").values() for f in m.features if f.checkpoints}
    return [*official.values(), *own_features(), inception(frames=1).feature, i3d().feature]


def checkpoints() -> dict[str, Checkpoint]:
    """Every file that can be fetched, by key: the networks' checkpoints, and VBench's list of prompts."""
    from evalkit.prompts import OFFICIAL_LIST

    return {c.key: c for feature in features() for c in feature.checkpoints} | {OFFICIAL_LIST.key: OFFICIAL_LIST}


def _chosen(keys: list[str] | None) -> list[Checkpoint]:
    from evalkit.errors import unknown

    known = checkpoints()
    for key in keys or []:
        if key not in known:
            raise unknown("checkpoint", key, known)
    return [known[key] for key in keys or known]


def list_(weights: Folder = None) -> None:
    """Show each checkpoint: what needs it, its size, licence, source, and whether it is here."""
    from rich.table import Table

    from evalkit.weights import WeightStore, default_root

    store = WeightStore(weights or default_root())
    table = Table(title=f"Checkpoints in {store.root}", title_justify="left")
    for column in ("name", "dimensions", "size", "licence", "sha256", "here"):
        table.add_column(column, overflow="fold")
    for key, checkpoint in checkpoints().items():
        sha256 = checkpoint.sha256 or store.recorded(checkpoint)
        vouched = (
            f"{sha256[:12]} ({'published' if checkpoint.sha256 else 'recorded'})" if sha256 else "recorded at first use"
        )
        here = "[green]yes[/green]" if store.has(checkpoint) else "[yellow]no[/yellow]"
        table.add_row(key, ", ".join(_users(checkpoint)), _size(checkpoint.size), checkpoint.licence, vouched, here)
    cli.out.print(table)
    for key, checkpoint in checkpoints().items():
        cli.out.print(
            f"{key}: {checkpoint.file}, from {checkpoint.url} ({checkpoint.source})", soft_wrap=True, highlight=False
        )


def _users(checkpoint: Checkpoint) -> list[str]:
    """The dimensions that read a file, or what else does."""
    from evalkit.distribution import MEASURES
    from evalkit.distribution.networks import I3D, INCEPTION
    from evalkit.metrics import registry
    from evalkit.suites import own_features

    networks = {"inception": INCEPTION, "i3d": I3D}
    dimensions = [m.name for m in registry("official").values() if any(checkpoint in f.checkpoints for f in m.features)]
    measures = [m.protocol for m in MEASURES.values() if networks[m.network] == checkpoint]
    suites = [name for feature, names in own_features().items() if checkpoint in feature.checkpoints for name in names]
    return dimensions + suites or measures or ["the suite `full`"]


def pull(
    keys: Keys = None,
    weights: Folder = None,
    force: Annotated[bool, typer.Option("--force", help="Fetch again what is here already.")] = False,
) -> None:
    """Download checkpoints from their publishers, going on where an earlier attempt stopped.

    Offline machines: copy the files by hand to the paths that `weights list` shows; M4V_EVAL_OFFLINE=1 forbids
    downloads.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from evalkit.download import fetch
    from evalkit.weights import WeightStore, default_root

    store = WeightStore(weights or default_root())
    wanted = [c for c in _chosen(keys) if force or not store.has(c)]
    if not wanted:
        cli.out.print("Every checkpoint is here already.")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=cli.err) as bars:
        for checkpoint in wanted:
            task = bars.add_task(checkpoint.key, total=checkpoint.size or None)
            path = fetch(
                checkpoint,
                store.root,
                lambda have, total, task=task: bars.update(task, completed=have, total=total or None),  # type: ignore[misc]
            )
            store.forget(checkpoint)
            cli.out.print(f"{checkpoint.key}: {path}", soft_wrap=True, highlight=False)


def verify(
    keys: Keys = None,
    weights: Folder = None,
    trust_weights: Annotated[bool, typer.Option("--trust-weights", help="Open unpublished CLIP archives.")] = False,
) -> None:
    """Check each file's sha256, and load checkpoints into their networks.

    Where the publisher gives no sha256, the one of the first file that fits its network is recorded and held to.
    """
    from evalkit.backbones.base import Runtime
    from evalkit.errors import UserError
    from evalkit.prompts import OFFICIAL_LIST
    from evalkit.weights import WeightStore, default_root

    store = WeightStore(weights or default_root(), trust_weights)
    wanted = {c.key for c in _chosen(keys)}
    failed = OFFICIAL_LIST.key in wanted and not _verified(store, OFFICIAL_LIST)
    for feature in features():
        if not wanted & {c.key for c in feature.checkpoints}:
            continue
        names = " + ".join(c.key for c in feature.checkpoints)
        try:
            feature.load(store, Runtime())
            store.vouch(feature.checkpoints)
            digests = ", ".join(f"{c.file} {store.sha256(c)[:12]}" for c in feature.checkpoints)
            cli.out.print(f"[green]ok[/green]     {names}: {digests}", soft_wrap=True, highlight=False)
        except UserError as e:
            failed = True
            cli.out.print(f"[red]failed[/red] {names}: {e.what} {e.remedy}", soft_wrap=True, highlight=False)
    if failed:
        raise typer.Exit(2)


def _verified(store: WeightStore, file: Checkpoint) -> bool:
    """Check a file that no network reads."""
    from evalkit.errors import UserError

    try:
        cli.out.print(f"[green]ok[/green]     {file.key}: {file.file} {store.sha256(file)[:12]}", highlight=False)
    except UserError as e:
        cli.out.print(f"[red]failed[/red] {file.key}: {e.what} {e.remedy}", soft_wrap=True, highlight=False)
        return False
    return True


def _size(size: int) -> str:
    if not size:
        return "unknown"
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
