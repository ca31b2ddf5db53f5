"""The rater's pages."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from evalkit.study.web.failures import not_found
from evalkit.study.web.pages import page, static_file, static_version
from evalkit.study.web.served import LETTERS, Served, number
from evalkit.study.web.visitors import Here, Rater, enter, refuse_forged

router = APIRouter()


@router.get("/r/{token}")
def personal_link(token: str, request: Request, here: Here) -> Response:
    """Log a rater in."""
    rater = here.sessions.rater_of_link(token)
    if rater is None:
        raise refuse_forged(request, here)
    return enter(request, here, rater)


@router.get("/")
def home(here: Here, rater: Rater) -> Response:
    """Begin, or go on where the rater has stopped."""
    if not here.store.progress_of(rater).n_answers:
        return _intro(here, rater)
    return RedirectResponse(where_next(here, rater), 303)


@router.get("/intro")
def intro(here: Here, rater: Rater) -> Response:
    """What the study asks, the keys, and what is stored."""
    return _intro(here, rater)


@router.get("/screen/{place}")
def screen(place: str, here: Here, rater: Rater) -> Response:
    """One screen; those after the first unfinished one have to wait."""
    n = number(place)
    shown = here.screen(rater, n)
    unfinished = here.first_unfinished(rater)
    if unfinished is not None and n > unfinished:
        return RedirectResponse(f"/screen/{unfinished}", 303)
    clips = [here.plan.clips[id_] for id_ in shown.clips]
    data = {
        "screen": n,
        "protocol": here.plan.protocol,
        "ties": here.plan.ties,
        "axes": [axis.name for axis in here.plan.axes],
        "pageToken": here.sessions.page_token(rater),
        "tag": here.sessions.clip_tag(rater),
        "ahead": _addresses(here, rater, n + 1) if n + 1 < len(here.screens(rater)) else [],
        **_stored(here, rater, n),
    }
    return page(
        "screen.html",
        plan=here.plan,
        prompt=here.plan.prompts[shown.prompt_id],
        number=n,
        total=len(here.screens(rater)),
        n_done=len(here.store.progress_of(rater).done),
        clips=list(zip(LETTERS, _addresses(here, rater, n), strict=False)),
        width=max(clip.width for clip in clips),
        height=max(clip.height for clip in clips),
        data=data,
    )


@router.get("/state/{place}")
def state(place: str, here: Here, rater: Rater) -> Response:
    """What is stored of a screen: another tab may have answered meanwhile."""
    n = number(place)
    here.screen(rater, n)
    return JSONResponse({"pageToken": here.sessions.page_token(rater), **_stored(here, rater, n)})


@router.get("/finish")
def finish(here: Here, rater: Rater) -> Response:
    """Thanks, and the way back to each screen."""
    unfinished = here.first_unfinished(rater)
    if unfinished is not None:
        return RedirectResponse(f"/screen/{unfinished}", 303)
    screens = here.screens(rater)
    return page("finish.html", plan=here.plan, prompts=[here.plan.prompts[s.prompt_id] for s in screens])


@router.get("/static/{version}/{name}")
def static(version: str, name: str) -> Response:
    """A style sheet, script or picture of the pages."""
    found = static_file(name) if version == static_version() else None
    if found is None:
        raise not_found()
    return found


@router.get("/robots.txt")
def robots() -> Response:
    """Nothing here is for search engines."""
    return PlainTextResponse("User-agent: *\nDisallow: /\n")


def where_next(here: Served, rater: str, after: int | None = None) -> str:
    """The address to go on to: the end if all is done, else the next screen that is open to the rater."""
    unfinished = here.first_unfinished(rater)
    if unfinished is None:
        return "/finish"
    return f"/screen/{unfinished if after is None else min(after + 1, unfinished)}"


def _intro(here: Served, rater: str) -> Response:
    screens = here.screens(rater)
    return page(
        "intro.html",
        plan=here.plan,
        total=len(screens),
        n_clips=max((len(screen.clips) for screen in screens), default=2),
        begun=bool(here.store.progress_of(rater).n_answers),
        target=where_next(here, rater),
        rater=rater,
    )


def _addresses(here: Served, rater: str, n: int) -> list[str]:
    tag = here.sessions.clip_tag(rater)
    return [f"/clip/{n}/{place}?t={tag}" for place in range(len(here.screen(rater, n).clips))]


def _stored(here: Served, rater: str, n: int) -> dict[str, Any]:
    return {
        "answers": {axis: list(cast.answer) for axis, cast in here.store.answers_of(rater, n).items()},
        "seconds": here.store.seconds_on(rater, n),
    }
