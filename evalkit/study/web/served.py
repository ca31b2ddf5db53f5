"""The study that is served: what every request may need."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from fastapi import Request

from evalkit.errors import UserError
from evalkit.study.plan_file import CLIPS, VOTES, load_plan
from evalkit.study.types import Plan, RaterPlan, Screen
from evalkit.study.votes import VoteStore
from evalkit.study.web.failures import not_found
from evalkit.study.web.limits import Buckets
from evalkit.study.web.media import ServedClip, padding
from evalkit.study.web.options import Options
from evalkit.study.web.sessions import Sessions, read_secret

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CLIP_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_NUMBER = re.compile(r"[0-9]{1,6}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Served:
    """A study, its votes, and who may see what."""

    study: Path
    plan: Plan
    store: VoteStore
    sessions: Sessions
    options: Options
    raters: Mapping[str, RaterPlan]
    clips: Mapping[str, tuple[Path, int]]
    """File and its size, by clip id."""
    forged: Buckets
    seen: dict[str, str] = field(default_factory=dict)
    """When a rater last asked for a page, since the server started."""

    def screens(self, rater: str) -> tuple[Screen, ...]:
        return self.raters[rater].screens

    def screen(self, rater: str, number: int) -> Screen:
        """A screen of a rater.

        Raises:
            Refusal: there is none.
        """
        screens = self.screens(rater)
        if not 0 <= number < len(screens):
            raise not_found()
        return screens[number]

    def first_unfinished(self, rater: str) -> int | None:
        """The screen to go on with; None if all are done."""
        done = self.store.progress_of(rater).done
        return next((n for n in range(len(self.screens(rater))) if n not in done), None)

    def clip(self, rater: str, number: int, place: int) -> ServedClip:
        """The clip at a place of a rater's screen.

        Raises:
            Refusal: there is none.
        """
        screen = self.screen(rater, number)
        if not 0 <= place < len(screen.clips):
            raise not_found()
        path, size = self.clips[screen.clips[place]]
        return ServedClip(path, size, padding(self.sessions.mac("padding", rater, str(number), str(place))))

    def note(self, rater: str) -> None:
        """Remember that a rater is there."""
        self.seen[rater] = datetime.now(UTC).isoformat(timespec="seconds")


def serve_study(study: Path, options: Options) -> Served:
    """Read a study and open its votes for writing.

    Raises:
        RunFailed: the votes cannot be written.
        UserError: no study, a damaged one, or clips are missing.
    """
    plan = load_plan(study)
    _check_screens(study, plan)
    sessions, clips = Sessions(read_secret(study), plan), _clips(study, plan)
    return Served(
        study=study,
        plan=plan,
        store=VoteStore(study / VOTES).open(plan),
        sessions=sessions,
        options=options,
        raters={rater.id: rater for rater in plan.raters},
        clips=clips,
        forged=Buckets(options.forged),
    )


def _clips(study: Path, plan: Plan) -> dict[str, tuple[Path, int]]:
    """Files of the clips and their sizes, none of them outside the study."""
    folder = (study / CLIPS).resolve()
    found, missing = {}, []
    for id_ in plan.clips:
        path = (folder / f"{id_}.mp4").resolve()
        if _CLIP_ID.fullmatch(id_) and path.parent == folder and path.is_file():
            found[id_] = (path, path.stat().st_size)
        else:
            missing.append(id_)
    if missing:
        raise UserError(
            f"{study / CLIPS} lacks {len(missing)} of {len(plan.clips)} clips ({', '.join(map(repr, missing[:3]))}"
            f"{', ...' if len(missing) > 3 else ''}), or they lie outside of it.",
            "Restore the folder from a copy, or plan the study anew.",
        )
    return found


def _check_screens(study: Path, plan: Plan) -> None:
    for rater in plan.raters:
        for screen in rater.screens:
            known = screen.prompt_id in plan.prompts and all(clip in plan.clips for clip in screen.clips)
            if not known or not 2 <= len(screen.clips) <= len(LETTERS):
                raise UserError(
                    f"The plan of {study} is damaged: a screen of rater {rater.id} cannot be shown.",
                    "Restore study.json from a copy; votes refer to it.",
                )


async def served(request: Request) -> Served:
    """The study that a request is about."""
    return cast(Served, request.app.state.served)


def number(text: str) -> int:
    """A number in an address.

    Raises:
        Refusal: it is none.
    """
    if not _NUMBER.fullmatch(text):
        raise not_found()
    return int(text)
