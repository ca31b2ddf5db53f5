"""Casting: the addresses that store something."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from evalkit.study.answers import answer_fault
from evalkit.study.web.failures import Refusal
from evalkit.study.web.rater import where_next
from evalkit.study.web.visitors import Here, Rater

TOKEN_HEADER = "X-Study-Token"


class Submission(BaseModel):
    """What every submission says."""

    model_config = ConfigDict(extra="forbid", strict=True)

    key: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{8,64}$")]
    screen: Annotated[int, Field(ge=0, le=999_999)]
    seconds: Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)] | None = None


class CastBody(Submission):
    """An answer to one question."""

    axis: Annotated[str, Field(max_length=200)]
    answer: Annotated[list[Annotated[int, Field(ge=-1000, le=1000)]], Field(max_length=100)]


async def trusted_page(request: Request, here: Here, rater: Rater) -> None:
    """Let only a page of this study pass, and only one that was made for this rater.

    Raises:
        Refusal: a foreign site asks, or a page of somebody else who used this browser.
    """
    if request.headers.get("origin") not in _origins(request.headers.get("host", ""), here.options.public_url):
        raise Refusal(403, "origin", "This was not sent by a page of the study.", "Open your personal link.")
    token = request.headers.get(TOKEN_HEADER, "")
    if here.sessions.is_page_of(rater, token):
        return
    if any(here.sessions.is_page_of(other, token) for other in here.raters):
        raise Refusal(
            403,
            "other-rater",
            "Another personal link has been opened in this browser, so this was not stored.",
            "Open your own link again to go on.",
        )
    raise Refusal(403, "page-token", "This page is out of date, so this was not stored.", "Load the page again.")


def _origins(host: str, public_url: str | None) -> tuple[str, ...]:
    """The origins that a page asked for under this host can have; the host itself has been checked before."""
    if public_url and urlsplit(public_url).netloc == host:
        return (public_url,)
    return (f"http://{host}", f"https://{host}", *((public_url,) if public_url else ()))


router = APIRouter(dependencies=[Depends(trusted_page)])


@router.post("/answer")
def answer(body: CastBody, here: Here, rater: Rater) -> Response:
    """Store an answer; it is on disk when this is answered."""
    screen = here.screen(rater, body.screen)
    if body.axis not in {axis.name for axis in here.plan.axes}:
        raise Refusal(422, "axis", "This study does not ask that question.", "Load the page again.")
    fault = answer_fault(here.plan.protocol, here.plan.ties, len(screen.clips), body.answer)
    if fault:
        raise Refusal(422, "answer", fault)
    receipt = here.store.cast(rater, body.screen, body.axis, tuple(body.answer), key=body.key, seconds=body.seconds)
    return JSONResponse({"revision": receipt.revision, "repeated": receipt.repeated})


@router.post("/done")
def done(body: Submission, here: Here, rater: Rater) -> Response:
    """Store that the rater is done with a screen, and say where to go on."""
    here.screen(rater, body.screen)
    axes = [axis.name for axis in here.plan.axes]
    receipt = here.store.finish(rater, body.screen, axes, key=body.key, seconds=body.seconds)
    return JSONResponse({"next": where_next(here, rater, body.screen), "repeated": receipt.repeated})
