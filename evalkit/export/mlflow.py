"""Entries as MLflow's runs: an ablation's variants and seeds are runs within its run.

A run that is exported again is found by a tag and brought up to date: numbers that MLflow has already are not written
twice. MLflow cannot take a number or a setting back; where one has gone, the run goes to MLflow's bin and is made anew.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from evalkit.errors import UserError
from evalkit.export.entry import Curve, Entry, file_name
from evalkit.export.mlflow_client import connect, explained

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run

IDENTITY = "m4v-eval.identity"
EXPERIMENT = "m4v-eval"
LONGEST_SETTING, LONGEST_TAG = 500, 4000  # what servers of all versions take
METRICS, TAGS = 1000, 100  # at a time
T = TypeVar("T")


class Store:
    """A tracking store: a server's address, or `sqlite:///FILE.db`.

    Args:
        uri: as MLflow takes it.
        experiment: its name there; made if it is not there.

    Raises:
        UserError: MLflow is not installed, or does not take the store.
    """

    def __init__(self, uri: str, experiment: str = EXPERIMENT) -> None:
        self.uri = uri
        with explained(uri):
            self.client = connect(uri)
            found = self.client.get_experiment_by_name(experiment)
            if found is not None and found.lifecycle_stage == "deleted":
                raise UserError(
                    f"The experiment {experiment!r} of {uri} was deleted.",
                    "Restore it, or choose another --experiment.",
                )
            self.experiment = found.experiment_id if found else self.client.create_experiment(experiment)

    def write(self, entry: Entry) -> str:
        """Write a run with its parts, and return its id.

        Raises:
            UserError: the store refuses it, or cannot be reached.
            RunFailed: the disk is full.
        """
        with explained(self.uri):
            return self._write(entry, (), None)

    def _write(self, entry: Entry, above: tuple[str, ...], parent: str | None) -> str:
        path = (*above, entry.name)
        tags = {f"m4v-eval.{name}": value[:LONGEST_TAG] for name, value in entry.origin.items()}
        tags |= {IDENTITY: entry.identity, "mlflow.runName": "/".join(path)}
        tags |= {"m4v-eval.missing": ", ".join(entry.missing)[:LONGEST_TAG]} if entry.missing else {}
        tags |= {"mlflow.parentRunId": parent} if parent else {}
        settings = {name: value[:LONGEST_SETTING] for name, value in entry.settings.items()}
        finished = int(entry.finished.timestamp() * 1000)
        run = self._found(entry, settings) or self.client.create_run(
            self.experiment, start_time=finished, tags=tags, run_name="/".join(path)
        )
        self._log(run, entry, settings, tags, finished)
        self._files(run.info.run_id, entry)
        status = "KILLED" if entry.interrupted else "FINISHED"
        self.client.set_terminated(run.info.run_id, status, end_time=finished)
        for part in entry.parts:
            self._write(part, path, run.info.run_id)
        return str(run.info.run_id)

    def _found(self, entry: Entry, settings: Mapping[str, str]) -> Run | None:
        """The run of an earlier export; None if there is none, or if it says what is no longer true."""
        query = f"tags.`{IDENTITY}` = '{entry.identity}'"
        for run in self.client.search_runs([self.experiment], query, max_results=1):
            known = run.data.metrics.keys() <= entry.numbers.keys() | entry.curves.keys()
            same = all(settings.get(name) == value for name, value in run.data.params.items())
            if known and same and all(self._goes_on(run, name, curve) for name, curve in entry.curves.items()):
                return run
            self.client.delete_run(run.info.run_id)
        return None

    def _history(self, run: Run, name: str) -> list[Metric]:
        if name not in run.data.metrics:
            return []
        return list(self.client.get_metric_history(run.info.run_id, name))

    def _goes_on(self, run: Run, name: str, curve: Curve) -> bool:
        """Whether what is stored of a curve is part of it."""
        steps = dict(curve)
        return all(math.isclose(m.value, steps.get(m.step, math.nan), rel_tol=1e-12) for m in self._history(run, name))

    def _log(self, run: Run, entry: Entry, settings: Mapping[str, str], tags: Mapping[str, str], finished: int) -> None:
        from mlflow.entities import Metric, Param, RunTag

        metrics = [
            Metric(name, number, self._after(run, name), 0)
            for name, number in entry.numbers.items()
            if run.data.metrics.get(name) != number
        ]
        for name, curve in entry.curves.items():
            stored = {m.step for m in self._history(run, name)}
            metrics += [Metric(name, number, finished, step) for step, number in curve if step not in stored]
        params = [Param(name, value) for name, value in settings.items() if name not in run.data.params]
        run_id = run.info.run_id
        for batch in _batches(metrics, METRICS):
            self.client.log_batch(run_id, metrics=batch)
        for some in _batches(params, TAGS):
            self.client.log_batch(run_id, params=some)
        for few in _batches([RunTag(name, value) for name, value in tags.items()], TAGS):
            self.client.log_batch(run_id, tags=few)

    def _after(self, run: Run, name: str) -> int:
        """A time in milliseconds after what is stored of a number: the latest is the one that counts."""
        return max([int(time.time() * 1000), *(m.timestamp + 1 for m in self._history(run, name))])

    def _files(self, run_id: str, entry: Entry) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            for name, text in entry.tables.items():
                (folder / name).write_text(text, encoding="utf-8")
            for name, path in entry.pictures.items():
                (folder / "stills").mkdir(exist_ok=True)
                (folder / "stills" / f"{file_name(name)}.jpg").write_bytes(path.read_bytes())
            if entry.report is not None:
                (folder / "report.html").write_bytes(entry.report.read_bytes())
            if any(folder.iterdir()):
                self.client.log_artifacts(run_id, str(folder))


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
