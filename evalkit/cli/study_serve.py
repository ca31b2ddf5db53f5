"""`m4v-eval study serve`: the web app in which raters vote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalkit.cli import err, out

if TYPE_CHECKING:
    import socket

    from evalkit.study.web import Options


def add(study: typer.Typer) -> None:
    """Add the command."""
    study.command("serve")(serve)


def serve(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="What `study new --out` has made.")],
    host: Annotated[str, typer.Option(help="Address to listen on: this machine only, unless told otherwise.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes any free one.")] = 8000,
    public_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Under which raters reach it, such as https://study.example.org."),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A further name under which it may be asked; repeatable.")
    ] = None,
    trust_proxy: Annotated[
        bool, typer.Option("--trust-proxy", help="Take raters' addresses from the X-Forwarded-For of a proxy in front.")
    ] = False,
    rate_limit: Annotated[
        float, typer.Option(min=0.1, metavar="N", help="Requests a second of one rater; of one address 20 times that.")
    ] = 20,
) -> None:
    """Serve a study to its raters until Ctrl-C; every answer is stored the moment it is given.

    Each rater has a personal link, in links.csv of the study. The admin's link leads to progress, attention checks,
    agreement and exports.

    To let people in from outside, put a reverse proxy with TLS in front, and name what they see:

      m4v-eval study serve study --public-url https://study.example.org --trust-proxy

    A server that was killed loses nothing: start it again.
    """
    from evalkit.lock import holding
    from evalkit.study.plan_file import load_plan
    from evalkit.study.web import Options, Rate
    from evalkit.study.web.options import public_origin

    load_plan(study)  # before anything is made in a folder that is no study
    options = Options(
        hosts=(host, *(allow_host or ())),
        any_address=host in ("0.0.0.0", "::"),
        public_url=public_origin(public_url) if public_url else None,
        trust_proxy=trust_proxy,
        per_rater=Rate(rate_limit, 15 * rate_limit),
        per_address=Rate(20 * rate_limit, 200 * rate_limit),
    )
    with holding(study, "It is served", private=True), _listen(host, port) as listener:
        _serve(study, options, listener)


def _serve(study: Path, options: Options, listener: socket.socket) -> None:
    import uvicorn

    from evalkit.study.plan_file import VOTES
    from evalkit.study.web import build_app

    app = build_app(study, options)
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        proxy_headers=False,
        server_header=False,
        access_log=False,  # its lines would hold the tokens of the links
        log_level="warning",
        timeout_graceful_shutdown=5,
    )
    _announce(study, options, listener)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass  # how one ends it
    finally:
        app.state.served.store.close()
    out.print(f"Stopped. The votes are in {study / VOTES}.", highlight=False, soft_wrap=True)


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        UserError: the port is taken, or the address is not of this machine.
    """
    import socket

    from evalkit.errors import UserError

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(512)
    except OSError as e:
        listener.close()
        raise UserError(
            f"Cannot listen on {host}, port {port}: {e.strerror or e}.",
            "End the program that uses the port, or choose another one with --port (or --host).",
        ) from None
    return listener


def _announce(study: Path, options: Options, listener: socket.socket) -> None:
    from evalkit.study.links import read_links
    from evalkit.study.plan_file import LINKS
    from evalkit.study.web.guards import LOCAL

    address, port = listener.getsockname()[:2]
    name = f"[{address}]" if ":" in address else address
    origin = options.public_url or f"http://{'127.0.0.1' if options.any_address else name}:{port}"
    links = read_links(study)
    lines = [
        f"Serving {study} on http://{name}:{port} (Ctrl-C ends it)",
        f"Raters:  {study / LINKS}, each link after {origin}",
        f"Admin:   {origin}{links['admin']}"
        if "admin" in links
        else f"Admin:   no link: {study / LINKS} is not there.",
    ]
    for line in lines:
        out.print(line, highlight=False, soft_wrap=True, markup=False)
    if address not in LOCAL:
        err.print(
            f"[bold yellow]warning:[/bold yellow] everyone who reaches port {port} of this machine can ask this server."
            " Links and answers travel in the clear: put a reverse proxy with TLS in front (listen on 127.0.0.1 behind"
            " it, with --public-url https://... and --trust-proxy), or stay within a network that you trust.",
            highlight=False,
            soft_wrap=True,
        )
