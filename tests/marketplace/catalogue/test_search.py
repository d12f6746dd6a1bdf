from __future__ import annotations

from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
import redis
from django.contrib.auth.models import AnonymousUser
from django.http import QueryDict
from django.test import Client

from composer.compatibility import check_compatibility
from composer.examples import Example
from marketplace.catalogue import services
from marketplace.catalogue.models import Adapter
from marketplace.catalogue.search import facets as facets_module
from marketplace.catalogue.search import read_query, search
from marketplace.catalogue.search.resemblance import rank_by_resemblance
from marketplace.catalogue.services import CardFields
from tests.factories import make_adapter, make_base_model, make_user

pytestmark = pytest.mark.django_db
NOBODY = AnonymousUser()


def find(address: str = "", user=NOBODY):
    return search(user, read_query(QueryDict(address)))


def names(results) -> list[str]:
    return [adapter.name for adapter in results.page]


@pytest.fixture
def shelf() -> SimpleNamespace:
    demo, bob = make_user("demo"), make_user("bob")
    other = make_base_model("org/other")
    return SimpleNamespace(
        demo=demo,
        bob=bob,
        animal=make_adapter(
            demo,
            "pick_animal",
            summary="Find the one animal among five words.",
            task="Word Semantics",
            licence="MIT",
            language="en",
            tags=["words", "animals"],
            samples=[Example("table, dog, wall, cup, car", "dog")],
            losses=(3.9, 0.1),
        ),
        passive=make_adapter(
            bob,
            "active_to_passive",
            card=CardFields(
                summary="Turn an active clause into a passive one.",
                task="Sentence Rewriting",
                licence="Apache-2.0",
                tags=["words"],
                samples=[Example("The cat eats the fish.", "The fish is eaten by the cat.")],
                card="Trained on café portraits.",
            ),
            rank=16,
            losses=(0.6, 0.2),
        ),
        date=make_adapter(
            bob,
            "date_shift",
            summary="Move a date by days.",
            base_model=other,
            targets=("k_proj",),
            licence="MIT",
            samples=[Example("01/02/2024 + 3", "01/05/2024")],
        ),
    )


class TestWords:
    def test_it_works(self, shelf) -> None:
        assert names(find("q=animal")) == ["pick_animal"]

    @pytest.mark.parametrize(
        ("words", "found"),
        [
            ("pick_animal", "pick_animal"),
            ("demo/pick_animal", "pick_animal"),
            ("anmal", "pick_animal"),
            ("pasive clase", "active_to_passive"),
            ("finding animals", "pick_animal"),
            ("CAFE portrait", "active_to_passive"),
            ("eaten", "active_to_passive"),
            ("semantics", "pick_animal"),
            ('"one animal"', "pick_animal"),
            ("words -animal", "active_to_passive"),
        ],
    )
    def test_the_right_one_comes_first(self, shelf, words: str, found: str) -> None:
        assert names(find(urlencode({"q": words})))[0] == found

    @pytest.mark.parametrize(
        "words",
        ["zzzqqq", "%", "_", "'", "'; DROP TABLE x", "\\", "(((", "a:*b", "!", "&|", "\x00"],
    )
    def test_odd_words_break_nothing(self, shelf, words: str) -> None:
        find(urlencode({"q": words}))
        assert Adapter.objects.count() == 3

    def test_what_tags_and_samples_say_is_found_when_it_changes(self, shelf) -> None:
        services.update_card(shelf.date, CardFields(tags=["calendar"]), by=shelf.bob)
        assert names(find("q=calendar")) == ["date_shift"]
        services.update_card(
            shelf.date, CardFields(tags=[], samples=[Example("kettle", "x")]), by=shelf.bob
        )
        assert names(find("q=calendar")) == []
        assert names(find("q=kettle")) == ["date_shift"]

    def test_private_ones_are_found_by_their_owner_only(self, shelf) -> None:
        services.set_visibility(shelf.animal, "private", by=shelf.demo)
        assert names(find("q=animal")) == []
        assert names(find("q=animal", shelf.bob)) == []
        assert names(find("q=animal", shelf.demo)) == ["pick_animal"]
        assert find().total == 2
        assert "demo" not in {
            item.value for facet in find().facets if facet.name == "owner" for item in facet.counts
        }

    def test_another_order_can_be_chosen(self, shelf) -> None:
        assert names(find("q=words&sort=gain")) == ["pick_animal", "active_to_passive"]


