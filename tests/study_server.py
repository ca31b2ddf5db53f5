"""A real server of a study, in a process of its own that can be killed."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent


class Server:
    """`m4v-eval study serve` on a port of this machine."""

    def __init__(self, study: Path, *options: str) -> None:
        self.study = study
        self.options = options
        self.port = 0
        self.process: subprocess.Popen[str] | None = None
        self.said = ""

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Server:
        """Start it, on the port it had before."""
        code = "from evalkit.cli import main; main()"
        command = [sys.executable, "-c", code, "study", "serve", str(self.study), "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*command, *self.options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
        )
        try:
            self.port = self._announced()
        except BaseException:
            self.process.kill()
            self.process.communicate()
            raise
        return self

    def _announced(self) -> int:
        """Wait until it says where it listens; returns the port."""
        assert self.process is not None
        assert self.process.stdout is not None
        self.said = ""
        while "Admin:" not in self.said:
            line = self.process.stdout.readline()
            assert line, f"the server ended: {self.said}"
            self.said += line
        found = re.search(r" on http://\S+:(\d+) ", self.said)
        assert found is not None, self.said
        return int(found[1])

    def end(self, how: signal.Signals = signal.SIGINT) -> tuple[int, str]:
        """End it; returns its exit code and what it still said."""
        assert self.process is not None
        self.process.send_signal(how)
        rest, _ = self.process.communicate(timeout=30)
        return self.process.returncode, rest

    def kill(self) -> None:
        """End it without notice."""
        assert self.end(signal.SIGKILL)[0] == -signal.SIGKILL


@contextlib.contextmanager
def serving(study: Path, *options: str) -> Iterator[Server]:
    """A running server; at the end it must not have said anything that nobody asked for."""
    server = Server(study, *options).start()
    try:
        yield server
    finally:
        code, rest = server.end()
    assert code == 0, rest
    assert rest.startswith("Stopped. The votes are in"), rest
