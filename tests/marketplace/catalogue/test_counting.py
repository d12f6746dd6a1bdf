"""Downloads are added up in batches, and what is in demand fades with the days."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.http import QueryDict
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from marketplace.catalogue import services
from marketplace.catalogue.models import Adapter, DownloadCount, Like, NewDownload
from marketplace.catalogue.search import read_query, search
from marketplace.catalogue.services import counting
from marketplace.catalogue.tasks import add_up_downloads
from tests.factories import make_adapter, make_user

pytestmark = pytest.mark.django_db


def download(adapter: Adapter, times: int = 1, *, days_ago: int = 0) -> None:
    day = (timezone.now() - timedelta(days=days_ago)).date()
    NewDownload.objects.bulk_create(
        NewDownload(adapter_id=adapter.pk, day=day) for _ in [0] * times
    )


def names(sort: str) -> list[str]:
    return [row.name for row in search(AnonymousUser(), read_query(QueryDict(f"sort={sort}"))).page]


class TestAddingUp:
    def test_it_works(self) -> None:
        adapter, other = make_adapter(), make_adapter()
        download(adapter, 3)
        download(adapter, 2, days_ago=1)
        services.count_download(other)
        assert add_up_downloads() == 1
        adapter.refresh_from_db()
        other.refresh_from_db()
        assert (adapter.downloads, other.downloads) == (5, 1)
        counts = DownloadCount.objects.filter(adapter=adapter).order_by("day")
        assert list(counts.values_list("count", flat=True)) == [2, 3]
        assert add_up_downloads() == 0

    def test_a_day_s_count_grows(self) -> None:
        adapter = make_adapter()
        for _ in range(2):
            download(adapter, 2)
            add_up_downloads()
        assert adapter.download_days.get().count == 4

    def test_many_are_taken_in_batches(self, monkeypatch) -> None:
        monkeypatch.setattr(counting, "BATCH", 4)
        adapter = make_adapter()
        download(adapter, 10)
        assert add_up_downloads() == 3
        adapter.refresh_from_db()
        assert adapter.downloads == 10

    def test_a_download_touches_no_row_but_its_own(self) -> None:
        adapter = make_adapter()
        with CaptureQueriesContext(connection) as queries:
            services.count_download(adapter)
        assert [query["sql"].split()[0] for query in queries] == ["INSERT"]

    def test_a_download_of_what_is_gone_is_forgotten(self) -> None:
        NewDownload.objects.create(adapter_id=2**40, day=timezone.now().date())
        add_up_downloads()
        assert not NewDownload.objects.exists()


class TestTrending:
    def test_it_works(self) -> None:
        owner = make_user()
        old, new, quiet = (make_adapter(owner, name) for name in ("old", "new", "quiet"))
        download(old, 20, days_ago=30)
        download(new, 5)
        add_up_downloads()
        quiet.refresh_from_db()
        assert quiet.trending == 0
        assert names("used") == ["old", "new", "quiet"]
        assert names("trending") == ["new", "old", "quiet"]

    def test_a_week_leaves_half(self) -> None:
        owner = make_user()
        before, now = make_adapter(owner, "before"), make_adapter(owner, "now")
        download(before, 8, days_ago=7)
        download(now, 4)
        add_up_downloads()
        before.refresh_from_db()
        now.refresh_from_db()
        assert before.trending == pytest.approx(now.trending)

    def test_time_alone_changes_no_order(self, monkeypatch) -> None:
        owner = make_user()
        early, late = make_adapter(owner, "early"), make_adapter(owner, "late")
        download(early, 4)
        add_up_downloads()
        later = timezone.now() + timedelta(days=14)
        monkeypatch.setattr(counting, "_today", later.date)
        NewDownload.objects.create(adapter_id=late.pk, day=later.date())
        add_up_downloads()
        early.refresh_from_db()
        late.refresh_from_db()
        # Four downloads of a fortnight ago weigh as much as one of today.
        assert early.trending == pytest.approx(late.trending)

    def test_likes_count_as_well_and_can_be_taken_back(self) -> None:
        adapter, user = make_adapter(), make_user()
        services.like(adapter, user)
        adapter.refresh_from_db()
        liked = adapter.trending
        assert liked > 0
        services.unlike(adapter, user)
        adapter.refresh_from_db()
        assert adapter.trending == 0

    def test_what_is_old_is_forgotten(self) -> None:
        adapter = make_adapter()
        Like.objects.create(user=make_user(), adapter=adapter)
        Like.objects.update(created_at=timezone.now() - timedelta(days=200))
        download(adapter, 9, days_ago=200)
        add_up_downloads()
        adapter.refresh_from_db()
        assert (adapter.trending, adapter.downloads) == (0, 9)
