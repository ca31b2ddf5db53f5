"""The app, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from evalkit.study.web import admin, casting, clips, guards, rater
from evalkit.study.web.failures import add_handlers
from evalkit.study.web.options import Options
from evalkit.study.web.served import Served, serve_study


def build_app(study: Path, options: Options | None = None) -> FastAPI:
    """The web app of a study; its votes are open for writing until the app is shut down.

    Raises:
        RunFailed: the votes cannot be written.
        UserError: no study, or a damaged one.
    """
    options = options or Options()
    served = serve_study(study, options)
    # No description of the interface is served: it is nobody's but the pages'.
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=_closing(served))
    app.state.served = served
    for part in (rater, casting, clips, admin):
        app.include_router(part.router)
    add_handlers(app)
    # The guard that is added last stands outermost.
    app.add_middleware(guards.SmallBodies, limit=options.max_body)
    app.add_middleware(guards.Pace, options=options, sessions=served.sessions)
    app.add_middleware(guards.KnownHosts, options=options)
    app.add_middleware(guards.Failures)
    app.add_middleware(guards.SecurityHeaders, secure=options.secure)
    return app


def _closing(served: Served) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        served.store.close()

    return lifespan
