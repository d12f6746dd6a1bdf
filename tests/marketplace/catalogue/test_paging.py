"""Leafing through long lists: every adapter once, from any page on and back again."""

from __future__ import annotations

import base64
import itertools
import json
import re
from datetime import timedelta
from html import unescape

import pytest
from django.contrib.auth.models import AnonymousUser
from django.http import QueryDict
from django.test import Client
from django.utils import timezone

from marketplace.catalogue.models import Adapter
from marketplace.catalogue.search import SORTS, Cursor, ListPage, pages, read_query, search
from tests.factories import make_adapter, make_user

pytestmark = pytest.mark.django_db
NOBODY = AnonymousUser()
MANY = 2_000
SECOND = "21\u201340 of 66"
_numbers = itertools.count()


def open_page(address: str, size: int = 20) -> ListPage:
    return search(NOBODY, read_query(QueryDict(address)), page_size=size).page


def ids(page: ListPage) -> list[int]:
    return [adapter.pk for adapter in page]


def add_many(count: int) -> None:
    """Rows on the shelf with many equals in every order."""
    model = Adapter.objects.filter(latest__isnull=False).order_by("pk").first()
    assert model is not None
    now = timezone.now()
    rows = [
        Adapter(
            owner_id=model.owner_id,
            latest_id=model.latest_id,
            base_model_id=model.base_model_id,
            name=f"many-{number}",
            full_name=f"many/many-{number}",
            summary="one of many",
            downloads=number % 7 if number % 2 else 0,
            likes=number % 3,
            base_loss=3.0 if number % 3 else None,
            adapter_loss=1 / (1 + number % 5) if number % 3 else None,
        )
        for number in itertools.islice(_numbers, count)
    ]
    made = Adapter.objects.bulk_create(rows)
    for row in made:
        row.updated_at = now - timedelta(seconds=row.pk // 10)
    Adapter.objects.bulk_update(made, ["updated_at"], batch_size=2_000)


@pytest.fixture
def few() -> None:
    make_adapter(make_user("many"), "model")
    add_many(65)


class TestWalking:
    def test_it_works(self, few) -> None:
        first = open_page("")
        second = open_page(f"cursor={first.next}")
        assert (first.start_index, first.end_index, first.previous) == (1, 20, "")
        assert (second.start_index, second.end_index, second.count) == (21, 40, 66)
        assert ids(open_page(f"cursor={second.previous}")) == ids(first)

    def test_all_pages_hold_each_adapter_once_while_others_are_added(self) -> None:
        make_adapter(make_user("many"), "model")
        add_many(MANY)
        before = set(Adapter.objects.values_list("pk", flat=True))
        for sort in SORTS:
            seen: list[int] = []
            page = open_page(f"sort={sort}", 100)
            while True:
                seen += ids(page)
                if not page.next:
                    break
                add_many(3)
                page = open_page(f"sort={sort}&cursor={page.next}", 100)
            assert len(seen) == len(set(seen))
            assert before <= set(seen)

    @pytest.mark.parametrize("sort", SORTS)
    def test_the_way_back_is_the_way_there(self, few, sort: str) -> None:
        there = [open_page(f"sort={sort}")]
        while there[-1].next:
            there.append(open_page(f"sort={sort}&cursor={there[-1].next}"))
        page = there[-1]
        back = [page]
        while page.previous:
            page = open_page(f"sort={sort}&cursor={page.previous}")
            back.append(page)
        assert [ids(page) for page in back[::-1]] == [ids(page) for page in there]
        assert [page.start_index for page in back[::-1]] == [1, 21, 41, 61]
        everything = Adapter.objects.count()
        assert sorted(pk for page in there for pk in ids(page)) == sorted(
            Adapter.objects.values_list("pk", flat=True)
        )
        assert there[-1].end_index == everything

    def test_filters_and_words_go_along(self, few) -> None:
        page = open_page("q=many&owner=many&sort=liked")
        rest = open_page(f"q=many&owner=many&sort=liked&cursor={page.next}")
        assert rest.start_index == 21
        assert not set(ids(page)) & set(ids(rest))


class TestBestMatches:
    def test_it_works(self, few) -> None:
        first = open_page("q=many")
        second = open_page(f"q=many&cursor={first.next}")
        assert second.start_index == 21
        assert not set(ids(first)) & set(ids(second))
        assert ids(open_page(f"q=many&cursor={second.previous}")) == ids(first)

    def test_the_ranking_ends_at_a_stated_depth(self, few, monkeypatch) -> None:
        monkeypatch.setattr(pages, "MAX_RANKED", 40)
        last = open_page("q=many&page=2")
        assert (last.start_index, last.next, last.is_cut) == (21, "", True)
        assert open_page("q=many&page=3").start_index == 21
        html = Client().get("/adapters?q=many&page=2").content.decode()
        assert "Only the best matches are listed" in html


class TestAddresses:
    def test_old_addresses_with_page_numbers_still_lead_there(self, few) -> None:
        assert ids(open_page("page=2")) == ids(open_page(f"cursor={open_page('').next}"))

    def test_page_numbers_lead_only_so_deep(self, few, monkeypatch) -> None:
        monkeypatch.setattr(pages, "MAX_COUNTED", 40)
        page = open_page("page=1000")
        assert page.start_index == 21
        assert open_page(f"cursor={page.next}").start_index == 41

    @pytest.mark.parametrize(
        "parts",
        [
            ["used", 21, "5", 5, 0],
            ["used", -1, 5, 5, 0],
            ["used", 21, 5, 2**70, 0],
            ["used", 21, 5, 5],
            ["liked", 21, 5, 5, 0],
            {},
            "used",
        ],
    )
    def test_a_cursor_that_is_none_of_ours_leads_to_the_first_page(self, few, parts) -> None:
        word = base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")
        assert open_page(f"cursor={word}").start_index == 1

    @pytest.mark.parametrize(
        ("sort", "value"),
        [("gain", float("inf")), ("gain", "1"), ("newest", "2026-01-01"), ("newest", 5)],
    )
    def test_a_cursor_holds_what_its_order_sorts_by(self, sort: str, value: object) -> None:
        assert Cursor.read(Cursor(sort, 21, value, 5).encode(), sort) is None

    def test_the_links_of_the_page_keep_the_query(self, few) -> None:
        html = Client().get("/adapters?owner=many&sort=newest").content.decode()
        found = re.search(r'rel="next" href="([^"]+)"', html)
        assert found is not None
        address = unescape(found[1])
        assert address.startswith("?owner=many&sort=newest&cursor=")
        second = Client().get(f"/adapters{address}").content.decode()
        assert SECOND in second
        assert 'rel="prev"' in second

    def test_an_owner_s_list_is_leafed_through_as_well(self, few) -> None:
        found = re.search(r'rel="next" href="([^"]+)"', Client().get("/many").content.decode())
        assert found is not None
        assert SECOND in Client().get(f"/many{unescape(found[1])}").content.decode()

    def test_a_page_whose_rows_are_gone_leads_back(self, few) -> None:
        word = Cursor("used", 21, 0, 0).encode()
        html = Client().get("/adapters", {"cursor": word}).content.decode()
        assert "To the first page" in html
