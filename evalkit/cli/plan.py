"""`m4v-eval plan`: what a run costs before it is started."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalkit.cli import out, suites

if TYPE_CHECKING:
    from evalkit.flops.work import ModelWork

WHAT, VIDEOS, WHERE, TRAIN = "What is scored", "The videos", "Where it runs", "Training and generating"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plan")(plan)


def plan(
    subset: Annotated[
        str, typer.Option(help="full, custom50 or a prompt file, as for vbench.", rich_help_panel=WHAT)
    ] = "full",
    profile: Annotated[str, typer.Option(help="official or lite.", rich_help_panel=WHAT)] = "official",
    dimensions: Annotated[
        str | None,
        typer.Option(help="Comma-separated dimensions.", show_default="as vbench chooses", rich_help_panel=WHAT),
    ] = None,
    videos_per_prompt: Annotated[
        int | None,
        typer.Option(
            min=1, max=1000, help="Videos of a prompt.", show_default="5 (full), else 1", rich_help_panel=WHAT
        ),
    ] = None,
    variants: Annotated[
        int | None, typer.Option(min=1, help="Models to score.", show_default="1", rich_help_panel=WHAT)
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Trainings (or samplings) of each, scored apart.", rich_help_panel=WHAT)
    ] = 1,
    runs: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="RUN", help="A run whose measured times are used; may be repeated."),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Frames.", show_default="as measured", rich_help_panel=VIDEOS)
    ] = None,
    width: Annotated[
        int | None, typer.Option(min=1, help="Pixels.", show_default="as measured", rich_help_panel=VIDEOS)
    ] = None,
    height: Annotated[
        int | None, typer.Option(min=1, help="Pixels.", show_default="as measured", rich_help_panel=VIDEOS)
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            help="Frames a second: dynamic_degree looks at 8.", show_default="as measured", rich_help_panel=VIDEOS
        ),
    ] = None,
    gpus: Annotated[
        str, typer.Option(metavar="1,8,...", help="Numbers of GPUs (or CPU workers).", rich_help_panel=WHERE)
    ] = "1,8,64,1000",
    gpus_per_host: Annotated[
        int, typer.Option(min=1, help="GPUs of a host: its workers share a queue.", rich_help_panel=WHERE)
    ] = 8,
    cores_per_host: Annotated[
        int | None,
        typer.Option(min=1, help="CPU cores of a host.", show_default="enough to decode", rich_help_panel=WHERE),
    ] = None,
    decode_fps: Annotated[
        float | None,
        typer.Option(
            help="Frames a core decodes a second.", show_default="measured, else stated", rich_help_panel=WHERE
        ),
    ] = None,
    startup: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds until a process is ready.", show_default="4", rich_help_panel=WHERE),
    ] = None,
    price: Annotated[
        float | None,
        typer.Option(min=0, help="Of a GPU-hour, in your currency.", show_default="no cost", rich_help_panel=WHERE),
    ] = None,
    ablation: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Also train and generate: ablations, with commas.", rich_help_panel=TRAIN),
    ] = None,
    preset: Annotated[str, typer.Option(help="tiny or paper.", rich_help_panel=TRAIN)] = "paper",
    gpu: Annotated[
        str, typer.Option(help="GPU whose data sheet gives the peak.", rich_help_panel=TRAIN)
    ] = "A100-SXM4-80GB",
    utilisation: Annotated[float, typer.Option(help="Share of the peak that is reached.", rich_help_panel=TRAIN)] = 0.4,
    json: Annotated[Path | None, typer.Option(help="Also write the machine-readable plan here.")] = None,
) -> None:
    """GPU-hours, wall time, cost and storage of a run before it is started, on 1 to 1,000 GPUs.

    Score a few videos on the hardware that you will use, and give that run with [bold]--from[/bold]: its times for each
    network, for decoding and for the serial stages are then those of the plan. Without it the published figure of 160
    A100-hours for VBench's full suite is spread over its scores, which is a rough guide and marked as such.

    Videos cannot be divided, each worker loads the networks for itself, and some stages are done once: wall time is
    that of the last worker to finish, not the work over the number of GPUs. A network that was not measured is named.

    Examples:

      m4v-eval plan

      m4v-eval plan --from runs/pilot --gpus 1,8,32 --cores-per-host 64 --price 2.10

      m4v-eval plan --from runs/pilot --frames 241 --width 1280 --height 768 --variants 6 --seeds 3

      m4v-eval plan --ablation registers,temp-branch --seeds 3 --subset custom50 --gpus 64,128
    """
    import json as json_format

    from evalkit.budget import Machine, Order, make_plan, to_json
    from evalkit.budget.models import find_gpu
    from evalkit.budget.rates import Clip
    from evalkit.budget.resolve import count_variants, resolve
    from evalkit.budget.stated import STARTUP_S
    from evalkit.budget.work import work_of
    from evalkit.cli.plan_tables import plan_lines
    from evalkit.files import write_atomically
    from evalkit.options import parse_profile

    work = work_of(subset, parse_profile(profile, Path(), (), subset), suites.listed(dimensions), videos_per_prompt)
    models = _models(ablation, preset)
    asked = Clip(frames, width, height, fps)
    found = resolve(work, tuple(runs or ()), asked, models, decode_fps)
    order = Order(
        work=work,
        rates=found.rates,
        clip=found.clip,
        gpus=_numbers(gpus),
        variants=count_variants(variants, models),
        seeds=seeds,
        machine=Machine(gpus_per_host, cores_per_host, STARTUP_S if startup is None else startup),
        price=price,
        sizes=found.sizes,
        models=models,
        gpu=find_gpu(gpu, utilisation) if models else None,
    )
    made = make_plan(order)
    for line in plan_lines(made, found.left_out):
        out.print(line, highlight=False)
    if json:
        text = json_format.dumps(to_json(made), indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(json, (text + "\n").encode())


def _models(names: str | None, preset: str) -> tuple[ModelWork, ...]:
    """What the named ablations train; counting takes seconds, under a bar."""
    if names is None:
        return ()
    from evalkit.ablate.command import Request, prepare
    from evalkit.ablate.cost import model_works
    from evalkit.cli.progress import watching

    request = Request(
        names=suites.listed(names),
        preset=preset,
        steps=None,
        pretrain_steps=None,
        seeds=(0,),
        data=None,
        subset=None,
        cumulative=False,
        profile="lite",
        weights=None,
        device="cuda",
        threads=None,
        out=Path(),
    )
    with watching() as bars:
        return model_works(prepare(request), bars)


def _numbers(text: str) -> tuple[int, ...]:
    """`1,8` as numbers.

    Raises:
        UserError: something else than whole numbers from 1, with commas between.
    """
    from evalkit.errors import UserError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) >= 1 for part in parts):
        raise UserError(f"--gpus {text} is no list of whole numbers from 1.", "Such as --gpus 1,8,64,1000.")
    return tuple(map(int, parts))
