"""What is logged can be found again: one object a line, under the id that the visitor was told."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import pytest
import structlog
from celery import signals
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from marketplace.celery import forget_request_id, log_under_request_id, send_request_id
from marketplace.logs import json_formatter
from marketplace.request_ids import request_id_middleware

MESSAGE = "the shelf is full"


def format_line() -> dict[str, str]:
    record = logging.LogRecord("shop", logging.WARNING, __file__, 1, MESSAGE, None, None)
    line = json_formatter().format(record)
    assert "\n" not in line
    found: dict[str, str] = json.loads(line)
    return found


@pytest.fixture(autouse=True)
def nothing_bound():
    structlog.contextvars.clear_contextvars()
    yield
    structlog.contextvars.clear_contextvars()


def test_it_works():
    line = format_line()

    assert (line["event"], line["logger"], line["level"]) == (MESSAGE, "shop", "warning")
    assert "request_id" not in line


def test_lines_of_a_request_carry_the_id_of_its_answer():
    lines = []

    def answer(request: HttpRequest) -> HttpResponse:
        lines.append(format_line())
        return HttpResponse()

    response = request_id_middleware(answer)(RequestFactory().get("/"))

    assert lines[0]["request_id"] == response["X-Request-Id"]


def test_lines_of_a_task_carry_the_id_of_the_request_that_sent_it():
    headers: dict[str, str] = {}
    with structlog.contextvars.bound_contextvars(request_id="edge-0123456789"):
        send_request_id(headers=headers)

    log_under_request_id(task_id="t1", task=SimpleNamespace(request=headers))
    during = format_line()
    forget_request_id()

    assert (during["request_id"], during["task_id"]) == ("edge-0123456789", "t1")
    assert format_line().keys().isdisjoint({"request_id", "task_id"})


def test_a_task_of_the_clock_carries_no_request():
    headers: dict[str, str] = {}
    send_request_id(headers=headers)

    log_under_request_id(task_id="t2", task=SimpleNamespace(request=headers))

    assert headers == {}
    assert "request_id" not in format_line()


def test_celery_leaves_the_settings_of_logging_alone():
    assert signals.setup_logging.has_listeners()
