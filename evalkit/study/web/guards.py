"""What stands around the app: headers on every response, known hosts only, small bodies, a bounded pace, no tracebacks.

Each guard is a plain ASGI application around the next one, so that it also sees what the others refuse.
"""

from __future__ import annotations

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from evalkit.study.web.failures import Refusal, asked_by_script, refusal_of
from evalkit.study.web.limits import Buckets
from evalkit.study.web.options import Options, is_address
from evalkit.study.web.sessions import Sessions

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "media-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "X-Robots-Tag": "noindex, nofollow",
}
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?")
LOCAL = ("localhost", "127.0.0.1", "::1")


class SecurityHeaders:
    """Adds the security headers to every response; one that does not say otherwise is stored nowhere."""

    def __init__(self, app: ASGIApp, secure: bool) -> None:
        self._app = app
        self._headers = {**HEADERS, **({"Strict-Transport-Security": "max-age=31536000"} if secure else {})}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self._headers)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, send_with_headers)


class Failures:
    """Turns whatever escapes into a short answer; the traceback goes to the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as e:
            if started or scope["type"] != "http":
                raise  # half an answer is out: the connection has to break
            await refuse(refusal_of(e), scope, receive, send)


class KnownHosts:
    """Answers only requests for names of the study, so that no foreign name can be pointed at it (DNS rebinding)."""

    def __init__(self, app: ASGIApp, options: Options) -> None:
        self._app = app
        public = (options.public_url or "").partition("://")[2]
        self._names = {name.lower().rstrip(".") for name in (*LOCAL, *options.hosts, host_name(public) or "")} - {""}
        self._any_address = options.any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._known(Headers(scope=scope).get("host", "")):
            refusal = Refusal(421, "host", "This is not a name of the study.", "Use your personal link as it is.")
            return await refuse(refusal, scope, receive, send)
        return await self._app(scope, receive, send)

    def _known(self, host: str) -> bool:
        name = host_name(host)
        return name is not None and (name in self._names or (self._any_address and is_address(name)))


def host_name(host: str) -> str | None:
    """The name in a `Host` header, without port and brackets; None if it is none."""
    match = _HOST.fullmatch(host)
    return (match[1] or match[2]).lower().rstrip(".") if match else None


class Pace:
    """Bounds the requests of each rater and of each address."""

    def __init__(self, app: ASGIApp, options: Options, sessions: Sessions) -> None:
        self._app = app
        self._sessions = sessions
        self._trust_proxy = options.trust_proxy
        self._raters, self._addresses = Buckets(options.per_rater), Buckets(options.per_address)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope.setdefault("state", {})["address"] = address = _address(scope, self._trust_proxy)
            cookies = cookie_parser(Headers(scope=scope).get("cookie", ""))
            rater = self._sessions.rater(cookies.get(self._sessions.cookie))
            wait_s = self._addresses.take(address)
            if rater is not None:
                wait_s = max(wait_s, self._raters.take(rater))
            if wait_s:
                return await refuse(too_fast(wait_s), scope, receive, send)
        return await self._app(scope, receive, send)


def _address(scope: Scope, trust_proxy: bool) -> str:
    """Where a request comes from; behind a proxy the last entry, which the proxy has added itself."""
    forwarded = Headers(scope=scope).getlist("x-forwarded-for") if trust_proxy else []
    last = ",".join(forwarded).rpartition(",")[2].strip()
    client = scope.get("client")
    return last if is_address(last) else (client[0] if client else "unknown")


def too_fast(wait_s: float) -> Refusal:
    """More requests than the pace allows."""
    return Refusal(429, "too-fast", "Too many requests.", "Wait a moment, then try again.", wait_s=wait_s)


class SmallBodies:
    """Refuses bodies above a limit, whether their length is declared or not."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            return await self._app(scope, receive, send)  # nobody reads a body there
        declared = Headers(scope=scope).get("content-length", "0")
        if not declared.isdecimal() or len(declared) > 12 or int(declared) > self._limit:
            return await refuse(_too_large(), scope, receive, send)
        body = await _read(receive, self._limit)
        if body is None:
            return await refuse(_too_large(), scope, receive, send)
        return await self._app(scope, _replayed(body, receive), send)


async def _read(receive: Receive, limit: int) -> bytes | None:
    """The whole body; None if it is larger than the limit."""
    body = b""
    while len(body) <= limit:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return body if len(body) <= limit else None
    return None


def _replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _too_large() -> Refusal:
    return Refusal(413, "too-large", "The request is too large.", "Load the page again.")


async def refuse(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request with a refusal."""
    response = refusal.response(for_script=asked_by_script(scope["method"], scope["path"]))
    await response(scope, receive, send)
