"""The admin's page. It may name models; a rater never gets here."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from evalkit.study.web.overview import everything, open_links, overview
from evalkit.study.web.pages import page
from evalkit.study.web.sessions import ADMIN
from evalkit.study.web.visitors import Here, current_admin, enter, refuse_forged

router = APIRouter(prefix="/admin")
ForAdmin = [Depends(current_admin)]


@router.get("/{token}")
def admin_link(token: str, request: Request, here: Here) -> Response:
    """Log the admin in."""
    if not here.sessions.is_admin_link(token):
        raise refuse_forged(request, here)
    return enter(request, here, ADMIN)


@router.get("", dependencies=ForAdmin)
def home(here: Here) -> Response:
    """Progress, attention checks, agreement, exports."""
    return page("admin.html", plan=here.plan, overview=overview(here))


@router.get("/export/votes.csv", dependencies=ForAdmin)
def votes(here: Here) -> Response:
    """The votes that count, models named, in the form that `m4v-eval study aggregate` reads."""
    from evalkit.study.forms import as_csv
    from evalkit.study.reveal import reveal

    return _download(as_csv(reveal(here.plan, here.store.answers())), "text/csv; charset=utf-8", "votes.csv")


@router.get("/export/answers.json", dependencies=ForAdmin)
def answers(here: Here) -> Response:
    """Everything that was ever submitted."""
    return _download(everything(here), "application/json", "answers.json")


@router.get("/export/open-links.csv", dependencies=ForAdmin)
def links(here: Here) -> Response:
    """The links of those who have not finished."""
    return _download(open_links(here), "text/csv; charset=utf-8", "open-links.csv")


def _download(text: str, media_type: str, name: str) -> Response:
    return Response(text, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{name}"'})
