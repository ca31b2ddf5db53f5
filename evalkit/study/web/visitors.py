"""Who asks for a page: the rater or the admin behind a cookie."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from starlette.responses import RedirectResponse, Response

from evalkit.study.web.failures import Refusal
from evalkit.study.web.guards import too_fast
from evalkit.study.web.pages import page
from evalkit.study.web.served import Served, served
from evalkit.study.web.sessions import ADMIN

Here = Annotated[Served, Depends(served)]


async def current_rater(request: Request, here: Here) -> str:
    """The rater whose personal link was opened last in this browser.

    Raises:
        Refusal: none was.
    """
    rater = here.sessions.rater(request.cookies.get(here.sessions.cookie))
    if rater is None:
        raise Refusal(
            401,
            "no-session",
            "This browser does not know you yet, or no longer.",
            "Open the personal link that you were given.",
        )
    here.note(rater)
    return rater


async def current_admin(request: Request, here: Here) -> None:
    """Let only the admin pass.

    Raises:
        Refusal: somebody else asks.
    """
    if not here.sessions.is_admin(request.cookies.get(here.sessions.admin_cookie)):
        raise Refusal(
            401,
            "no-session",
            "This page is for the people who run the study.",
            "Open the admin link in links.csv of the study.",
        )


Rater = Annotated[str, Depends(current_rater)]


def enter(request: Request, here: Served, who: str) -> Response:
    """Set the cookie of who has opened a link, and lead on to an address without the token.

    Browsers keep a strict cookie back while they follow a redirect that another site's link has begun. Then a page of
    our own leads on instead.
    """
    target = "/admin" if who == ADMIN else "/"
    from_elsewhere = request.headers.get("sec-fetch-site") in ("cross-site", "same-site")
    response: Response = page("enter.html", target=target) if from_elsewhere else RedirectResponse(target, 303)
    response.set_cookie(
        here.sessions.admin_cookie if who == ADMIN else here.sessions.cookie,
        here.sessions.seal(who),
        max_age=here.sessions.life_s(who),
        httponly=True,
        samesite="strict",
        secure=here.options.secure,
    )
    return response


def refuse_forged(request: Request, here: Served) -> Refusal:
    """The refusal of an unknown link; many of them from one address are slowed down."""
    wait_s = here.forged.take(str(request.state.address))
    if wait_s:
        return too_fast(wait_s)
    return Refusal(404, "unknown-link", "This link is not known here.", "Copy it once more, whole, as you got it.")
