"""Who is asking: personal links, signed cookies, and tokens against forged requests.

A personal link carries a random token, of which the plan holds only the SHA-256. Opening it sets a cookie signed with
the secret of the study. All that is derived from the secret is bound to a purpose: nothing stands in for another.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable
from pathlib import Path

from evalkit.errors import UserError
from evalkit.study.links import digest
from evalkit.study.plan_file import SECRET
from evalkit.study.types import Plan

ADMIN = "admin"
_TOKEN_LIMIT = 200  # characters; real ones have 32
_LIFE_S = {"rater": 60 * 86400, ADMIN: 86400}
_COOKIE = re.compile(r"([A-Za-z0-9_-]{1,64})\.([0-9]{1,12})\.([0-9a-f]{64})")


def read_secret(study: Path) -> bytes:
    """The study's secret.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        secret = bytes.fromhex((study / SECRET).read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        secret = b""
    if len(secret) < 32:
        raise UserError(
            f"{study / SECRET} is missing or damaged; it signs the raters' sessions.",
            "Restore it, or write 64 random hexadecimal digits into it: raters then open their links once more.",
        )
    return secret


class Sessions:
    """Checks links and cookies, and makes the latter.

    Args:
        secret: of the study.
        plan: knows the digests of all tokens.
        clock: seconds since 1970.
    """

    def __init__(self, secret: bytes, plan: Plan, clock: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._clock = clock
        self._digest = {rater.id: rater.token_sha256.lower() for rater in plan.raters}
        self._rater = {sha256: id_ for id_, sha256 in self._digest.items()}
        self._digest[ADMIN] = plan.admin_sha256.lower()
        # Cookies of one host are shared by all its ports: two studies on one machine must not overwrite each other's.
        self.cookie = f"study_{self.mac('cookie')[:8]}"
        self.admin_cookie = f"{self.cookie}_admin"

    def mac(self, purpose: str, *parts: str) -> str:
        """Authenticate some parts, none of which holds a line break, for one purpose."""
        return hmac.new(self._secret, "\n".join((purpose, *parts)).encode(), hashlib.sha256).hexdigest()

    def rater_of_link(self, token: str) -> str | None:
        """Whose personal link it is."""
        return self._rater.get(digest(token)) if 0 < len(token) <= _TOKEN_LIMIT else None

    def is_admin_link(self, token: str) -> bool:
        """Whether it is the admin's link."""
        return 0 < len(token) <= _TOKEN_LIMIT and hmac.compare_digest(digest(token), self._digest[ADMIN])

    def seal(self, who: str) -> str:
        """The cookie of a rater, or of `admin`."""
        issued = str(int(self._clock()))
        return f"{who}.{issued}.{self._signature(who, issued)}"

    def rater(self, cookie: str | None) -> str | None:
        """Whose cookie it is; None if it is no rater's, out of date or forged."""
        who = self._who(cookie)
        return None if who == ADMIN else who

    def is_admin(self, cookie: str | None) -> bool:
        """Whether it is the admin's cookie."""
        return self._who(cookie) == ADMIN

    def life_s(self, who: str) -> int:
        """How long a cookie is good."""
        return _LIFE_S[ADMIN if who == ADMIN else "rater"]

    def page_token(self, rater: str) -> str:
        """What pages of this rater send with every answer: a page of somebody else has another one."""
        return self.mac("page", rater, self._digest[rater])

    def is_page_of(self, rater: str, token: str) -> bool:
        """Whether a page that sends this token was made for the rater."""
        return hmac.compare_digest(token.encode("utf-8", "replace"), self.page_token(rater).encode())

    def clip_tag(self, rater: str) -> str:
        """What sets the clips' addresses of this rater apart, so that a browser's cache never mixes raters up."""
        return self.mac("clips", rater, self._digest[rater])[:16]

    def _who(self, cookie: str | None) -> str | None:
        match = _COOKIE.fullmatch(cookie or "")
        if match is None:
            return None
        who, issued, signature = match.groups()
        if who not in self._digest or not hmac.compare_digest(signature, self._signature(who, issued)):
            return None
        return who if self._clock() - int(issued) <= self.life_s(who) else None

    def _signature(self, who: str, issued: str) -> str:
        return self.mac("session", who, issued, self._digest[who])  # a new token ends the sessions of the old one
