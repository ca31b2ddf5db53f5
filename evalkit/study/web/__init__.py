"""The web app in which raters vote: FastAPI, Jinja templates and plain scripts, without a build step."""

from evalkit.study.web.app import build_app
from evalkit.study.web.options import Options, Rate

__all__ = ["Options", "Rate", "build_app"]
