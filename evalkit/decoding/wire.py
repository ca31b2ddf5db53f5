"""Messages between the two processes: objects of JSON, one a line."""

from __future__ import annotations

import json
import socket
from collections import deque
from typing import Any

MAX_LINE = 2**16
Message = dict[str, Any]


class Garbled(Exception):
    """What came is no message."""


class Closed(Exception):
    """The other side is gone, and all that it said has been read."""


class Channel:
    """One end of a connected pair of sockets.

    Args:
        end: the socket.
        send_timeout_s: how long the other side may leave a message lying; None waits for ever.
    """

    def __init__(self, end: socket.socket, send_timeout_s: float | None = None) -> None:
        self.socket = end
        self._send_timeout_s = send_timeout_s
        end.settimeout(send_timeout_s)
        self._lines: deque[bytes] = deque()
        self._rest = b""

    def send(self, message: Message) -> None:
        """Say something.

        Raises:
            OSError: nobody listens.
        """
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout_s: float | None = None) -> Message:
        """The next message.

        Raises:
            TimeoutError: none came.
            Closed: none will come.
            Garbled: it was no message.
        """
        while not self._lines:
            data = self._bytes(timeout_s)
            if not data:
                raise Closed
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._lines.extend(lines)
            if len(self._rest) > MAX_LINE:
                raise Garbled
        return _parsed(self._lines.popleft())

    def close(self) -> None:
        self.socket.close()

    def _bytes(self, timeout_s: float | None) -> bytes:
        """What has come, nothing once the other side is gone."""
        if timeout_s is None:
            return self._received()
        self.socket.settimeout(timeout_s)
        try:
            return self._received()
        finally:
            if self.socket.fileno() >= 0:
                self.socket.settimeout(self._send_timeout_s)

    def _received(self) -> bytes:
        try:
            return self.socket.recv(MAX_LINE)
        except BlockingIOError as e:  # a timeout of nothing
            raise TimeoutError from e
        except TimeoutError:
            raise
        except OSError:
            return b""


def _parsed(line: bytes) -> Message:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as e:
        raise Garbled from e
    if not isinstance(message, dict):
        raise Garbled
    return message
