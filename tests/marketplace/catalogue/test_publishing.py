from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.db import connection

from composer.examples import Example
from marketplace.accounts.models import User
from marketplace.catalogue import services
from marketplace.catalogue.models import Adapter, Lineage, Revision
from marketplace.catalogue.services import CardFields, NewRevision, Parent, PublishError
from marketplace.catalogue.tasks import add_up_downloads
from tests.factories import (
    make_adapter,
    make_base_model,
    make_blob,
    make_revision,
    make_samples,
    make_user,
    summary_of,
    tiny_adapter_files,
)

pytestmark = pytest.mark.django_db


def problems_of(**options) -> dict[str, list[str]]:
    with pytest.raises(PublishError) as caught:
        make_revision(**options)
    return caught.value.problems


def test_it_works() -> None:
    owner = make_user("alice")
    revision = make_revision(
        owner=owner,
        name="pick_animal",
        card=CardFields(
            summary="Find the one animal.",
            card="# Words",
            licence="mit",
            task="Word Semantics",
            language="English",
            tags=["Animals", "word lists"],
            samples=make_samples(),
        ),
        losses=(3.9, 0.1),
    )
    adapter = Adapter.objects.get(full_name="alice/pick_animal")
    assert revision.number == 1
    assert len(revision.oid) == 40
    assert revision.state == Revision.State.ACCEPTED
    assert adapter.latest == revision
    assert adapter.refs.get(name="main").revision == revision
    assert adapter.licence == "MIT"
    assert adapter.language == "en"
    assert [tag.name for tag in adapter.tags.all()] == ["animals", "word-lists"]
    assert [sample.input for sample in adapter.samples.all()] == ["question 0", "question 1"]
    assert (adapter.rank, adapter.targets_key) == (4, "q_proj, v_proj")
    assert adapter.gain == pytest.approx(3.8)
    assert {file.path for file in revision.files.all()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_a_second_revision_follows_the_first() -> None:
    adapter = make_adapter(card=CardFields(summary="First.", licence="MIT"))
    second = make_revision(adapter, rank=8, card=CardFields(summary="Second."))
    adapter.refresh_from_db()
    assert second.number == 2
    assert second.parent is not None
    assert second.parent.number == 1
    assert adapter.latest == second
    assert (adapter.summary, adapter.licence, adapter.rank) == ("Second.", "MIT", 8)


def test_the_same_tree_gives_the_revision_that_is_there() -> None:
    files = tiny_adapter_files()
    first = make_revision(owner=make_user("a1"), name="x", files=files)
    again = make_revision(first.adapter, files=files, card=CardFields(summary="New words."))
    assert again == first
    assert Adapter.objects.get(pk=first.adapter_id).summary == "New words."


def test_a_yanked_tree_can_be_published_again() -> None:
    files = tiny_adapter_files()
    first = make_revision(owner=make_user("a1"), name="x", files=files)
    services.yank_revision(first, by=first.adapter.owner, reason="A slip")
    again = make_revision(first.adapter, files=files)
    assert (again.number, again.adapter.latest_id) == (2, again.pk)


def test_a_job_is_published_once() -> None:
    owner, key = make_user(), uuid.uuid4()
    first = make_revision(owner=owner, name="x", job_key=key)
    again = make_revision(owner=owner, name="y", job_key=key, new_adapter_only=True)
    assert again == first
    assert Adapter.objects.count() == 1


def test_a_job_of_somebody_else_is_refused() -> None:
    key = uuid.uuid4()
    make_revision(job_key=key)
    assert "somebody else" in problems_of(job_key=key)[""][0]


def test_all_problems_come_together() -> None:
    problems = problems_of(
        name="a--b",
        title="t" * 201,
        files={**tiny_adapter_files(), "../up": b"x"},
        card=CardFields(
            summary="s" * 201,
            card="\x00",
            licence="MIT AND",
            language="Klingon",
            prompt_format="poem",
            visibility="secret",
            tags=["<b>", *[f"tag{n}" for n in range(20)]],
            samples=[Example("", "x"), *make_samples(10), Example("\x00", "y" * 8193)],
        ),
    )
    assert set(problems) == {
        "name",
        "title",
        "files",
        "summary",
        "card",
        "licence",
        "language",
        "prompt_format",
        "visibility",
        "tags",
        "samples",
    }
    assert len(problems["tags"]) == 2
    assert len(problems["samples"]) == 4
    assert not Adapter.objects.exists()


def test_a_card_that_is_too_long_is_refused(settings) -> None:
    settings.MAX_CARD_BYTES = 1024
    assert "1 KiB" in problems_of(card=CardFields(card="é" * 600))["card"][0]


def test_texts_that_cannot_be_stored_are_refused() -> None:
    problems = problems_of(title="\x00", card=CardFields(summary="\ud800"))
    assert set(problems) == {"title", "summary"}


def test_files_that_peft_needs_are_asked_for(settings) -> None:
    settings.MAX_FILES_PER_REVISION = 1
    owner, base = make_user(), make_base_model()
    files = tiny_adapter_files()
    blob = make_blob(b"text")
    with pytest.raises(PublishError) as caught:
        services.publish_revision(
            NewRevision(
                owner=owner,
                name="x",
                files={"a.txt": blob, "b.txt": blob},
                summary=summary_of(files),
                base_model=base,
                title="",
                origin=Revision.Origin.UPLOAD,
            )
        )
    assert caught.value.problems["files"] == [
        "An adapter has at most 1 files; these are 2. Leave out what peft does not need.",
        "adapter_config.json is missing.",
        "adapter_model.safetensors is missing.",
    ]


def test_a_title_is_found_where_none_is_given() -> None:
    assert make_revision(title=" ").title == "Publish v1"


def test_a_name_that_is_taken_is_refused_for_a_new_adapter() -> None:
    adapter = make_adapter(name="Words")
    problems = problems_of(owner=adapter.owner, name="words", new_adapter_only=True)
    assert "“Words”" in problems["name"][0]


def test_another_owner_may_use_the_same_name() -> None:
    adapter = make_adapter(name="words")
    other = make_adapter(make_user(), name="words")
    assert adapter.full_name != other.full_name


def test_the_name_of_a_deleted_adapter_is_not_given_out_again() -> None:
    adapter = make_adapter(name="words")
    services.delete_adapter(adapter, by=adapter.owner)
    assert "deleted" in problems_of(owner=adapter.owner, name="words")["name"][0]


def test_an_adapter_has_a_limited_number_of_versions(monkeypatch) -> None:
    monkeypatch.setattr("marketplace.catalogue.services.publishing.MAX_REVISIONS", 1)
    adapter = make_adapter()
    assert "1 versions" in problems_of(adapter=adapter)["name"][0]


class TestQuota:
    def test_it_counts_each_content_once(self) -> None:
        files = tiny_adapter_files()
        owner = make_user()
        make_revision(owner=owner, name="a", files=files)
        make_revision(owner=owner, name="b", files=files)
        assert services.read_used_bytes(owner) == sum(map(len, files.values()))

    def test_it_refuses_what_would_exceed_it(self, settings) -> None:
        adapter = make_adapter()
        settings.USER_QUOTA_BYTES = services.read_used_bytes(adapter.owner) + 100
        problems = problems_of(owner=adapter.owner, name="more")
        assert "would be exceeded" in problems["files"][0]

    def test_content_that_is_there_already_costs_nothing(self, settings) -> None:
        files = tiny_adapter_files()
        first = make_revision(files=files)
        settings.USER_QUOTA_BYTES = services.read_used_bytes(first.adapter.owner)
        assert make_revision(owner=first.adapter.owner, name="copy", files=files).number == 1

    def test_content_of_others_costs_as_much_as_new(self, settings) -> None:
        files = tiny_adapter_files()
        make_revision(files=files)
        settings.USER_QUOTA_BYTES = 10
        assert "files" in problems_of(files=files)


class TestParents:
    def test_edges_keep_order_and_sign(self) -> None:
        one, two = make_adapter(), make_adapter()
        child = make_adapter(parents=[Parent(two.latest, 0.9), Parent(one.latest, -0.3)])
        edges = list(Lineage.objects.filter(child=child.latest))
        assert [(edge.parent, edge.weight) for edge in edges] == [
            (two.latest, 0.9),
            (one.latest, -0.3),
        ]
        assert child.kind == Adapter.Kind.COMPOSED

    def test_a_private_one_of_somebody_else_is_refused(self) -> None:
        private = make_adapter(visibility="private")
        problems = problems_of(parents=[Parent(private.latest, 1.0)])
        assert "no longer available to you" in problems["parents"][0]

    def test_a_private_one_of_their_own_is_fine(self) -> None:
        private = make_adapter(visibility="private")
        child = make_adapter(private.owner, parents=[Parent(private.latest, 1.0)])
        assert child.latest.parents.count() == 1

    def test_a_yanked_one_that_was_pinned_is_fine(self) -> None:
        adapter = make_adapter()
        pinned = adapter.latest
        services.yank_revision(pinned, by=adapter.owner, reason="Old")
        assert make_adapter(parents=[Parent(pinned, 1.0)]).latest is not None

    def test_one_named_twice_is_refused(self) -> None:
        parent = Parent(make_adapter().latest, 1.0)
        assert "twice" in problems_of(parents=[parent, parent])["parents"][0]

    def test_too_many_are_refused(self, monkeypatch) -> None:
        monkeypatch.setattr("marketplace.catalogue.services.publishing.MAX_PARENTS", 1)
        parents = [Parent(make_adapter().latest, 1.0) for _ in range(2)]
        assert "At most 1 parents" in problems_of(parents=parents)["parents"][0]


class TestLicence:
    def test_it_is_derived_from_the_parents(self) -> None:
        parents = [
            Parent(make_adapter(licence=licence).latest, 1.0)
            for licence in ("MIT", "Apache-2.0", "CC0-1.0")
        ]
        child = make_adapter(parents=parents, card=CardFields())
        assert child.licence == "Apache-2.0 AND MIT"

    def test_a_conflict_blocks_a_public_one(self) -> None:
        parents = [
            Parent(make_adapter(licence=licence).latest, 1.0)
            for licence in ("CC-BY-NC-4.0", "CC-BY-SA-4.0")
        ]
        problems = problems_of(parents=parents)
        assert "forbids commercial use" in problems["licence"][0]

    def test_a_conflict_lets_a_private_one_be(self) -> None:
        parents = [
            Parent(make_adapter(licence=licence).latest, 1.0)
            for licence in ("CC-BY-NC-4.0", "CC-BY-SA-4.0")
        ]
        child = make_adapter(parents=parents, card=CardFields(licence="MIT", visibility="private"))
        with pytest.raises(PublishError):
            services.set_visibility(child, "public", by=child.owner)
        child.refresh_from_db()
        assert child.visibility == "private"

    def test_it_can_be_asked_before_anything_exists(self) -> None:
        user = make_user()
        parents = [Parent(make_adapter(licence="CC-BY-NC-4.0").latest, 1.0)]
        assert services.find_licence_problems(user, parents, "") == []
        assert len(services.find_licence_problems(user, parents, "MIT")) == 1
        assert "no licence we know" in services.find_licence_problems(user, parents, "foo")[0]


@pytest.mark.django_db(transaction=True)
class TestRaces:
    """Real threads with connections of their own."""

    def run(self, calls) -> list[Any]:
        results: list[Any] = []
        barrier = threading.Barrier(len(calls))

        def work(call) -> None:
            barrier.wait()
            try:
                results.append(call())
            except Exception as error:
                results.append(error)
            finally:
                connection.close()

        threads = [threading.Thread(target=work, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        return results

    def prepare(self, owner: User, name: str, **fields) -> NewRevision:
        files = tiny_adapter_files()
        return NewRevision(
            owner=owner,
            name=name,
            files={path: make_blob(content) for path, content in files.items()},
            summary=summary_of(files),
            base_model=make_base_model(),
            title="Publish",
            origin=Revision.Origin.UPLOAD,
            **fields,
        )

    def test_versions_of_one_adapter_get_distinct_numbers(self) -> None:
        owner = make_user()
        new = [self.prepare(owner, "words") for _ in range(6)]
        results = self.run([lambda n=n: services.publish_revision(n) for n in new])
        assert sorted(revision.number for revision in results) == [1, 2, 3, 4, 5, 6]
        adapter = Adapter.objects.get()
        assert adapter.latest is not None
        assert adapter.latest.number == 6
        assert adapter.refs.get(name="main").revision == adapter.latest

    def test_one_of_many_first_uploads_of_a_name_wins(self) -> None:
        owner = make_user()
        new = [self.prepare(owner, name, new_adapter_only=True) for name in ("Words", "words") * 3]
        results = self.run([lambda n=n: services.publish_revision(n) for n in new])
        assert sum(isinstance(result, Revision) for result in results) == 1
        assert sum(isinstance(result, PublishError) for result in results) == 5
        assert Adapter.objects.count() == 1

    def test_a_job_delivered_twice_is_published_once(self) -> None:
        owner = make_user()
        new = self.prepare(owner, "words", job_key=uuid.uuid4())
        results = self.run([lambda: services.publish_revision(new)] * 4)
        assert len({revision.pk for revision in results}) == 1
        assert Revision.objects.count() == 1

    def test_the_quota_holds(self, settings) -> None:
        owner = make_user()
        new = [self.prepare(owner, f"words{n}") for n in range(5)]
        one = sum(blob.size for blob in new[0].files.values())
        settings.USER_QUOTA_BYTES = 2 * one + 100
        results = self.run([lambda n=n: services.publish_revision(n) for n in new])
        assert sum(isinstance(result, Revision) for result in results) == 2
        assert services.read_used_bytes(owner) <= settings.USER_QUOTA_BYTES

    def test_new_tags_of_two_owners_do_not_collide(self) -> None:
        new = [
            self.prepare(make_user(), "words", card=CardFields(tags=tags))
            for tags in (["a", "b", "c"], ["c", "b", "a"])
        ]
        results = self.run([lambda n=n: services.publish_revision(n) for n in new])
        assert all(isinstance(result, Revision) for result in results)

    def test_likes_and_downloads_are_all_counted(self) -> None:
        adapter = make_adapter()
        users = [make_user() for _ in range(4)]
        calls: list[Callable[[], Any]] = [partial(services.like, adapter, u) for u in users]
        calls += [lambda: services.count_download(adapter)] * 4
        self.run(calls)
        self.run([add_up_downloads] * 4)
        adapter.refresh_from_db()
        assert (adapter.likes, adapter.downloads) == (4, 4)
        assert adapter.download_days.get().count == 4
