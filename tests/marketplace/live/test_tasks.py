from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from marketplace.live.models import Event
from marketplace.live.services import publish
from marketplace.live.tasks import forget_old_events


@pytest.mark.django_db
def test_it_works():
    old, new = publish("room:1", "old"), publish("room:1", "new")
    long_ago = timezone.now() - timedelta(hours=25)
    Event.objects.filter(pk=old.pk).update(created_at=long_ago)
    assert forget_old_events() == 1
    assert list(Event.objects.values_list("pk", flat=True)) == [new.pk]
    assert forget_old_events() == 0
