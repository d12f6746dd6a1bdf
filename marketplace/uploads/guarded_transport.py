"""An HTTP transport that only reaches a chosen hub and the places its files may lie.

Every request, each hop of a redirect included, is checked before a connection is made: its address
must be the hub's or one that the rules name for files, and the name must not resolve to a private
address. The connection then goes to the very address that was checked. The token never leaves for
another place than the hub. Knows nothing of Django, so that a child process can use it alone.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import httpcore2
import httpx2

DEFAULT_PORTS = {"http": 80, "https": 443}
CONNECT_SECONDS, IDLE_SECONDS = 5.0, 10.0
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_SECRET_HEADERS = ("authorization", "cookie")

Origin = tuple[str, str, int]


class AddressRefused(Exception):
    """The site does not connect to this address; the text says why."""


@dataclass(frozen=True)
class Rules:
    """Which places may be reached on behalf of a user.

    `internal` are origins that the administrator declared to be inside the own network: only these
    may have private addresses and plain http, and only the way from one of them leads to another.
    """

    hub: str
    file_hosts: tuple[str, ...] = ()  # host names, or ".example.org" for all below it
    internal: tuple[str, ...] = ()

    def is_hub(self, url: httpx2.URL) -> bool:
        """Whether the address is the hub's own."""
        return origin_of(url) == origin_of(httpx2.URL(self.hub))

    def is_internal(self, origin: Origin) -> bool:
        """Whether the administrator allows a private address here, coming from this hub."""
        trusted = {origin_of(httpx2.URL(text)) for text in self.internal}
        return origin in trusted and origin_of(httpx2.URL(self.hub)) in trusted

    def check(self, url: httpx2.URL) -> None:
        """Raise AddressRefused unless this address may be reached."""
        origin = origin_of(url)
        scheme, host, port = origin
        if url.userinfo:
            raise AddressRefused(f"An address with a user name in it is not followed: {host}.")
        if self.is_internal(origin):
            return
        if scheme != "https":
            raise AddressRefused(f"{scheme}://{host} is not followed; only https is.")
        if self.is_hub(url):
            return
        if port != DEFAULT_PORTS["https"] or not self._may_hold_files(host):
            raise AddressRefused(
                f"{self.hub} points to {host}:{port}, which is not among the hosts that this site "
                "reaches. The administrator can add it to HUB_FILE_HOSTS."
            )

    def _may_hold_files(self, host: str) -> bool:
        return any(
            host == name.lstrip(".") or (name.startswith(".") and host.endswith(name))
            for name in self.file_hosts
        )


def origin_of(url: httpx2.URL) -> Origin:
    """Scheme, host and port, with the port that is meant where none is written."""
    return url.scheme, url.host, url.port or DEFAULT_PORTS.get(url.scheme, 0)


def find_addresses(host: str, port: int, *, may_be_private: bool) -> list[str]:
    """Resolve a name; raise AddressRefused if any address is one that only insiders reach."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore2.ConnectError(f"the name {host} is not known: {error}") from None
    addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
    for text in addresses:
        if not may_be_private and not is_public(text):
            raise AddressRefused(
                f"{host} has the address {text}, which lies inside a network. This site reaches "
                "only public addresses, and hubs that INTERNAL_HUBS names."
            )
    return addresses


def is_public(text: str) -> bool:
    """Whether an address is reachable for the whole internet; IPv4 hidden in IPv6 is unwrapped."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address.teredo or (inner and not is_public(str(inner))):
            return False
        if inner:
            return True
    return address.is_global and not address.is_multicast and not address.is_reserved


class GuardedTransport(httpx2.HTTPTransport):
    """Sends requests as far as the rules allow; `on_sent` hears of every byte of a body."""

    def __init__(self, rules: Rules, *, on_sent: Callable[[int], None] | None = None) -> None:
        # The parent offers no way to choose how connections are made, so its pool is made here;
        # no proxy is asked either, since a proxy would resolve the name once more.
        self._pool = httpcore2.ConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=8,
            keepalive_expiry=30.0,
            network_backend=_CheckedBackend(rules),
        )
        self._rules = rules
        self._on_sent = on_sent

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Check where it goes, take secrets off where it does not go to the hub, and send it."""
        self._rules.check(request.url)
        if not self._rules.is_hub(request.url):
            for name in _SECRET_HEADERS:
                request.headers.pop(name, None)
        if self._on_sent is not None and isinstance(request.stream, httpx2.SyncByteStream):
            request.stream = _CountedStream(request.stream, self._on_sent)
        return super().handle_request(request)


def make_client(
    rules: Rules,
    *,
    idle_seconds: float = IDLE_SECONDS,
    on_sent: Callable[[int], None] | None = None,
    **options: Any,
) -> httpx2.Client:
    """Return a client that can reach nothing else, and waits for nothing for long."""
    timeout = httpx2.Timeout(idle_seconds, connect=CONNECT_SECONDS)
    transport = GuardedTransport(rules, on_sent=on_sent)
    return httpx2.Client(transport=transport, timeout=timeout, trust_env=False, **options)


class _CheckedBackend(httpcore2.NetworkBackend):
    """Resolves once, checks, and connects to what was checked: a second answer cannot differ."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._plain = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to the first address that answers; all of them have been checked."""
        inside = any(self._rules.is_internal((scheme, host, port)) for scheme in DEFAULT_PORTS)
        failure: Exception = httpcore2.ConnectError(f"{host} has no address")
        for address in find_addresses(host, port, may_be_private=inside):
            try:
                return self._plain.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.NetworkStream:
        """Refuse: a socket in the file system is as inside as can be."""
        raise AddressRefused(f"{path} is a local socket.")


class _CountedStream(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream, on_sent: Callable[[int], None]) -> None:
        self._stream = stream
        self._on_sent = on_sent

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            yield chunk
            self._on_sent(len(chunk))

    def close(self) -> None:
        self._stream.close()
