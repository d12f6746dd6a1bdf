"""No connection is made to a place that the rules do not name or that lies inside a network."""

from __future__ import annotations

import socket
from typing import Any

import httpx2
import pytest

from marketplace.uploads.errors import UploadError
from marketplace.uploads.guarded_transport import AddressRefused, Rules, is_public, make_client
from marketplace.uploads.hub_hosts import read_source
from tests.marketplace.uploads.hub_server import running_hub

HUB = "https://hub.example"
RULES = Rules(HUB, file_hosts=(".files.example",))


@pytest.fixture
def connections(monkeypatch) -> list[Any]:
    """Addresses that a connection was tried to; none ever comes about."""
    tried: list[Any] = []

    def connect(address: Any, *_: object, **__: object) -> None:
        tried.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)
    return tried


def resolve_to(monkeypatch, *answers: str) -> list[str]:
    """Let every name have the next of these addresses; return the names that were asked for."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, **_: object) -> list[Any]:
        asked.append(host)
        address = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_it_works():
    with (
        running_hub({"a": b"x"}) as hub,
        make_client(Rules(hub.url, internal=(hub.url,))) as client,
    ):
        assert client.get(f"{hub.url}/org/adapter/resolve/main/a").content == b"x"


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.1.2.3",
     "100.64.0.1", "224.0.0.1", "240.0.0.1", "::1", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1",
     "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1", "::"],
)  # fmt: skip
def test_a_name_with_an_inside_address_is_refused_before_a_connection(
    monkeypatch, connections, address
):
    assert not is_public(address)
    resolve_to(monkeypatch, address)
    with make_client(RULES) as client, pytest.raises(AddressRefused, match="inside a network"):
        client.get(f"{HUB}/x")
    assert connections == []


@pytest.mark.parametrize(
    "url",
    ["http://hub.example/", "https://hub.example:22/", "https://other.example/", "https://127.0.0.1/",
     "https://[::1]/", "https://0/", "https://2130706433/", "https://0x7f.1/", "ftp://hub.example/",
     "https://hub.example@evil.example/", "https://user@hub.example/", "gopher://hub.example/",
     "https://files.example.evil/", "https://x.files.example:8443/", "http://x.files.example/"],
)  # fmt: skip
def test_a_place_that_is_not_listed_is_not_even_looked_up(monkeypatch, connections, url):
    asked = resolve_to(monkeypatch, "1.1.1.1")
    with make_client(RULES) as client, pytest.raises((AddressRefused, httpx2.HTTPError)):
        client.get(url)
    assert (asked, connections) == ([], [])


def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch, connections):
    """A name server that answers differently the second time is not asked a second time."""
    asked = resolve_to(monkeypatch, "1.1.1.1", "127.0.0.1")
    with make_client(RULES) as client, pytest.raises(httpx2.ConnectError):
        client.get(f"{HUB}/x")
    assert asked == ["hub.example"]
    assert connections == [("1.1.1.1", 443)]


def test_an_internal_place_is_reached_from_an_internal_hub_alone(monkeypatch, connections):
    resolve_to(monkeypatch, "10.0.0.1")
    inside = "http://store.example:9000"
    with make_client(Rules(HUB, internal=(inside,))) as client, pytest.raises(AddressRefused):
        client.get(inside)
    with (
        make_client(Rules("http://hub.example", internal=(inside, "http://hub.example"))) as client,
        pytest.raises(httpx2.ConnectError),
    ):
        client.get(inside)
    assert connections == [("10.0.0.1", 9000)]


@pytest.mark.parametrize(
    "typed",
    ["http://127.0.0.1/a/b", "https://[::1]/a/b", "https://huggingface.co@evil.example/a/b",
     "http://huggingface.co/a/b", "https://huggingface.co:22/a/b", "file:///etc/passwd",
     "gopher://huggingface.co/a/b", "https://huggingface.co.evil.example/a/b",
     "https://huggingface.co/a/../b", "https://huggingface.co/a"],
)  # fmt: skip
def test_an_address_that_a_user_types_is_one_of_a_listed_hub(typed):
    with pytest.raises(UploadError):
        read_source("", typed)


def test_the_address_of_a_page_names_repository_and_revision():
    source = read_source("", "https://huggingface.co/org/name/tree/v2%2E0")
    assert (source.hub, source.repo_id, source.revision) == (
        "https://huggingface.co", "org/name", "v2.0",
    )  # fmt: skip
