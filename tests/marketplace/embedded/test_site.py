from __future__ import annotations

import io
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, cast

import pytest

from marketplace.embedded import site
from marketplace.embedded.console import Console
from marketplace.embedded.errors import EmbeddedError
from marketplace.embedded.site import Site, check_port, make_environment
from marketplace.embedded.supervisor import Supervisor
from tests.marketplace.embedded.running_dev import free_port


def make_site(folder: Path, port: int) -> Site:
    return Site(folder, port, Console(time.sleep, io.StringIO()), cast("Supervisor", None))


def test_it_works(tmp_path, monkeypatch):
    monkeypatch.delenv("PUBLIC_URL", raising=False)
    monkeypatch.delenv("SECRET_KEY", raising=False)
    environment = make_environment(tmp_path, "http://127.0.0.1:8000")
    assert environment["DATA_DIR"] == str(tmp_path)
    assert environment["PUBLIC_URL"] == "http://127.0.0.1:8000"
    assert len(environment["SECRET_KEY"]) >= 50


def test_the_secret_is_made_once_and_is_nobody_elses_business(tmp_path, monkeypatch):
    monkeypatch.delenv("SECRET_KEY", raising=False)
    first = make_environment(tmp_path, "")["SECRET_KEY"]
    assert make_environment(tmp_path, "")["SECRET_KEY"] == first
    assert (tmp_path / "secret_key").stat().st_mode & 0o077 == 0


def test_what_the_user_has_set_wins_but_for_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "mine")
    monkeypatch.setenv("DATA_DIR", "/elsewhere")
    monkeypatch.setenv("PUBLIC_URL", "https://lora.example.org")
    environment = make_environment(tmp_path, "http://127.0.0.1:8000")
    assert environment["SECRET_KEY"] == "mine"
    assert environment["DATA_DIR"] == str(tmp_path)
    assert environment["PUBLIC_URL"] == "https://lora.example.org"
    assert make_site(tmp_path, 1).address == "https://lora.example.org"


def test_a_taken_port_is_named_with_the_next_one():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedError, match=f"Port {port}") as caught:
            check_port(port)
    assert f"--port {port + 1}" in caught.value.fix
    check_port(free_port())


def test_the_web_server_is_ready_when_the_site_says_so(tmp_path):
    class Answer(BaseHTTPRequestHandler):
        status = 503

        def do_GET(self) -> None:
            self.send_response(Answer.status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

    unused = make_site(tmp_path, free_port())
    assert not unused._web_is_ready()
    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        one = make_site(tmp_path, server.server_port)
        assert not one._web_is_ready()
        Answer.status = 200
        assert one._web_is_ready()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_damaged_stamp_counts_as_none(tmp_path):
    (tmp_path / "stamps.json").write_text("[1]")
    assert site._read_json(tmp_path / "stamps.json") == {}
    assert site._read_json(tmp_path / "none.json") == {}


def test_the_last_line_of_a_running_command_is_its_note():
    assert site._last_line("one\n two \n") == "two"
    assert site._last_line("") == ""
