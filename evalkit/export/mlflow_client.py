"""MLflow's client, and its errors as ours."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.errors import RunFailed, UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""MLflow's own, where the user has not set them."""


def connect(uri: str) -> MlflowClient:
    """A client of a store; call it where errors are `explained`.

    Raises:
        UserError: a database file is to be in a folder that does not exist.
    """
    _check(uri)
    from mlflow import MlflowClient

    return MlflowClient(uri, uri)


def without_password(text: str) -> str:
    """A text to show: addresses in it keep their user and password to themselves."""
    return re.sub(r"(\w://)[^/\s@]*@", r"\1...@", text)


def _check(uri: str) -> None:
    """Refuse at once what MLflow would try for minutes: a database file in a folder that there is not.

    Raises:
        UserError: there is no such folder.
    """
    folder = Path(uri.removeprefix(SQLITE)).parent
    if uri.startswith(SQLITE) and not folder.is_dir():
        raise UserError(f"{uri} would be in {folder}, which does not exist.", "Make the folder, or choose another.")


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """MLflow's errors, and those of the database below it, as ours.

    MLflow is told to tell nobody but the store, and to give up within a minute where nobody answers.

    Raises:
        UserError: MLflow or a database driver is not installed, or it refuses.
        RunFailed: the disk is full.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise UserError(
            "--mlflow needs MLflow, which is not installed.", "Install it: pip install 'm4v-eval[mlflow]'."
        ) from None
    refusals: tuple[type[Exception], ...] = (MlflowException, *_database_errors())
    try:
        yield
    except ImportError as e:
        raise UserError(
            f"{without_password(uri)} needs the package {e.name}, which is not installed.", "Install it with pip."
        ) from e
    except refusals as e:
        why = without_password(str(e)).strip().splitlines()[0].rstrip(".")
        raise UserError(
            f"MLflow does not take {without_password(uri)}: {why}.",
            "Give the address of a server that runs, or a file as sqlite:///mlflow.db.",
        ) from e
    except OSError as e:
        raise RunFailed(
            f"Could not write to {without_password(uri)}: {e.strerror or e}.", "Free space, then export again."
        ) from e


def _database_errors() -> tuple[type[Exception], ...]:
    try:
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        return ()
    return (SQLAlchemyError,)
