from __future__ import annotations

import asyncio

import pytest
import structlog
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from marketplace.request_ids import read_id, request_id_middleware


def _answer(request: HttpRequest) -> HttpResponse:
    bound = structlog.contextvars.get_contextvars()
    return HttpResponse(bound["request_id"])


async def _answer_async(request):
    return _answer(request)


def test_it_works():
    response = request_id_middleware(_answer)(RequestFactory().get("/"))

    assert len(response["X-Request-Id"]) == 32
    assert response.content.decode() == response["X-Request-Id"]


def test_the_asynchronous_server_is_served_too():
    response = asyncio.run(request_id_middleware(_answer_async)(RequestFactory().get("/")))

    assert response.content.decode() == response["X-Request-Id"]


def test_a_proxys_id_is_kept():
    request = RequestFactory().get("/", headers={"X-Request-Id": "edge-0123456789"})

    assert request_id_middleware(_answer)(request)["X-Request-Id"] == "edge-0123456789"


@pytest.mark.parametrize("sent", ["short", "x" * 65, "<script>alert</script>", "a b c d e f g h"])
def test_an_id_that_does_not_look_like_one_is_replaced(sent):
    request = RequestFactory().get("/", headers={"X-Request-Id": sent})

    assert request_id_middleware(_answer)(request)["X-Request-Id"] != sent


def test_a_request_that_passed_no_middleware_gets_one_id():
    request = RequestFactory().get("/")

    assert read_id(request) == read_id(request)
