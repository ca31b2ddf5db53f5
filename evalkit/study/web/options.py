"""What can be set when a study is served."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from evalkit.errors import UserError


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests a second on average, and so many at once after a rest."""

    per_s: float
    burst: float


@dataclass(frozen=True, slots=True)
class Options:
    """How the app faces the network.

    Args:
        hosts: names under which it may be asked, besides those of the local machine and of `public_url`.
        any_address: whether it may also be asked under any numeric address (it listens on all of them).
        public_url: origin under which raters reach it, such as `https://study.example.org`.
        trust_proxy: whether the last `X-Forwarded-For` tells the rater's address: only behind a proxy that sets it.
        per_rater: requests of one rater. A screen of five clips takes about twenty.
        per_address: requests of one address; a whole class of raters may share it.
        forged: links with unknown tokens from one address; those that are known are never refused.
        max_body: bytes of a request.
    """

    hosts: tuple[str, ...] = ()
    any_address: bool = False
    public_url: str | None = None
    trust_proxy: bool = False
    per_rater: Rate = Rate(20, 300)
    per_address: Rate = Rate(400, 4000)
    forged: Rate = Rate(0.2, 20)
    max_body: int = 16 * 1024

    @property
    def secure(self) -> bool:
        """Whether cookies travel over TLS only."""
        return (self.public_url or "").startswith("https://")


def is_address(host: str) -> bool:
    """Whether a host is a numeric address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def public_origin(url: str) -> str:
    """The origin of a public URL, without a slash at its end.

    Raises:
        UserError: it is no origin.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise UserError(f"{url!r} is no public URL.", "Give scheme and name, such as https://study.example.org.")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise UserError(
            f"{url!r} has a path.", "A study is served at the root of a name of its own: leave the path out."
        )
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{name}" + (
        f":{port}" if port and port != {"http": 80, "https": 443}[parts.scheme] else ""
    )
