"""What a browser gets when something is refused or fails: a short page, or JSON where a script has asked."""

from __future__ import annotations

import logging
import math

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from evalkit.errors import RunFailed, UserError
from evalkit.study.submissions import SubmissionRefused
from evalkit.study.web.pages import page

log = logging.getLogger("m4v-eval.study")

FIELDS = {
    "key": "The key of a submission is 8 to 64 letters and digits.",
    "screen": "The screen is a whole number from 0 on.",
    "axis": "The axis is the name of a question.",
    "answer": "The answer is a list of whole numbers.",
    "seconds": "The seconds are a number from 0 on.",
}
"""What is expected of each field of a submission."""


class Refusal(Exception):
    """A request that is not answered as asked.

    Args:
        status: of HTTP.
        code: for scripts.
        what: what is the matter, for a person.
        remedy: what to do about it.
        wait_s: after how many seconds to try again.
    """

    def __init__(self, status: int, code: str, what: str, remedy: str = "", *, wait_s: float | None = None) -> None:
        super().__init__(what)
        self.status, self.code, self.what, self.remedy, self.wait_s = status, code, what, remedy, wait_s

    def response(self, *, for_script: bool) -> Response:
        """As JSON for a script, as a page for a person."""
        if for_script:
            error = {"code": self.code, "message": f"{self.what} {self.remedy}".strip()}
            response: Response = JSONResponse({"error": error}, self.status)
        else:
            response = page("failure.html", self.status, what=self.what, remedy=self.remedy, code=self.code)
        if self.wait_s is not None:
            response.headers["Retry-After"] = str(math.ceil(self.wait_s))
        return response


def not_found() -> Refusal:
    """Nothing is at this address, or nothing that the asker may see."""
    return Refusal(404, "not-found", "There is nothing at this address.", "Open your personal link again.")


def asked_by_script(method: str, path: str) -> bool:
    """Whether a request comes from a script of a page: then it gets JSON."""
    return method not in ("GET", "HEAD") or path.startswith(("/state/", "/clip/", "/static/"))


def refusal_of(error: Exception) -> Refusal:
    """The refusal that an exception stands for."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, RequestValidationError):
        fields = [str(place) for e in error.errors() for place in e["loc"] if place in FIELDS]
        what = FIELDS[fields[0]] if fields else "This is no submission of a page of the study."
        return Refusal(422, "malformed", what, "Load the page again.")
    if isinstance(error, SubmissionRefused):
        return Refusal(409, "contradiction", error.what, error.remedy)
    if isinstance(error, HTTPException):
        return _of_status(error.status_code)
    log.error("a request failed", exc_info=error)
    if isinstance(error, RunFailed | UserError):
        return Refusal(
            503, "store", "The study cannot store or read answers at the moment.", "Try again in a minute.", wait_s=5
        )
    return Refusal(500, "defect", "Something went wrong at our end.", "Try again in a minute.")


def _of_status(status: int) -> Refusal:
    if status == 404:
        return not_found()
    if status == 405:
        return Refusal(405, "method", "This address does not take such requests.")
    return Refusal(status, "malformed", "The request cannot be read.", "Load the page again.")


async def _refuse(request: Request, error: Exception) -> Response:
    return refusal_of(error).response(for_script=asked_by_script(request.method, request.url.path))


def add_handlers(app: FastAPI) -> None:
    """Answer every failure of the app in this way."""
    for kind in (Refusal, RequestValidationError, UserError, HTTPException):
        app.add_exception_handler(kind, _refuse)
