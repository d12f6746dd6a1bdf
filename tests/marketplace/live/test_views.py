from __future__ import annotations

import asyncio
import contextlib
import time

import psycopg
import pytest
from django.db import OperationalError, connections
from psycopg import sql

from marketplace.live import listening, views
from marketplace.live.channels import register
from marketplace.live.listening import _arguments
from marketplace.live.services import publish
from tests.factories import make_user
from tests.marketplace.live.conftest import listen

pytestmark = pytest.mark.django_db(transaction=True)


def backends(where: str) -> list[int]:
    """Process ids of the database connections with this application name."""
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = %s AND datname = %s"
    with psycopg.connect(
        **(_arguments() | {"application_name": "looking"}), autocommit=True
    ) as look:
        return [row[0] for row in look.execute(query, [where, look.info.dbname])]


def end_backends(pids: list[int]) -> None:
    with psycopg.connect(
        **(_arguments() | {"application_name": "ending"}), autocommit=True
    ) as admin:
        for pid in pids:
            admin.execute(sql.SQL("SELECT pg_terminate_backend({})").format(pid))


async def until(probe, seconds: float = 10):
    deadline = time.monotonic() + seconds
    while not (found := await asyncio.to_thread(probe)):
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)
    return found


def test_it_works(run, say):
    async def main() -> None:
        async with listen("room:1") as page:
            await page.wait_for("retry:")
            started = time.monotonic()
            number = await say("state", state="running")
            await page.wait_for("running")
            assert time.monotonic() - started < 5
            assert page.status == 200
            assert page.headers["content-type"] == "text/event-stream"
            assert page.headers["x-accel-buffering"] == "no"
            assert page.headers["cache-control"] == "no-store"
            assert page.events == [{"id": number, "kind": "state", "data": {"state": "running"}}]

    run(main())


def test_what_was_said_before_is_sent_first(run, say):
    async def main() -> None:
        await say("a")
        await say("b", channel="room:2")
        await say("c", text="line\nbreak\n\nevent: forged")
        async with listen("room:1") as page:
            await page.wait_for("forged")
            assert [event["kind"] for event in page.events] == ["a", "c"]
            assert page.events[1]["data"] == {"text": "line\nbreak\n\nevent: forged"}

    run(main())


@pytest.mark.parametrize("way", ["header", "query"])
def test_a_browser_reads_on_from_the_last_event_it_saw(run, say, way):
    async def main() -> None:
        first = await say("a")
        await say("b")
        options = (
            {"headers": {"Last-Event-ID": str(first)}}
            if way == "header"
            else {"query": f"after={first}"}
        )
        async with listen("room:1", **options) as page:
            await page.wait_for("event: b")
            assert [event["kind"] for event in page.events] == ["b"]

    run(main())


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "9" * 30, "٣", "", "1 OR 1=1"])
def test_a_last_event_that_is_no_number_begins_at_the_start(run, say, text):
    async def main() -> None:
        await say("a")
        async with listen("room:1", query=f"after={text}") as page:
            await page.wait_for("event: a")

    run(main())


def test_more_events_than_one_reading_takes_all_arrive_in_order(run, monkeypatch):
    monkeypatch.setattr(views, "BATCH", 7)
    ids = [publish("room:1", "step", {"number": number}).pk for number in range(30)]

    async def main() -> None:
        async with listen("room:1") as page:
            await page.wait_for(f"id: {ids[-1]}\n")
            assert [event["id"] for event in page.events] == ids

    run(main())


def test_many_pages_share_one_connection_that_goes_with_the_last(run, say):
    async def main() -> None:
        async with contextlib.AsyncExitStack() as open_pages:
            pages = [
                await open_pages.enter_async_context(listen(f"room:{n % 2}")) for n in range(6)
            ]
            for page in pages:
                await page.wait_for("retry:")
            await until(lambda: len(backends("marketplace-live")) == 1)
            await say("even", channel="room:0")
            await say("odd", channel="room:1")
            for number, page in enumerate(pages):
                await page.wait_for("odd" if number % 2 else "even")
            assert len(backends("marketplace-live")) == 1
        await until(lambda: backends("marketplace-live") == [])
        assert not views._open_streams

    run(main())


def test_a_waiting_page_holds_no_other_connection(run, say):
    async def main() -> None:
        async with listen("room:1") as page:
            await say("a")
            await page.wait_for("event: a")
            await until(lambda: backends("marketplace") == [])

    connections.close_all()
    run(main())


def test_a_lost_listening_connection_is_opened_again(run, say, monkeypatch):
    monkeypatch.setattr(listening, "RECONNECT_SECONDS", 0.05)

    async def main() -> None:
        async with listen("room:1") as page:
            first = await until(lambda: backends("marketplace-live"))
            await asyncio.to_thread(end_backends, first)
            await until(lambda: set(backends("marketplace-live")) - set(first))
            await say("after")
            await page.wait_for("event: after")

    run(main())


