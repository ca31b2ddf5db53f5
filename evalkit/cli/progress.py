"""Progress on stderr: what is going on, how far it is, when it will be done."""

from __future__ import annotations

from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from evalkit import cli
from evalkit.events import Event, Failed


class Bars:
    """One bar at a time, as `evalkit.job.Progress`. Without a terminal it says one line a stage."""

    def __init__(self) -> None:
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=cli.err,
            transient=True,
            disable=not cli.err.is_terminal,
        )

    def __enter__(self) -> Bars:
        self.bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.bars.stop()

    def start(self, what: str, total: int) -> None:
        for task in self.bars.task_ids:
            self.bars.remove_task(task)
        if cli.err.is_terminal:
            self.bars.add_task(what, total=total)
        elif total:
            cli.err.print(f"{what} ({total})", highlight=False)

    def advance(self, steps: int = 1) -> None:
        for task in self.bars.task_ids:
            self.bars.advance(task, steps)

    def tell(self, event: Event) -> None:
        if isinstance(event, Failed):
            cli.err.print(f"{event.what}: {event.why}", highlight=False, markup=False, soft_wrap=True)
