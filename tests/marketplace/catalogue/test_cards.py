from __future__ import annotations

import pytest

from composer.examples import Example
from marketplace.catalogue import services
from marketplace.catalogue.services import CardFields, Parent, PublishError
from tests.factories import make_adapter, make_user

pytestmark = pytest.mark.django_db


def test_it_works() -> None:
    adapter = make_adapter(tags=["old"], summary="Before.")
    services.update_card(
        adapter,
        CardFields(summary="After.", tags=["new"], samples=[Example("a", "b")]),
        by=adapter.owner,
    )
    adapter.refresh_from_db()
    assert adapter.summary == "After."
    assert [tag.name for tag in adapter.tags.all()] == ["new"]
    assert adapter.samples.get().output == "b"


def test_a_field_that_is_not_given_stays() -> None:
    adapter = make_adapter(tags=["kept"], summary="Kept.", task="Words")
    services.update_card(adapter, CardFields(task=""), by=adapter.owner)
    adapter.refresh_from_db()
    assert (adapter.summary, adapter.task) == ("Kept.", "")
    assert adapter.tags.get().name == "kept"


def test_only_the_owner_may() -> None:
    adapter = make_adapter(summary="Mine.")
    with pytest.raises(PublishError, match="Only the owner"):
        services.update_card(adapter, CardFields(summary="Theirs."), by=make_user())
    adapter.refresh_from_db()
    assert adapter.summary == "Mine."


def test_a_composition_keeps_its_parents_terms() -> None:
    parent = make_adapter(licence="CC-BY-NC-4.0")
    child = make_adapter(parents=[Parent(parent.latest, 1.0)], card=CardFields())
    assert child.licence == "CC-BY-NC-4.0"
    with pytest.raises(PublishError, match="has to keep its terms"):
        services.update_card(child, CardFields(licence="MIT"), by=child.owner)
    services.update_card(child, CardFields(licence="CC-BY-NC-3.0"), by=child.owner)
    child.refresh_from_db()
    assert child.licence == "CC-BY-NC-3.0"
