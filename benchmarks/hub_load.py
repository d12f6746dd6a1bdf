"""Load on an HTTP server from raw sockets that stay open: cheap beside any server it measures."""

from __future__ import annotations

import contextlib
import socket
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CONNECTIONS = 4
PIECE = 1024 * 1024
END = b"\r\n\r\n"


@dataclass(frozen=True)
class Request:
    """One request, to be sent again and again."""

    port: int
    path: str
    method: str = "GET"
    token: str = ""
    status: int = 200

    def to_bytes(self) -> bytes:
        """Return the request as it is sent."""
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}"]
        lines += ["Accept-Encoding: identity"]
        lines += [f"Authorization: Bearer {self.token}"] if self.token else []
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Connection:
    """A connection that is kept alive."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._bytes = request.to_bytes()
        self._socket = socket.create_connection(("127.0.0.1", request.port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(PIECE)

    def ask(self) -> int:
        """Send the request, read the whole answer and return how many bytes its body had.

        Raises:
            RuntimeError: the status is another one than expected.
        """
        self._socket.sendall(self._bytes)
        head = b""
        while END not in head:
            piece = self._socket.recv(65536)
            if not piece:
                raise RuntimeError(f"{self._request.path}: the connection ended in {head!r}")
            head += piece
        head, _, body = head.partition(END)
        if int(head.split(b" ", 2)[1]) != self._request.status:
            raise RuntimeError(f"{self._request.path}: {head.decode('latin-1')}")
        length = 0 if self._request.method == "HEAD" else _content_length(head)
        rest = length - len(body)
        while rest > 0:
            rest -= self._socket.recv_into(self._buffer)
        return length

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def rate(request: Request, *, seconds: float, connections: int = CONNECTIONS) -> float:
    """Return how many requests a second are answered over several connections at once."""
    counts: list[int] = []

    def work() -> None:
        count = 0
        with contextlib.closing(Connection(request)) as connection:
            while time.perf_counter() < deadline:
                connection.ask()
                count += 1
        counts.append(count)

    began = time.perf_counter()
    deadline = began + seconds
    threads = [threading.Thread(target=work) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(counts) < connections:
        raise RuntimeError(f"{request.path} was not answered as expected")
    return sum(counts) / (time.perf_counter() - began)


def rates(
    requests: Mapping[str, Request], *, seconds: float, repeats: int, connections: int = CONNECTIONS
) -> dict[str, float]:
    """Return the median rates of several requests, measured in turn."""
    found: dict[str, list[float]] = {name: [] for name in requests}
    for request in requests.values():
        rate(request, seconds=min(seconds, 0.5), connections=connections)  # warm up
    for _ in range(repeats):
        for name, request in requests.items():
            found[name].append(rate(request, seconds=seconds, connections=connections))
    return {name: statistics.median(values) for name, values in found.items()}


def latencies(requests: Mapping[str, Request], *, times: int) -> dict[str, list[float]]:
    """Return the milliseconds of single requests, asked in turn over one connection each."""
    found: dict[str, list[float]] = {name: [] for name in requests}
    open_ones = {name: Connection(request) for name, request in requests.items()}
    for connection in open_ones.values():
        for _ in range(5):
            connection.ask()
    for _ in range(times):
        for name, connection in open_ones.items():
            began = time.perf_counter()
            connection.ask()
            found[name].append((time.perf_counter() - began) * 1000)
    for connection in open_ones.values():
        connection.close()
    return found


def megabytes_a_second(requests: Mapping[str, Request], *, repeats: int) -> dict[str, float]:
    """Return the median speeds of downloads, one at a time and in turn."""
    found: dict[str, list[float]] = {name: [] for name in requests}
    for number in range(repeats + 1):
        for name, request in requests.items():
            with contextlib.closing(Connection(request)) as connection:
                began = time.perf_counter()
                length = connection.ask()
                if number:  # the first one fills the page cache
                    found[name].append(length / 1e6 / (time.perf_counter() - began))
    return {name: statistics.median(values) for name, values in found.items()}


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the quartiles."""
    first, middle, third = statistics.quantiles(values, n=4)
    return first, middle, third


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise RuntimeError(f"no length in {head!r}")
