"""The addresses of the clips: a rater's own, by screen and place."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from evalkit.study.web.failures import Refusal
from evalkit.study.web.media import respond
from evalkit.study.web.served import number
from evalkit.study.web.visitors import Here, Rater

router = APIRouter()


@router.get("/clip/{screen}/{place}")
def clip(screen: str, place: str, request: Request, here: Here, rater: Rater, t: str | None = None) -> Response:
    """A clip, or a part of it.

    With the rater's tag in its address a browser may keep it. With the tag of another rater, whose page is still open
    in this browser, it is refused: the page would show the wrong clips.
    """
    wanted = here.clip(rater, number(screen), number(place))
    if t is not None and t != here.sessions.clip_tag(rater):
        raise Refusal(403, "other-rater", "This page belongs to another personal link.", "Load the page again.")
    # A range may only be completed if the clip is the one that was begun; without an entity tag nobody can tell.
    part = None if "if-range" in request.headers else request.headers.get("range")
    return respond(wanted, part, "no-store" if t is None else "private, max-age=86400, immutable")
