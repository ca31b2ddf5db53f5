"""What a user asks of a new study, and whether it can be."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from evalkit.errors import UserError, unknown
from evalkit.study.planning.assignment import most_screens
from evalkit.study.planning.planted import usable_checks
from evalkit.study.planning.precision import Spreads
from evalkit.study.types import AXES, Axis, Protocol, ScreenKind

MAX_MODELS, MAX_LABEL, MAX_RATERS = 24, 64, 1000
RANK_AT_ONCE, RANK_BLOCK = 6, 4
"""Models up to which all are ranked at once, and clips on a screen beyond: more than six moving pictures are not
compared, they are sorted."""

DEFAULT_SCREENS = {"rank": 30, "pairwise": 40, "likert5": 40}
"""Half an hour or so with clips of five seconds, after which attention sinks."""


@dataclass(frozen=True, slots=True)
class StudyRequest:
    """A study to be made.

    Args:
        out: directory to be made; it must not exist.
        videos: folder by model label, in the order in which tables list them.
        suite: name or path of the prompt suite.
        protocol: `rank`, `pairwise` or `likert5`.
        raters: planned raters; each gets a link.
        screens: votes asked of each rater, without checks; None: all there are, up to `DEFAULT_SCREENS`.
        checks: attention checks of each rater.
        block_size: clips on a screen in `rank`; None: all models up to six, else four.
        ties: whether clips may share a rank in `rank`; None: no. The other protocols always allow "no difference".
        per_prompt: videos of each prompt.
        common: leave out prompts that some models lack.
        seed: of the assignment.
        name: title that raters see.
        axes: names of the questions asked.
        max_failed: share of attention checks that a rater may fail.
        spreads: assumed for the expected precision.
    """

    out: Path
    videos: Mapping[str, Path]
    suite: str = "custom50"
    protocol: Protocol = "rank"
    raters: int = 20
    screens: int | None = None
    checks: int = 2
    block_size: int | None = None
    ties: bool | None = None
    per_prompt: int = 1
    common: bool = False
    seed: int = 0
    name: str = "Which video is better?"
    axes: tuple[str, ...] = tuple(axis.name for axis in AXES)
    max_failed: float = 1 / 3
    spreads: Spreads = field(default_factory=Spreads)

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self.videos)

    @property
    def on_screen(self) -> int:
        """Clips on a screen."""
        if self.protocol != "rank":
            return 2
        all_models = len(self.videos)
        return self.block_size or (all_models if all_models <= RANK_AT_ONCE else RANK_BLOCK)

    @property
    def questions(self) -> tuple[Axis, ...]:
        """The axes, in their usual order."""
        return tuple(axis for axis in AXES if axis.name in self.axes)

    @property
    def check_kinds(self) -> tuple[ScreenKind, ...]:
        return usable_checks(self.protocol, self.on_screen, self.axes) if self.checks else ()

    def screens_of(self, n_items: int) -> int:
        """Votes asked of each rater, where so many items can be judged.

        Raises:
            UserError: more than there are, or fewer than checks.
        """
        most = most_screens(n_items, len(self.videos), self.protocol)
        screens = min(most, DEFAULT_SCREENS[self.protocol]) if self.screens is None else self.screens
        if not 1 <= screens <= most:
            what = "prompts and seeds" if self.protocol == "rank" else "pairs of videos of one prompt"
            raise UserError(
                f"--screens {screens}: there are {most} {what}, and nobody judges one twice.",
                f"Give 1 to {most} screens, or more prompts.",
            )
        if self.checks > screens:
            raise UserError(
                f"--checks {self.checks} are more than the {screens} screens that count.",
                f"Give at most {screens}: a check follows a vote.",
            )
        return screens

    def validate(self) -> None:
        """Check everything that needs no file but the output directory.

        Raises:
            UserError: what cannot be meant.
        """
        _check_out(self.out)
        _check_labels(self.videos)
        _check_protocol(self)
        _check_numbers(self)
        for axis in self.axes:
            if axis not in {known.name for known in AXES}:
                raise unknown("axis", axis, [known.name for known in AXES])
        if not self.axes:
            raise UserError("A study without axes asks nothing.", f"Choose from {', '.join(a.name for a in AXES)}.")
        if self.checks and not self.check_kinds:
            raise UserError(
                "No attention check can be failed where two clips are ranked by their meaning alone.",
                "Give --checks 0.",
            )
        _check_name(self.name, self.models)


def _check_out(out: Path) -> None:
    if out.is_symlink() or out.exists():
        raise UserError(
            f"{out} is in use: it exists already, and a study is never overwritten.",
            "Choose another --out, or move it away if nobody needs its votes.",
        )


def _check_labels(videos: Mapping[str, Path]) -> None:
    if not 2 <= len(videos) <= MAX_MODELS:
        raise UserError(
            f"A study compares 2 to {MAX_MODELS} models, and {len(videos)} are given.",
            "Give --videos A=dirA B=dirB ..., one LABEL=FOLDER a model.",
        )
    for label in videos:
        if not label.strip() or len(label) > MAX_LABEL or any(unicodedata.category(c)[0] == "C" for c in label):
            raise UserError(
                f"The model label {label!r} is empty, longer than {MAX_LABEL} characters, or holds control characters.",
                "Give a short name before the = of --videos LABEL=FOLDER.",
            )
    folders: dict[Path, str] = {}
    for label, folder in videos.items():
        other = folders.setdefault(folder.resolve(), label)
        if other != label:
            raise UserError(
                f"{other!r} and {label!r} are the same folder, {folder}.",
                "Give each model the folder of its own videos.",
            )


def _check_protocol(request: StudyRequest) -> None:
    if request.protocol not in get_args(Protocol):
        raise unknown("protocol", request.protocol, get_args(Protocol))
    if request.protocol == "rank":
        if not 2 <= request.on_screen <= len(request.videos):
            raise UserError(
                f"--block-size {request.block_size}: a screen shows 2 to {len(request.videos)} of the models.",
                "Leave it out to show all, up to six.",
            )
        return
    if request.block_size not in (None, 2):
        raise UserError(
            f"--block-size {request.block_size}: a screen of {request.protocol} shows two clips.",
            "Use it with rank only.",
        )
    if request.ties is False:
        raise UserError(f"{request.protocol} always has an answer for no difference.", "Use --no-ties with rank only.")


def _check_numbers(request: StudyRequest) -> None:
    for option, value, low, high in (
        ("--raters", request.raters, 1, MAX_RATERS),
        ("--checks", request.checks, 0, 100),
        ("--samples", request.per_prompt, 1, 1000),
        ("--max-failed", request.max_failed, 0, 1),
        ("--seed", request.seed, 0, 2**63),
    ):
        if not low <= value <= high:
            raise UserError(f"{option} {value:g} is not between {low} and {high}.", "Give a number that is.")


def _check_name(name: str, models: tuple[str, ...]) -> None:
    """Raters see the title: no label may stand in it, as a word if it is short, else as part of one."""
    if not name.strip() or len(name) > 200 or any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
        raise UserError(
            f"--name {name!r} is empty, longer than 200 characters, or holds control characters.", "Give a short title."
        )
    for label in models:
        pattern = re.escape(label.strip())
        pattern = rf"(?<!\w){pattern}(?!\w)" if len(label.strip()) < 3 else pattern
        if re.search(pattern, name, flags=re.IGNORECASE):
            raise UserError(
                f"--name {name!r} holds the model label {label!r}, and raters see the title.",
                "Give a title that says nothing of the models.",
            )
