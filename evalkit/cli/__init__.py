"""The command line: a shell without logic. One module per command; each has `register(app)`.

Results go to files and tables to stdout; progress and logs to stderr. Exit codes: 0 done; 1 failed; 2 bad usage or
input; 3 done, but something could not be scored (listed).
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import sys
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from evalkit.cli.console import SafeConsole
from evalkit.errors import UserError

if TYPE_CHECKING:
    from evalkit.cli.live.json_lines import JsonLines

INCOMPLETE = 3
"""Exit code: done, but something could not be scored."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

out = SafeConsole()
err = SafeConsole(stderr=True)
log: JsonLines | None = None
"""What machines are told instead of text on stderr; set by --log-json."""


def build_app() -> typer.Typer:
    """Collect the commands; modules defer heavy imports into their functions, so `--help` is instant."""
    app = typer.Typer(
        name="m4v-eval",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        help="Which change to my video model really helped, and how sure am I?",
        epilog="Start with [bold]m4v-eval doctor[/bold], then [bold]m4v-eval vbench --subset custom50"
        " --videos DIR[/bold] and open the report it names.",
    )
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        module = importlib.import_module(f"{__name__}.{info.name}")
        if hasattr(module, "register"):
            module.register(app)
    _let_help_flow(app)
    return app


def _let_help_flow(app: typer.Typer) -> None:
    """Join the lines of each paragraph of the commands' docstrings: rich would keep the breaks of the source."""
    for command in app.registered_commands:
        paragraphs = inspect.cleandoc(inspect.getdoc(command.callback) or "").split("\n\n")
        command.help = "\n\n".join(" ".join(paragraph.split("\n")) for paragraph in paragraphs)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _let_help_flow(group.typer_instance)


def main() -> None:
    """Run the command line; user errors become one clear line and an exit code."""
    try:
        build_app()()
    except SystemExit as e:
        if log is not None:
            _ended(log, e.code if isinstance(e.code, int) else 0)
        raise
    except UserError as e:
        _say(e.what, e.remedy, e.exit_code)
        sys.exit(e.exit_code)
    except KeyboardInterrupt:
        _say("interrupted", "Finished results are kept; run the same command again to go on.", INTERRUPTED)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # `m4v-eval ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as e:  # a defect: machines hear of it, and the traceback stays
        if log is not None:
            log.error(f"{type(e).__name__}: {e}", "", 1)
        raise


def _say(what: str, remedy: str, exit_code: int) -> None:
    """Why it stopped, for people or for machines."""
    if log is not None:
        log.error(what, remedy, exit_code)
    elif exit_code == INTERRUPTED:
        err.print(f"\n{what}: {remedy[0].lower()}{remedy[1:]}")
    else:
        err.print(f"[bold red]error:[/bold red] {escape(what)}", highlight=False, soft_wrap=True)
        err.print(f"       {remedy}", highlight=False, soft_wrap=True, markup=False)


def _ended(log: JsonLines, exit_code: int) -> None:
    """The last line for machines."""
    if exit_code in (0, INCOMPLETE):
        log.done(exit_code)
    else:
        log.error("The command was not understood; the lines before say why.", "See --help.", exit_code)
