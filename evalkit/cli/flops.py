"""`m4v-eval flops`: what a video model costs, counted without a GPU and without weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

FLOPS_PANEL = "How FLOPs are counted"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("flops")(flops)


def flops(
    model: Annotated[
        str, typer.Option(help="m4v, pyramidflow, stiv-xl, lingen-4b, ..., or FILE.py:factory for your own nn.Module.")
    ] = "m4v",
    frames: Annotated[int | None, typer.Option(help="Frames of the clip.", show_default="the model's own")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.", show_default="the model's own")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.", show_default="the model's own")] = None,
    dual_blocks: Annotated[
        int | None, typer.Option(help="L: how many blocks keep dual-stream attention (M4V).", show_default="8")
    ] = None,
    ssm: Annotated[
        str | None, typer.Option(help="mamba2 (SSD) or mamba1 (selective scan).", show_default="mamba2")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Add every published row: Table 6, LinGen's formulas, STIV's budgets.")
    ] = False,
    sweep: Annotated[
        str | None, typer.Option(help="frames=57,121,241,481 or dual_blocks=0,2,4,8,24.", show_default=False)
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the sweep here (.svg, .png or .pdf).", show_default=False)
    ] = None,
    breakdown: Annotated[
        bool, typer.Option("--breakdown", help="Also show the cost of each part of the model.")
    ] = False,
    whole_clip: Annotated[
        bool, typer.Option("--clip/--no-clip", help="Count the whole clip as well (some seconds a variant).")
    ] = True,
    counter: Annotated[str, typer.Option(help="torch; fvcore adds fvcore's own count as a cross-check.")] = "torch",
    out: Annotated[
        Path | None, typer.Option(help="Run directory: adds flops.json, which the report shows.", show_default=False)
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Also write the machine-readable result here.")] = None,
    flops_per_mac: Annotated[
        int, typer.Option(rich_help_panel=FLOPS_PANEL, help="What a multiply-add counts, 1 or 2.")
    ] = 2,
    mask: Annotated[
        str, typer.Option(rich_help_panel=FLOPS_PANEL, help="none: full attention; causal: only visible pairs.")
    ] = "none",
    guidance: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=FLOPS_PANEL,
            min=1,
            help="Forward passes a solver step (2 with classifier-free guidance).",
            show_default="1 for a pass, 2 for a clip",
        ),
    ] = None,
    stage: Annotated[
        str, typer.Option(rich_help_panel=FLOPS_PANEL, help="Pyramid stage: coarse, mid, full or a level.")
    ] = "full",
    scope: Annotated[
        str, typer.Option(rich_help_panel=FLOPS_PANEL, help="last-frame: one pass; clip: all of them.")
    ] = "last-frame",
    scan_cost: Annotated[
        str, typer.Option(rich_help_panel=FLOPS_PANEL, help="Mamba-2: chunked products, or the recurrent count.")
    ] = "chunked",
    dual_mamba_cost: Annotated[
        float,
        typer.Option(rich_help_panel=FLOPS_PANEL, help="Times a dual-stream Mamba mixer counts; Table 6 needs 2."),
    ] = 1.0,
    output_projection: Annotated[
        str,
        typer.Option(rich_help_panel=FLOPS_PANEL, help="Mixers charged with it: attention (published), all or none."),
    ] = "attention",
    text_tokens: Annotated[
        int | None,
        typer.Option(rich_help_panel=FLOPS_PANEL, min=1, help="Prompt length.", show_default="the model's own"),
    ] = None,
) -> None:
    """Count TFLOPs from first principles, beside what the papers print.

    Counts one forward pass at the last latent frame and the full-resolution stage (mixers alone, and the whole model)
    and the whole clip with all its stages, solver steps and guidance. Full-size models are counted in seconds
    without their weights. Every choice of counting is a flag and is printed under the table.

    Examples:

      m4v-eval flops --frames 241

      m4v-eval flops --frames 241 --compare --dual-mamba-cost 2 --json flops.json

      m4v-eval flops --sweep frames=57,121,241,481 --plot scaling.svg

      m4v-eval flops --model my_model.py:make --breakdown
    """
    from evalkit.cli import flops_tables
    from evalkit.cli.progress import watching
    from evalkit.errors import UserError, unknown
    from evalkit.figure import check_suffix
    from evalkit.flops.command import Request, run
    from evalkit.flops.convention import Convention
    from evalkit.flops.plot import write_plot

    if counter not in ("torch", "fvcore"):
        raise unknown("counter", counter, ("torch", "fvcore"))
    request = Request(
        model=model,
        frames=frames,
        height=height,
        width=width,
        dual_blocks=dual_blocks,
        ssm=ssm,
        compare=compare,
        sweep=sweep,
        fvcore=counter == "fvcore",
        whole_clip=whole_clip,
        convention=Convention(
            flops_per_mac=flops_per_mac,
            mask=mask,
            guidance=guidance,
            stage=stage,
            scope=scope,
            scan_cost=scan_cost,
            dual_mamba_cost=dual_mamba_cost,
            output_projection=output_projection,
            text_tokens=text_tokens,
        ),
    )
    if plot:
        check_suffix(plot)
        if not sweep:
            raise UserError("--plot draws a sweep, and there is none.", "Add --sweep frames=57,121,241,481.")
    with watching() as bars:
        record = run(request, bars)
    flops_tables.show(record, breakdown=breakdown)
    if plot:
        write_plot(record["sweep"], plot)
        flops_tables.note(f"plot: {plot}")
    for path in [*([out / "flops.json"] if out else []), *([json] if json else [])]:
        flops_tables.save(record, path)
