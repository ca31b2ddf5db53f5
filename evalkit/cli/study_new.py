"""`m4v-eval study new`: plan a blind human study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from evalkit.cli import out as console

if TYPE_CHECKING:
    from evalkit.study.planning.new import NewStudy
    from evalkit.study.planning.request import StudyRequest

VIDEOS = "--videos"


class _SeveralVideos(TyperCommand):
    """A command whose `--videos` takes all words up to the next option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, repeated(args))


def repeated(args: list[str]) -> list[str]:
    """The arguments with `--videos` before each of its words: `--videos A=a B=b` as `--videos A=a --videos B=b`."""
    words: list[str] = []
    taking = False
    for word in args:
        taking = word == VIDEOS or word.startswith(f"{VIDEOS}=") or (taking and not word.startswith("-"))
        is_further = taking and not word.startswith("-") and words[-1] != VIDEOS
        words += [VIDEOS, word] if is_further else [word]
    return words


def add(study: typer.Typer) -> None:
    """Add the command."""
    study.command("new", cls=_SeveralVideos)(new)


def new(
    videos: Annotated[
        list[str],
        typer.Option(
            VIDEOS,
            metavar="LABEL=FOLDER...",
            help="The models: a label and the folder of its videos.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="STUDY", help="Study directory to make.", show_default="studies/SUITE-PROTOCOL"),
    ] = None,
    suite: Annotated[
        str, typer.Option(help="Prompt suite: custom50, full, or a .txt/.jsonl/.csv/VBench_full_info.json file.")
    ] = "custom50",
    protocol: Annotated[
        str, typer.Option(help="rank (all clips of a screen), pairwise, or likert5 (five levels between two clips).")
    ] = "rank",
    raters: Annotated[int, typer.Option(help="Raters to plan for; invite more than you need.")] = 20,
    screens: Annotated[
        int | None,
        typer.Option(
            help="Votes asked of each rater. More than half an hour tires.",
            show_default="all, up to 30 in rank and 40 else",
        ),
    ] = None,
    checks: Annotated[int, typer.Option(help="Attention checks among a rater's screens, besides the votes.")] = 2,
    block_size: Annotated[
        int | None,
        typer.Option(help="Clips on a screen in rank.", show_default="all models up to 6, else 4"),
    ] = None,
    ties: Annotated[
        bool | None,
        typer.Option("--ties/--no-ties", help="Whether clips may share a rank in rank.", show_default="no ties"),
    ] = None,
    samples: Annotated[int, typer.Option(help="Videos of each prompt: the lowest seeds that all models have.")] = 1,
    common: Annotated[
        bool, typer.Option("--common", help="Leave out prompts that some models lack, instead of refusing.")
    ] = False,
    axes: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated questions.", show_default="aesthetic_quality,motion_smoothness,semantic_coherence"
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Title that raters see; no model's label.", show_default="Which video is better?")
    ] = None,
    max_failed: Annotated[
        float, typer.Option(help="Share of attention checks that a rater may fail and still count.", show_default="1/3")
    ] = 1 / 3,
    rater_spread: Annotated[
        float | None,
        typer.Option(help="For the expected precision: spread of raters' own win rates.", show_default="0.1"),
    ] = None,
    prompt_spread: Annotated[
        float | None,
        typer.Option(help="For the expected precision: spread of prompts' own win rates.", show_default="0.1"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of who judges what.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Also write the plan's figures here (no links).")] = None,
) -> None:
    """Plan a blind human study: who judges which videos, in which order, and what that can tell.

    Makes the directory STUDY: blinded copies of the videos, the assignment, and a personal link for each rater. All
    pairs of models meet equally often, in every place equally often, and no matter how many raters come. Attention
    checks (one clip twice, one clip spoiled) tell who does not look. Every clip is encoded alike and named at random;
    only study.json knows the models, and only you can read it.

    Videos are matched to prompts as in [bold]m4v-eval vbench[/bold]: by manifest.jsonl in the folder, else by the names
    <prompt>-<k>.mp4 or <prompt_id>-<seed>.mp4. Models must have the same prompts and seeds: what is missing is listed,
    and --common leaves it out.

    [bold]rank[/bold] tells most per minute for up to six models. [bold]pairwise[/bold] is easier to answer, and right
    for two models or subtle differences; [bold]likert5[/bold] also says how much better. More raters narrow the
    intervals more than more screens do: see the table that is printed.

    Examples:

      m4v-eval study new --videos A=samples/a B=samples/b C=samples/c --out studies/first

      m4v-eval study new --suite custom50 --videos A=dirA B=dirB --protocol pairwise --raters 30 --out studies/ab

      m4v-eval study new --suite my.txt --videos A=a B=b C=c D=d --block-size 3 --screens 20 --common --out studies/four

    Then: [bold]m4v-eval study serve STUDY[/bold].
    """
    import json as json_format

    from evalkit.cli.progress import watching
    from evalkit.cli.study_plan_tables import plan_lines, to_json
    from evalkit.files import write_atomically
    from evalkit.study.planning.new import create
    from evalkit.study.planning.precision import PROMPT_SPREAD, RATER_SPREAD, Spreads
    from evalkit.study.planning.request import StudyRequest

    chosen: dict[str, Any] = {} if name is None else {"name": name}
    if axes is not None:
        chosen["axes"] = tuple(axis.strip() for axis in axes.split(",") if axis.strip())
    request: StudyRequest = StudyRequest(
        out=out or Path("studies") / f"{Path(suite).stem}-{protocol}",
        videos=folders(videos),
        suite=suite,
        protocol=protocol,  # type: ignore[arg-type]  # checked by validate()
        raters=raters,
        screens=screens,
        checks=checks,
        block_size=block_size,
        ties=ties,
        per_prompt=samples,
        common=common,
        seed=seed,
        max_failed=max_failed,
        spreads=Spreads(
            RATER_SPREAD if rater_spread is None else rater_spread,
            PROMPT_SPREAD if prompt_spread is None else prompt_spread,
        ),
        **chosen,
    )
    with watching() as bars:
        made: NewStudy = create(request, bars)
    for line in plan_lines(made):
        console.print(line, soft_wrap=isinstance(line, str), highlight=False)
    if json:
        text = json_format.dumps(to_json(made), indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(json, (text + "\n").encode())


def folders(words: list[str]) -> dict[str, Path]:
    """`A=dirA` words as folders by label.

    Raises:
        UserError: a word without `=`, without a folder, or a label for the second time.
    """
    from evalkit.errors import UserError

    found: dict[str, Path] = {}
    for word in words:
        label, equals, folder = word.partition("=")
        label = label.strip()
        if not equals or not folder.strip():
            raise UserError(f"--videos {word!r} is not LABEL=FOLDER.", "Write --videos A=folder/of/a B=folder/of/b.")
        if label in found:
            raise UserError(f"Two models are called {label!r}.", "Give each model a label of its own.")
        found[label] = Path(folder).expanduser()
    return found