def test_without_a_listening_connection_the_page_looks_for_itself(run, say, settings, monkeypatch):
    settings.LISTEN_DATABASE = {**settings.LISTEN_DATABASE, "NAME": "no_such_database"}
    monkeypatch.setattr(views, "BLIND_SECONDS", 0.05)

    async def main() -> None:
        async with listen("room:1") as page:
            await page.wait_for("retry:")
            await say("late")
            await page.wait_for("event: late")

    run(main())


def test_a_quiet_stream_pings_and_ends_in_time(run, monkeypatch):
    monkeypatch.setattr(views, "PING_SECONDS", 0.05)
    monkeypatch.setattr(views, "STREAM_SECONDS", 0.3)

    async def main() -> None:
        async with listen("room:1") as page:
            await page.read_to_end()
            assert page.text.count(": ping\n\n") >= 2

    run(main())
    assert not views._open_streams


def test_access_is_asked_for_again_while_the_stream_lasts(run, monkeypatch):
    monkeypatch.setattr(views, "PING_SECONDS", 0.05)
    allowed = [True]
    register("room", lambda user, key: allowed[0])

    async def main() -> None:
        async with listen("room:1") as page:
            await page.wait_for("ping")
            allowed[0] = False
            await page.read_to_end()

    run(main())


def test_a_database_that_goes_away_ends_the_stream_quietly(run, monkeypatch, caplog):
    def fail(channel: str, *, after: int):
        raise OperationalError("the server closed the connection")

    monkeypatch.setattr(views, "read_events", fail)

    async def main() -> None:
        async with listen("room:1") as page:
            await page.read_to_end()
            assert page.status == 200

    run(main())
    assert "the database is away" in caplog.text


# ---- access --------------------------------------------------------------------------------------


def cookies_of(user) -> dict[str, str]:
    from django.test import Client

    client = Client()
    client.force_login(user)
    return {"Cookie": f"sessionid={client.session.session_key}"}


def test_whoever_may_not_listen_finds_nothing(run):
    ann, bob = cookies_of(make_user("ann")), cookies_of(make_user("bob"))

    async def main() -> None:
        async with listen("mine:ann", headers=ann) as page:
            assert page.status == 200
        for headers in (bob, {}):
            async with listen("mine:ann", headers=headers) as hidden:
                await hidden.read_to_end()
                assert hidden.status == 404
            async with listen("none:ann", headers=headers) as missing:
                await missing.read_to_end()
                assert missing.status == 404

    run(main())


def test_refused_pages_leave_no_database_connection_open(run):
    bob = cookies_of(make_user("bob"))
    connections.close_all()

    async def main() -> None:
        for _ in range(3):
            async with listen("mine:ann", headers=bob) as hidden:
                await hidden.read_to_end()
        assert await asyncio.to_thread(backends, "marketplace") == []

    run(main())


def test_polling_follows_the_same_rules(client):
    publish("mine:ann", "secret")
    assert client.get("/live/mine:ann/events").status_code == 404
    assert client.get("/live/none:ann/events").status_code == 404
    client.force_login(make_user("bob"))
    assert client.get("/live/mine:ann/events").status_code == 404
    client.force_login(make_user("ann"))
    assert client.get("/live/mine:ann/events").json()["events"][0]["kind"] == "secret"


def test_polling_gives_the_same_rows(client):
    first, second = publish("room:1", "a", {"n": 1}), publish("room:1", "b")
    answer = client.get("/live/room:1/events")
    assert answer["Cache-Control"] == "no-store"
    assert [event["id"] for event in answer.json()["events"]] == [first.pk, second.pk]
    later = client.get("/live/room:1/events", {"after": first.pk})
    assert later.json() == {"events": [{"id": second.pk, "kind": "b", "data": {}}]}
    assert client.post("/live/room:1/events").status_code == 405


def test_nothing_is_posted_to_a_stream(run):
    async def main() -> None:
        async with listen("room:1", method="HEAD") as page:
            assert page.status == 405

    run(main())


def test_a_server_without_asgi_points_to_polling(client):
    answer = client.get("/live/room:1")
    assert answer.status_code == 503
    assert "/events" in answer.json()["error"]


def test_one_person_has_a_most_of_streams(run, monkeypatch):
    monkeypatch.setattr(views, "MAX_STREAMS_PER_USER", 2)
    ann = cookies_of(make_user("ann"))

    async def main() -> None:
        async with listen("room:1", headers=ann) as one, listen("room:1", headers=ann) as two:
            for page in (one, two):
                await page.wait_for("retry:")
            async with listen("room:1", headers=ann) as third:
                assert third.status == 429
                assert third.headers["retry-after"] == "30"
            async with listen("room:1") as visitor:
                assert visitor.status == 200
        async with listen("room:1", headers=ann) as again:
            assert again.status == 200

    run(main())


def test_streams_that_begin_at_once_do_not_pass_the_most(run, monkeypatch):
    monkeypatch.setattr(views, "MAX_STREAMS_PER_USER", 1)

    async def main() -> None:
        first = views.Stream(None, "room:1", after=0).events("ann")
        second = views.Stream(None, "room:1", after=0).events("ann")
        assert await anext(first) == "retry: 2000\n\n"
        assert [text async for text in second] == ["retry: 30000\n\n"]
        await first.aclose()

    run(main())
    assert not views._open_streams
