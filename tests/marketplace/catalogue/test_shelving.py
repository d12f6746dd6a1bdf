from __future__ import annotations

import pytest
from django.contrib.auth.models import AnonymousUser

from marketplace.catalogue import services
from marketplace.catalogue.models import Adapter, Revision
from marketplace.catalogue.services import CatalogueError, Parent
from tests.factories import make_adapter, make_revision, make_user

pytestmark = pytest.mark.django_db
NOBODY = AnonymousUser()


def test_it_works() -> None:
    adapter = make_adapter(rank=4)
    second = make_revision(adapter, rank=8)
    services.yank_revision(second, by=adapter.owner, reason="  Wrong   base ")
    adapter.refresh_from_db()
    assert adapter.latest is not None
    assert (adapter.latest.number, adapter.rank) == (1, 4)
    assert (second.is_yanked, second.yank_reason) == (True, "Wrong base")
    services.unyank_revision(second, by=adapter.owner)
    adapter.refresh_from_db()
    assert (adapter.latest, adapter.rank) == (second, 8)
    assert not second.is_yanked


def test_an_adapter_with_every_version_yanked_leaves_the_shelf_but_its_pins_work() -> None:
    adapter = make_adapter()
    revision = adapter.latest
    services.yank_revision(revision, by=adapter.owner, reason="Old")
    assert not Adapter.objects.visible_to(NOBODY).filter(pk=adapter.pk).exists()
    assert Adapter.objects.visible_to(adapter.owner).filter(pk=adapter.pk).exists()
    assert Revision.objects.visible_to(NOBODY).filter(pk=revision.pk).exists()


@pytest.mark.parametrize("reason", ["", "   ", "x" * 301])
def test_a_yank_needs_a_reason(reason: str) -> None:
    adapter = make_adapter()
    with pytest.raises(CatalogueError):
        services.yank_revision(adapter.latest, by=adapter.owner, reason=reason)


def test_a_second_yank_keeps_the_first_reason() -> None:
    adapter = make_adapter()
    services.yank_revision(adapter.latest, by=adapter.owner, reason="First")
    revision = Revision.objects.get()
    services.yank_revision(revision, by=adapter.owner, reason="Second")
    assert revision.yank_reason == "First"


def test_a_stranger_may_do_none_of_it() -> None:
    adapter, stranger = make_adapter(), make_user()
    with pytest.raises(CatalogueError):
        services.yank_revision(adapter.latest, by=stranger, reason="Mine now")
    with pytest.raises(CatalogueError):
        services.unyank_revision(adapter.latest, by=stranger)
    with pytest.raises(CatalogueError):
        services.delete_adapter(adapter, by=stranger)
    with pytest.raises(CatalogueError):
        services.set_visibility(adapter, "private", by=stranger)
    adapter.refresh_from_db()
    assert adapter.visibility == "public"
    assert adapter.deleted_at is None


def test_a_deleted_adapter_is_gone_for_everybody_and_its_children_stay() -> None:
    adapter = make_adapter()
    child = make_adapter(parents=[Parent(adapter.latest, 0.5)])
    services.delete_adapter(adapter, by=adapter.owner)
    for user in (NOBODY, adapter.owner):
        assert not Adapter.objects.visible_to(user).filter(pk=adapter.pk).exists()
        assert not Revision.objects.visible_to(user).of(*adapter.full_name.split("/")).exists()
    assert child.latest.parents.get().weight == 0.5


def test_visibility_decides_who_knows_of_it() -> None:
    adapter, stranger = make_adapter(), make_user()
    services.set_visibility(adapter, "private", by=adapter.owner)
    assert not Adapter.objects.visible_to(stranger).exists()
    assert not Revision.objects.visible_to(stranger).exists()
    assert Adapter.objects.visible_to(adapter.owner).exists()


def test_adapters_of_a_banned_owner_are_hidden() -> None:
    adapter = make_adapter()
    adapter.owner.is_active = False
    adapter.owner.save()
    assert not Adapter.objects.visible_to(NOBODY).exists()
    assert not Revision.objects.visible_to(NOBODY).exists()


def test_likes_count_once_for_each_user() -> None:
    adapter, fan = make_adapter(), make_user()
    assert services.like(adapter, fan) == 1
    assert services.like(adapter, fan) == 1
    assert services.unlike(adapter, fan) == 0
    assert services.unlike(adapter, fan) == 0


class TestRevisionLabels:
    def test_every_name_of_a_revision_finds_it(self) -> None:
        adapter = make_adapter()
        second = make_revision(adapter)
        adapter.refs.create(kind="tag", name="stable", revision=adapter.latest)
        revisions = adapter.revisions.all()
        assert revisions.at("v1") == adapter.latest
        assert revisions.at(second.oid) == second
        assert revisions.at("main") == revisions.at("latest") == second
        assert revisions.at("stable") == adapter.latest

    @pytest.mark.parametrize(
        "label", ["", "v0", "v9", "0" * 39, "0" * 40, "refs/pr/1", "main\r\nX:1", "-oProxy", "V1"]
    )
    def test_anything_else_finds_nothing(self, label: str) -> None:
        assert make_adapter().revisions.at(label) is None

    def test_the_id_of_another_adapter_finds_nothing(self) -> None:
        one, two = make_adapter(), make_adapter()
        assert Revision.objects.of(*one.full_name.split("/")).at(two.latest.oid) is None