class TestExamples:
    def test_it_works(self, shelf) -> None:
        rows = "mode=examples&rows=chair, horse, door, pen, bus %3D> horse"
        assert names(find(rows))[0] == "pick_animal"

    def test_dates_find_dates(self, shelf) -> None:
        assert names(find("mode=examples&rows=05/06/2021 %2B 9 %3D> 05/15/2021"))[0] == "date_shift"

    def test_nothing_pasted_lists_everything(self, shelf) -> None:
        assert find("mode=examples").total == 3

    def test_a_text_that_shares_nothing_is_left_out(self) -> None:
        assert rank_by_resemblance("abc", {1: "xyz", 2: "abc"}) == [
            (2, rank_by_resemblance("abc", {2: "abc", 1: "xyz"})[0][1])
        ]


class TestFilters:
    @pytest.mark.parametrize(
        ("address", "found"),
        [
            ("base=org/other", {"date_shift"}),
            ("licence=MIT", {"pick_animal", "date_shift"}),
            ("licence=MIT&licence=Apache-2.0", {"pick_animal", "date_shift", "active_to_passive"}),
            ("task=Word+Semantics", {"pick_animal"}),
            ("tag=words", {"pick_animal", "active_to_passive"}),
            ("tag=words&tag=animals", {"pick_animal"}),
            ("targets=k_proj", {"date_shift"}),
            ("language=en", {"pick_animal"}),
            ("owner=bob", {"active_to_passive", "date_shift"}),
            ("kind=composed", set()),
            ("rank_min=8", {"active_to_passive"}),
            ("rank_max=8", {"pick_animal", "date_shift"}),
            ("rank_min=5&rank_max=8", set()),
            ("q=words&licence=MIT", {"pick_animal"}),
            ("licence=nonsense", set()),
        ],
    )
    def test_they_narrow(self, shelf, address: str, found: set[str]) -> None:
        assert set(names(find(address))) == found

    def test_a_facet_counts_what_the_other_filters_leave(self, shelf) -> None:
        results = find("licence=MIT&owner=bob")
        facets = {facet.name: {c.value: c.count for c in facet.counts} for facet in results.facets}
        assert facets["licence"] == {"MIT": 1, "Apache-2.0": 1}
        assert facets["owner"] == {"bob": 1, "demo": 1}
        assert facets["base"] == {"org/other": 1}
        assert facets["tag"] == {}

    def test_a_chosen_value_that_finds_nothing_stays_in_the_rail(self, shelf) -> None:
        facet = next(facet for facet in find("licence=GPL").facets if facet.name == "licence")
        assert [(c.value, c.count) for c in facet.counts if c.is_chosen] == [("GPL", 0)]

    def test_nothing_found_names_the_filter_that_removes_most(self, shelf) -> None:
        results = find("licence=MIT&task=Sentence+Rewriting")
        assert results.total == 0
        assert results.remedy is not None
        chip, count = results.remedy
        assert (chip.label, count, chip.address) == ("Sentence Rewriting", 2, "?licence=MIT")

    def test_where_no_single_removal_helps_none_is_named(self, shelf) -> None:
        assert find("owner=nobody&licence=none").remedy is None

    def test_words_that_find_nothing_are_named(self, shelf) -> None:
        remedy = find("q=zzzqqq").remedy
        assert remedy is not None
        assert (remedy[0].label, remedy[1]) == ("“zzzqqq”", 3)


class TestOrderAndPages:
    def test_the_orders(self, shelf) -> None:
        Adapter.objects.filter(pk=shelf.date.pk).update(downloads=9)
        Adapter.objects.filter(pk=shelf.passive.pk).update(likes=5)
        assert names(find())[0] == "date_shift"
        assert names(find("sort=liked"))[0] == "active_to_passive"
        assert names(find("sort=gain")) == ["pick_animal", "active_to_passive", "date_shift"]
        assert names(find("sort=newest"))[0] == "date_shift"

    @pytest.mark.parametrize(
        "address",
        [
            "page=-1",
            "page=1e9",
            "page=99999999999999999999",
            "page=x",
            "page=²",
            "sort=password",
            "sort=best",
            "owner__password=x",
            "rank_min=abc&rank_max=-4",
            "rank_min=99999999999999999999",
            "&".join(f"tag=t{n}" for n in range(500)),
            "tag=%00&licence=%00",
        ],
    )
    def test_senseless_addresses_are_cut_to_sense(self, shelf, address: str) -> None:
        assert find(address).page.start_index == 1

    def test_a_page_beyond_the_last_gives_the_last(self, shelf) -> None:
        query = read_query(QueryDict("page=7"))
        results = search(NOBODY, query, page_size=2)
        assert results.page.start_index == 3
        assert len(results.page.object_list) == 1

    def test_the_address_holds_the_state(self, shelf) -> None:
        address = "q=words&tag=words&tag=animals&rank_min=2&rank_max=8&sort=newest&page=2"
        assert read_query(QueryDict(address)).encode() == address
        examples = "mode=examples&rows=a+%3D%3E+b%0Ac"
        assert read_query(QueryDict(examples)).encode() == examples
        assert read_query(QueryDict("")).encode() == ""

    def test_chips_lead_to_the_query_without_them(self, shelf) -> None:
        results = find("q=words&tag=words&tag=animals&rank_min=2&mode=words")
        addresses = {chip.label: chip.address for chip in results.chips}
        assert addresses == {
            "“words”": "?tag=words&tag=animals&rank_min=2",
            "words": "?q=words&tag=animals&rank_min=2",
            "animals": "?q=words&tag=words&rank_min=2",
            "rank 2 and more": "?q=words&tag=words&tag=animals",
        }
        assert find("mode=examples&rows=x").chips[0].label == "your examples"
        assert find("rank_max=9").chips[0].label == "rank 1 to 9"


