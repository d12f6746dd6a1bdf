from __future__ import annotations

import re

import pytest
from django.core.exceptions import ValidationError

from marketplace.accounts.names import (
    MAX_NAME_LENGTH,
    RESERVED_OWNERS,
    validate_adapter_name,
    validate_owner_name,
)


@pytest.mark.parametrize("name", ["a", "Ann", "x-1", "a.b_c", "0", "n" * MAX_NAME_LENGTH])
def test_it_works(name):
    validate_owner_name(name)
    validate_adapter_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "..", ".a", "-a", "a-", "a.", "a--b", "a..b", "a b", "a/b", "анн", "a\u200bb", "a\n",
     "é", "😀", "a\x00", "n" * (MAX_NAME_LENGTH + 1)],
)  # fmt: skip
def test_it_refuses_what_hub_clients_or_addresses_cannot_take(name):
    with pytest.raises(ValidationError):
        validate_owner_name(name)
    with pytest.raises(ValidationError):
        validate_adapter_name(name)


@pytest.mark.parametrize("name", ["api", "Admin", "STATIC", "login", "resolve", "live", "jobs"])
def test_an_owner_cannot_take_a_word_of_our_addresses(name):
    with pytest.raises(ValidationError, match="reserved"):
        validate_owner_name(name)


def test_every_fixed_first_word_of_our_addresses_is_reserved():
    from django.urls import get_resolver

    words = {
        str(entry.pattern).split("/")[0]
        for include in get_resolver().url_patterns
        for entry in ([include] if str(include.pattern) else getattr(include, "url_patterns", []))
    }
    # Of a regular expression: the word after ^, or each word of its first group.
    words = {part for word in words for part in re.sub(r"^\^(\(\?:)?|\)$", "", word).split("|")}
    fixed = {word for word in words if word and not set(word) & set("<[(")}
    assert {"api", "_cas", "datasets"} <= fixed
    assert fixed - RESERVED_OWNERS == set()


def test_an_adapter_may_be_called_api_but_not_end_in_git():
    validate_adapter_name("api")
    with pytest.raises(ValidationError, match="git"):
        validate_adapter_name("tool.git")


def test_all_reasons_are_told_at_once():
    with pytest.raises(ValidationError) as caught:
        validate_owner_name("-a--b-")
    assert len(caught.value.messages) == 3
