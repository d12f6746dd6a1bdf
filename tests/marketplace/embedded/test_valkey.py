from __future__ import annotations

import os
import signal

import pytest
import redis
from celery import Celery

from marketplace.embedded import programs, valkey
from marketplace.embedded.errors import MissingServer

SOURCES = [
    pytest.param(
        source,
        marks=pytest.mark.skipif(
            programs.find_valkey(source) is None, reason=f"no Valkey from the {source} here"
        ),
    )
    for source in ("system", "wheel")
]


@pytest.mark.parametrize("source", SOURCES)
def test_it_works(open_folder, source):
    running = valkey.start(open_folder, source=source)
    try:
        client = redis.Redis.from_url(running.cache_url)
        client.set("word", "kept")
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("port") == {"port": "0"}
        client.close()
        assert valkey.ask(running.socket_path, "PING") == "+PONG"
        assert running.count_consumers() == 0
    finally:
        running.stop()
    assert running.process.exit_code == 0


def test_the_broker_address_is_one_that_celery_understands(open_folder):
    running = valkey.start(open_folder, durable=False)
    try:
        app = Celery(broker=running.url)
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=0, timeout=5)
            queue = connection.SimpleQueue("letters")
            queue.put({"number": 42})
            assert queue.get(timeout=5).payload == {"number": 42}
            queue.close()
        app.close()
    finally:
        running.stop()


@pytest.mark.parametrize("source", SOURCES)
def test_written_tasks_survive_a_kill(open_folder, source):
    first = valkey.start(open_folder, source=source)
    with redis.Redis.from_url(first.cache_url) as client:
        client.lpush("tasks", *range(1000))
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.stop()
    second = valkey.start(open_folder, source=source)
    try:
        with redis.Redis.from_url(second.cache_url) as client:
            assert client.llen("tasks") == 1000
    finally:
        second.stop()


def test_a_running_leftover_is_stopped_first(open_folder):
    first = valkey.start(open_folder)
    second = valkey.start(open_folder)
    try:
        assert first.process.exit_code == 0
        assert valkey.ask(second.socket_path, "PING") == "+PONG"
    finally:
        second.stop()


def test_a_recycled_process_id_is_not_stopped(open_folder):
    storage = open_folder / "valkey"
    storage.mkdir()
    (storage / "valkey.pid").write_text(str(os.getpid()))
    assert valkey.stop_leftover(storage) is False
    assert not (storage / "valkey.pid").exists()


def test_data_that_is_not_meant_to_last_is_deleted(tmp_path):
    running = valkey.start(tmp_path, durable=False)
    running.stop()
    assert not running.storage.exists()


def test_no_valkey_at_all_says_how_to_get_one(open_folder, monkeypatch):
    monkeypatch.setattr(valkey, "find_valkey", lambda source: None)
    with pytest.raises(MissingServer) as caught:
        valkey.start(open_folder)
    assert "CELERY_BROKER_URL" in caught.value.fix


def test_a_request_to_stop_while_starting_leaves_nothing_running(open_folder):
    class StoppedError(Exception):
        pass

    def pause(_seconds: float) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        valkey.start(open_folder, pause=pause)
    assert valkey.stop_leftover(open_folder / "valkey") is False
