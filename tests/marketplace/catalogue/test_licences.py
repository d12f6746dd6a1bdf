from __future__ import annotations

import pytest

from marketplace.catalogue.licences import (
    LicenceError,
    Licensed,
    derive_licence,
    find_conflicts,
    normalise_licence,
    read_alternatives,
)


def parents(*licences: str) -> list[Licensed]:
    return [Licensed(f"bob/{number}", licence) for number, licence in enumerate(licences)]


def test_it_works() -> None:
    assert normalise_licence("mit and (apache-2.0 or cc0-1.0)") == "MIT AND (Apache-2.0 OR CC0-1.0)"


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("", ""),
        ("  ", ""),
        ("llama3.1", "LicenseRef-Llama-3.1"),
        ("other", "LicenseRef-Other"),
        ("LicenseRef-My.Own-1", "LicenseRef-My.Own-1"),
        ("gpl-3.0", "GPL-3.0-only"),
    ],
)
def test_names_are_stored_as_spdx_spells_them(typed: str, stored: str) -> None:
    assert normalise_licence(typed) == stored


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("proprietary", "no licence we know"),
        ("MIT AND", "lacks a licence"),
        ("AND MIT", "lacks a licence"),
        ("MIT MIT", "cannot go on with"),
        ("(MIT", "lacks a closing parenthesis"),
        ("MIT)", "cannot go on with"),
        ("MIT & Apache-2.0", "cannot stand in"),
        ("M" * 201, "at most 200"),
        ("(" * 190 + "MIT", "lacks a closing parenthesis"),
    ],
)
def test_anything_else_is_refused_with_the_reason(typed: str, reason: str) -> None:
    with pytest.raises(LicenceError, match=reason):
        normalise_licence(typed)


def test_alternatives_are_sets_that_hold_together() -> None:
    assert set(read_alternatives("(MIT OR Apache-2.0) AND CC-BY-4.0")) == {
        frozenset({"MIT", "CC-BY-4.0"}),
        frozenset({"Apache-2.0", "CC-BY-4.0"}),
    }


class TestDerived:
    def test_it_joins_what_the_parents_ask_for(self) -> None:
        assert (
            derive_licence(parents("MIT", "CC0-1.0", "Apache-2.0", "MIT")) == "Apache-2.0 AND MIT"
        )

    def test_public_domain_alone_stays(self) -> None:
        assert derive_licence(parents("CC0-1.0", "CC0-1.0")) == "CC0-1.0"

    def test_an_alternative_without_conflict_is_taken(self) -> None:
        found = derive_licence(parents("CC-BY-NC-4.0", "CC-BY-SA-4.0 OR MIT"))
        assert found == "CC-BY-NC-4.0 AND MIT"

    @pytest.mark.parametrize(
        ("own", "others", "derived"),
        [
            (("CC-BY-NC-4.0",), (), "CC-BY-NC-4.0"),
            (("MIT", "", "Apache-2.0"), (), "Apache-2.0 AND MIT"),
            (("MIT",), ("Apache-2.0",), "Apache-2.0 AND MIT"),
            # What does not go with the others is the composer's own to license anew.
            (("CC-BY-NC-4.0",), ("CC-BY-SA-4.0",), "CC-BY-SA-4.0"),
            (("CC-BY-ND-4.0",), ("MIT",), "MIT"),
            (("CC-BY-NC-4.0 OR MIT",), ("CC-BY-SA-4.0",), "CC-BY-SA-4.0 AND MIT"),
            (("",), (), ""),
        ],
    )
    def test_own_parents_join_as_far_as_they_go_together(
        self, own: tuple[str, ...], others: tuple[str, ...], derived: str
    ) -> None:
        mine = [Licensed(f"me/{place}", text, is_own=True) for place, text in enumerate(own)]
        everything = [*mine, *parents(*others)]
        assert derive_licence(everything) == derived
        assert find_conflicts(everything, derived) == []


class TestConflicts:
    @pytest.mark.parametrize(
        ("licences", "reason"),
        [
            (("CC-BY-ND-4.0",), "no derived works"),
            (("CC-BY-NC-4.0", "CC-BY-SA-4.0"), "forbids commercial use"),
            (("CC-BY-SA-4.0", "GPL-3.0-only"), "each want the result under their own"),
            (("Apache-2.0", "GPL-2.0-only"), "cannot be combined"),
            (("",), "has no licence"),
        ],
    )
    def test_what_cannot_be_published_says_why(self, licences: tuple[str], reason: str) -> None:
        assert reason in " ".join(find_conflicts(parents(*licences)))

    @pytest.mark.parametrize(
        "licences",
        [
            ("MIT", "Apache-2.0", "CC-BY-4.0"),
            ("CC-BY-NC-4.0", "MIT"),
            ("CC-BY-NC-SA-4.0", "CC-BY-NC-4.0"),
            ("CC-BY-SA-4.0", "CC-BY-SA-3.0"),
            ("LicenseRef-Gemma", "MIT"),
        ],
    )
    def test_what_goes_together_goes(self, licences: tuple[str, ...]) -> None:
        assert find_conflicts(parents(*licences)) == []
        assert find_conflicts(parents(*licences), derive_licence(parents(*licences))) == []

    def test_own_parents_never_stand_in_the_way(self) -> None:
        own = [Licensed("me/x", "CC-BY-ND-4.0", is_own=True), Licensed("me/y", "", is_own=True)]
        assert find_conflicts([*own, *parents("MIT")], "MIT") == []

    @pytest.mark.parametrize(
        ("parent", "chosen", "refused"),
        [
            ("CC-BY-NC-4.0", "MIT", True),
            ("CC-BY-NC-4.0", "CC-BY-NC-3.0", False),
            ("CC-BY-SA-4.0", "CC-BY-4.0", True),
            ("CC-BY-SA-4.0", "CC-BY-SA-4.0 OR MIT", True),
            ("LicenseRef-Llama-3.1", "MIT", True),
            ("LicenseRef-Llama-3.1", "MIT AND LicenseRef-Llama-3.1", False),
            ("LicenseRef-Mine", "Apache-2.0", True),
            ("MIT", "CC-BY-NC-4.0", False),
        ],
    )
    def test_a_chosen_licence_keeps_the_parents_terms(
        self, parent: str, chosen: str, refused: bool
    ) -> None:
        assert bool(find_conflicts(parents(parent), chosen)) is refused
