"""The view of a long run on a terminal: its stage, what each worker is at, and what failed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import TracebackType

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from evalkit.cli.live.stage import Stage
from evalkit.cli.live.text import duration, fitted, pace
from evalkit.cli.live.watch import Watch

LEAST_BAR, MOST_BAR = 8, 40
WIDE_BAR = 20  # with less room for it, the stage's name gets a line of its own
LATEST = 3  # failures that are named
REFRESH = 4  # times a second


class LiveView(Watch):
    """Repaints itself in place; when it closes, only the failures stay."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console
        self._live = Live(
            self,
            console=console,
            transient=True,
            refresh_per_second=REFRESH,
            redirect_stdout=sys.stdout.isatty(),  # what goes to a file or a pipe is none of our business
        )

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._live.stop()
        with self.lock:
            self.stage = None
            self.doing.clear()
            for line in self._failures(self.console.width, LATEST + 1):
                self.console.print(line, no_wrap=True, crop=False, soft_wrap=True)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """What fits the terminal as it is now: never more lines than it has, so that repainting stays in place."""
        with self.lock:
            lines = list(self._lines(options.max_width, max(1, options.size.height - 1)))
        for number, line in enumerate(lines):
            if number:
                yield Segment.line()
            yield from (s for s in console.render(line, options.update(height=1)) if s.text != "\n")

    def _lines(self, width: int, height: int) -> Iterator[Text | Table]:
        stage = list(self._stage(width))
        failures = list(self._failures(width, max(0, height - len(stage))))
        yield from stage[:height]
        yield from self._workers(width, height - len(stage) - len(failures))
        yield from failures

    def _stage(self, width: int) -> Iterator[Text | Table]:
        """On one line where it fits, else the name above the numbers."""
        if self.stage is None:
            return
        now = self.clock()
        bar = ProgressBar(total=max(self.stage.total, 1), completed=min(self.stage.done, max(self.stage.total, 1)))
        figures = _figures(self.stage, self.files, now, width)
        room = width - cell_len(figures) - 1
        beside = room - cell_len(self.stage.what) - 1
        if beside >= WIDE_BAR:
            bar.width = min(MOST_BAR, beside)
            yield _row(Text(self.stage.what, "bold"), bar, Text(figures))
            return
        yield Text(fitted(self.stage.what, width), "bold", no_wrap=True)
        bar.width = min(MOST_BAR, room)
        yield _row(bar, Text(figures)) if room >= LEAST_BAR else Text(figures, no_wrap=True)

    def _workers(self, width: int, room: int) -> Iterator[Text]:
        """One line each, in the order in which they were first heard of; the last line counts those without room."""
        if not self.doing or room < 1:
            return
        shown = list(self.doing.items())
        hidden = 0 if len(shown) <= room else len(shown) - room + 1
        shown = shown[: len(shown) - hidden]
        names = min(max((cell_len(worker) for worker, _ in shown), default=0), width // 3)
        for worker, what in shown:
            name = fitted(worker, names)
            line = Text("  ", no_wrap=True).append(name + " " * (names - cell_len(name)), "cyan").append("  ")
            yield line.append(fitted(what, width - names - 4) if what else "idle", "" if what else "dim")
        if hidden:
            yield Text(fitted(f"  and {hidden} more", width), "dim", no_wrap=True)

    def _failures(self, width: int, room: int) -> Iterator[Text]:
        """How many, and the latest of them as far as there is room."""
        if not self.failed or room < 1:
            return
        named = list(self.latest)[-min(LATEST, room - 1) :] if room > 1 else []
        yield Text(fitted(f"{self.failed} failed" + (", the latest:" if named else ""), width), "red", no_wrap=True)
        for failure in named:
            yield Text(fitted(f"  {failure.what}: {failure.why}", width), no_wrap=True)


def _figures(stage: Stage, files: Stage | None, now: float, width: int) -> str:
    """Steps, remaining time, rate, elapsed time, and files a minute; the last go where a bar has no room."""
    total = f"{stage.total:,}"
    parts = [
        f"{stage.done:>{len(total)},}/{total}" if stage.total else f"{stage.done:,}",
        f"{duration(stage.left(now))} left",
        pace(stage.rate(now)),
        duration(stage.elapsed(now)),
    ]
    if files is not None and (rate := files.rate(now)) is not None:
        parts.append(f"{60 * rate:.1f} files/min")
    while len(parts) > 2 and cell_len("  ".join(parts)) > width - LEAST_BAR - 1:
        parts.pop()
    return fitted("  ".join(parts), width)


def _row(*cells: Text | ProgressBar) -> Table:
    table = Table.grid(padding=(0, 1))
    for _ in cells:
        table.add_column(no_wrap=True)
    table.add_row(*cells)
    return table
