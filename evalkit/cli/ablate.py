"""`m4v-eval ablate`: which change to the model really helped?"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evalkit import cli
from evalkit.cli.progress import LogJson
from evalkit.cli.submission import Cluster

if TYPE_CHECKING:
    from rich.table import Table

    from evalkit.ablate.experiment import Experiment

VERDICTS = {
    "better": "[bold green]better[/bold green]",
    "worse": "[bold red]worse[/bold red]",
    "not distinguishable": "[dim]unclear[/dim]",
    "not compared": "[yellow]-[/yellow]",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("ablate")(ablate)


def ablate(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="Ablations; see --list.", show_default=False)
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List all ablations and stop.")] = False,
    preset: Annotated[
        str, typer.Option(help="tiny: minutes on a CPU, procedural shapes; paper: the published size.")
    ] = "tiny",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps of every variant.", show_default="the preset's")
    ] = None,
    pretrain_steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of the shared attention model.", show_default="the preset's")
    ] = None,
    seeds: Annotated[
        str, typer.Option(help="Training seeds, such as 0,1,2; several make seed noise part of the intervals.")
    ] = "0",
    data: Annotated[
        str | None,
        typer.Option(help="shapes, a folder of captioned videos, or tar shards.", show_default="the preset's"),
    ] = None,
    subset: Annotated[
        str | None, typer.Option(help="Prompts to answer.", show_default="shapes50 (tiny) or custom50 (paper)")
    ] = None,
    cumulative: Annotated[
        bool, typer.Option("--cumulative", help="Add the changes one on another, in the paper's order.")
    ] = False,
    profile: Annotated[
        str, typer.Option(help="official (VBench's networks) or lite (no weights, not VBench).")
    ] = "lite",
    weights: Annotated[
        Path | None, typer.Option(help="VBench's checkpoints.", show_default="$VBENCH_CACHE_DIR or ~/.cache/vbench")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="all cores")] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Models trained at a time, sharing the threads.", show_default="one a core; on a GPU 1"
        ),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="float32 or bfloat16; auto: the preset's, float32 on a CPU without fast bfloat16.")
    ] = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Run directory; an existing one is resumed.", show_default="runs/ablate-NAMES")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Also write the machine-readable result here.")] = None,
    cluster: Cluster = None,
    log_json: LogJson = False,
) -> None:
    """Train a baseline and its variants alike, answer the same prompts with each, and compare them with intervals.

    All variants see the same data, noise and steps, and start from the same attention pre-training (trained once and
    kept for later experiments). Videos of a prompt start from the same noise in every variant, and are compared prompt
    by prompt. A killed run goes on where it was.

    Examples:

      m4v-eval ablate registers temp-branch

      m4v-eval ablate registers text-recomposition temp-branch --cumulative --seeds 0,1,2

      m4v-eval ablate transplant --steps 400

      m4v-eval ablate --list
    """
    if list_:
        cli.out.print(_all_ablations())
        return
    from evalkit.ablate.command import Request, prepare, run
    from evalkit.cli.progress import watching
    from evalkit.files import write_atomically
    from evalkit.options import parse_seeds, resolve_device

    request = Request(
        names=tuple(names or ()),
        preset=preset,
        steps=steps,
        pretrain_steps=pretrain_steps,
        seeds=parse_seeds(seeds),
        data=data,
        subset=subset,
        cumulative=cumulative,
        profile=profile,
        weights=weights,
        device=device if cluster else resolve_device(device),
        threads=threads,
        out=out or Path("runs") / f"ablate-{'-'.join(names or ['none'])}",
        jobs=jobs,
        precision=precision,
    )
    if cluster:
        from evalkit.cli.submission import no_json, show
        from evalkit.cluster.ablating import submit_ablate

        no_json(json, request.out / "ablation.json")
        show(submit_ablate(request, cluster, sys.argv), request.out)
        return
    experiment = prepare(request)
    for line in () if log_json else _before(experiment):
        cli.err.print(line, highlight=False, soft_wrap=True)
    with watching(log_json) as bars:
        record = run(request, experiment, bars)
    for table in _tables(record):
        cli.out.print(table)
    for line in _after(record):
        cli.out.print(line, highlight=False, soft_wrap=True)
    cli.out.print(f"Report: {request.out / 'report.html'}", highlight=False, soft_wrap=True)
    if json:
        write_atomically(json, (request.out / "ablation.json").read_bytes())


def _all_ablations() -> Table:
    from rich.table import Table

    from evalkit.ablation import load_all

    table = Table("name", "system", "question", title="Ablations", title_justify="left")
    for ablation in sorted(load_all().values(), key=lambda a: (a.system, a.name)):
        table.add_row(ablation.name, ablation.system, ablation.question)
    return table


def _before(experiment: Experiment) -> Iterator[str]:
    """What is about to be done, and what it costs."""
    from evalkit.ablate.experiment import training_flops

    recipe = experiment.baseline.recipe
    yield f"{experiment.base.name}: {experiment.base.description}"
    runs = [v.recipe for v in experiment.variants] + ([experiment.pretraining] if experiment.pretraining else [])
    total = sum(training_flops(r) for r in runs)
    named = ", ".join(v.name for v in experiment.variants)
    yield (
        f"{len(experiment.variants)} variants ({named}), {recipe.train.steps} steps of {recipe.train.batch} clips each"
        + (f", after {experiment.pretraining.train.steps} steps of attention" if experiment.pretraining else "")
        + f": at most {total:.2g} FLOPs of training a seed"
        + (f", {total / (312e12 * 0.4) / 86400:,.0f} A100 days at 40 % of peak." if total > 1e19 else ".")
    )


def _tables(record: Mapping[str, Any]) -> Iterator[Table]:
    from rich.table import Table

    variants = record["variants"]
    table = Table(
        title=_title(record),
        title_justify="left",
        caption="percent, mean over prompts and seeds",
        caption_justify="left",
    )
    table.add_column("metric", no_wrap=True)
    for variant in variants:
        table.add_column(variant["name"], justify="right")
    for metric in variants[0]["metrics"]:
        table.add_row(metric, *(_percent(v["metrics"][metric]["mean"]) for v in variants))
    yield table
    for variant in variants[1:]:
        yield _differences(variant, [c for c in record["comparisons"] if c["variant"] == variant["name"]])


def _title(record: Mapping[str, Any]) -> str:
    kind = "lite stand-ins, not VBench" if record["profile"] == "lite" else "VBench"
    return f"{record['preset']} on {record['subset']['name']}, {kind}"


def _differences(variant: Mapping[str, Any], comparisons: list[dict[str, Any]]) -> Table:
    from rich import box
    from rich.table import Table

    # Without lines between the columns it fits 80 characters.
    title = f"{variant['name']} against {variant['against']}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("metric", "difference", "95 %", "p", "n"):
        table.add_column(heading, justify="left" if heading == "metric" else "right", no_wrap=True)
    table.add_column("is", no_wrap=True)
    for c in comparisons:
        interval = "unknown" if c["ci95"] is None else f"{100 * c['ci95'][0]:+.2f} {100 * c['ci95'][1]:+.2f}"
        p = "-" if c["p_adjusted"] is None else f"{c['p_adjusted']:.2g}"
        table.add_row(c["metric"], _percent(c["delta"], "+"), interval, p, str(c["n"]), VERDICTS[c["verdict"]])
    return table


def _percent(fraction: float | None, sign: str = "") -> str:
    return "-" if fraction is None else f"{100 * fraction:{sign}.2f}"


def _after(record: Mapping[str, Any]) -> Iterator[str]:
    if len(record["seeds"]) == 1:
        yield (
            "One training seed: the intervals hold for these trained models, not for training them again. "
            "--seeds 0,1,2 makes seed noise part of them."
        )
    unscored = {
        m: v["metrics"][m]["unscored"] for v in record["variants"] for m in v["metrics"] if v["metrics"][m]["unscored"]
    }
    for metric, count in unscored.items():
        yield f"[yellow]unscored:[/yellow] {metric}, {count} of a variant's prompts"
