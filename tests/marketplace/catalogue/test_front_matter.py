from __future__ import annotations

import pytest

from marketplace.catalogue.front_matter import (
    FrontMatterError,
    read_readme,
    split_front_matter,
    write_front_matter,
)


def test_it_works() -> None:
    fields, body = split_front_matter("---\nlicense: mit\ntags:\n- a\n---\n\n# Card\n")
    assert fields == {"license": "mit", "tags": ["a"]}
    assert body == "# Card\n"


@pytest.mark.parametrize("text", ["# Card\n---\n", "", "--- x\n", "---\nno end"])
def test_a_card_without_front_matter_is_all_body(text: str) -> None:
    assert split_front_matter(text) == ({}, text)


def test_windows_lines_and_an_empty_block_are_fine() -> None:
    assert split_front_matter("---\r\n---\r\nx") == ({}, "x")


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        ("a: &x [1]\nb: *x", "Aliases"),
        ("a: " + "[" * 20 + "]" * 20, "levels deep"),
        ("a: " + "[" * 5000 + "]" * 5000, "levels deep"),
        ("a: [", "no valid YAML"),
        ("a: !!python/object/apply:os.system [ls]", "no valid YAML"),
        ("- a\n- b", "list of names and values"),
        ("just text", "list of names and values"),
        ("a: " + "x" * 17000, "16 KiB"),
        ("date: 2024-99-99", "cannot be read"),
        ("a: \x01", "no valid YAML"),
    ],
)
def test_a_block_that_could_harm_is_refused(block: str, reason: str) -> None:
    with pytest.raises(FrontMatterError, match=reason):
        split_front_matter(f"---\n{block}\n---\n")


def test_a_readme_gives_the_fields_of_a_card() -> None:
    card = read_readme(
        "---\nlicense: apache-2.0\nlanguage: [en]\ntags: [Word Lists, lora, base_model:x]\n"
        "datasets: [glue, squad]\ntask: Words\n---\nText"
    )
    assert card.card == "Text"
    assert (card.licence, card.language, card.task) == ("Apache-2.0", "en", "Words")
    assert card.tags == ["word-lists"]
    assert card.training_data == "glue, squad"


def test_fields_that_do_not_fit_are_left_out() -> None:
    card = read_readme("---\nlicense: [1]\nlanguage: {a: b}\ntags: 7\n---\nText")
    assert (card.licence, card.language, card.tags, card.task) == (None, None, None, None)


def test_an_unknown_licence_is_another_one_and_two_languages_are_many() -> None:
    card = read_readme("---\nlicense: weird-1.0\nlanguage: [en, de]\n---\n")
    assert (card.licence, card.language) == ("LicenseRef-Other", "multilingual")


def test_what_is_written_reads_back() -> None:
    text = write_front_matter({"license": "mit", "tags": ["ä", "b"], "task": ""})
    assert split_front_matter(text + "x") == ({"license": "mit", "tags": ["ä", "b"]}, "x")
    assert write_front_matter({"task": ""}) == ""
