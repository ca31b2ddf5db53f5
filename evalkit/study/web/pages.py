"""Templates and static files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

_HERE = Path(__file__).parent
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


@cache
def static_files() -> Mapping[str, bytes]:
    """The static files by name; there are few, and no request reaches the disk."""
    return {path.name: path.read_bytes() for path in sorted((_HERE / "static").iterdir()) if path.suffix in _TYPES}


@cache
def static_version() -> str:
    """Hash of all static files: part of their addresses, so that browsers may keep them for good."""
    digest = hashlib.sha256()
    for name, data in static_files().items():
        digest.update(name.encode() + b"\0" + data + b"\0")
    return digest.hexdigest()[:12]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["static"] = f"/static/{static_version()}"
    return environment


def page(template: str, status: int = 200, **context: Any) -> HTMLResponse:
    """Fill a template."""
    return HTMLResponse(_environment().get_template(template).render(**context), status)


def static_file(name: str) -> Response | None:
    """A static file; None if there is none of this name."""
    data = static_files().get(name)
    if data is None:
        return None
    lasting = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(data, media_type=_TYPES[Path(name).suffix], headers=lasting)