class TestCache:
    def test_large_counts_are_kept_for_a_while(self, shelf, monkeypatch) -> None:
        monkeypatch.setattr(facets_module, "CACHED_FROM", 0)
        assert find().total == 3
        services.delete_adapter(shelf.date, by=shelf.bob)
        assert find().total == 3

    def test_without_the_cache_it_only_takes_longer(self, shelf, monkeypatch) -> None:
        def fail(*args) -> None:
            raise redis.ConnectionError

        monkeypatch.setattr(facets_module, "CACHED_FROM", 0)
        monkeypatch.setattr(facets_module, "cache", SimpleNamespace(get=fail, set=fail))
        assert find().total == 3


class TestFits:
    """What composes with an adapter, as `composer.compatibility` has it."""

    @pytest.fixture
    def relatives(self) -> SimpleNamespace:
        bob = make_user("bob")
        return SimpleNamespace(
            bob=bob,
            subject=make_adapter(bob, "subject"),
            twin=make_adapter(bob, "twin"),
            wide=make_adapter(bob, "wide", rank=8),
            narrow=make_adapter(bob, "narrow", targets=("k_proj",)),
            foreign=make_adapter(bob, "foreign", base_model=make_base_model("org/other")),
        )

    def test_it_works(self, relatives) -> None:
        assert sorted(names(find("fits=bob/subject"))) == ["narrow", "twin", "wide"]
        assert names(find("fits=bob/subject&by=factor")) == ["twin"]

    def test_it_says_what_the_composer_says(self, relatives) -> None:
        subject = relatives.subject.latest.adapter_summary
        for by, method in (("", "concat"), ("factor", "factor")):
            found = set(names(find(f"fits=bob/subject&by={by}")))
            for adapter in (relatives.twin, relatives.wide, relatives.narrow, relatives.foreign):
                pair = {"a": subject, "b": adapter.latest.adapter_summary}
                allowed = method in check_compatibility(pair).allowed
                assert (adapter.name in found) == allowed

    def test_an_unknown_task_goes_with_any(self, relatives) -> None:
        Adapter.objects.filter(pk=relatives.twin.pk).update(peft_task="")
        Adapter.objects.filter(pk=relatives.wide.pk).update(peft_task="SEQ_2_SEQ_LM")
        assert sorted(names(find("fits=bob/subject"))) == ["narrow", "twin"]

    @pytest.mark.parametrize("name", ["bob/missing", "bob", "/", "bob/subject/x"])
    def test_what_nobody_sees_fits_nothing(self, relatives, name: str) -> None:
        results = find(f"fits={name}")
        assert (results.total, results.query.fit) == (0, None)
        assert results.remedy is not None
        assert results.remedy[1] == 5

    def test_a_private_adapter_tells_nothing_to_others(self, relatives) -> None:
        Adapter.objects.filter(pk=relatives.subject.pk).update(visibility="private")
        assert find("fits=bob/subject").total == 0
        assert find("fits=bob/subject", relatives.bob).total == 3

    def test_it_goes_with_words_facets_and_chips(self, relatives) -> None:
        results = find("fits=bob/subject&by=factor&owner=bob&q=twin")
        assert names(results) == ["twin"]
        addresses = {chip.label: chip.address for chip in results.chips}
        assert addresses["composes with bob/subject by factor"] == "?q=twin&owner=bob"
        assert results.query.encode() == "q=twin&owner=bob&fits=bob%2Fsubject&by=factor"
        assert find("by=factor").query.encode() == ""

    def test_the_pages_lead_there(self, relatives) -> None:
        page = Client().get("/bob/subject").content.decode()
        assert 'href="/adapters?fits=bob/subject"' in page
        found = Client().get("/adapters?fits=bob/subject").content.decode()
        assert "?fits=bob%2Fsubject&amp;by=factor" in found
        assert 'name="fits" value="bob/subject"' in found
        only = Client().get("/adapters?fits=bob/subject&by=factor").content.decode()
        assert "every merge method" in only
        assert "not for you" in Client().get("/adapters?fits=bob/none").content.decode()
