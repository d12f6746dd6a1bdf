from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from composer import card
from composer.base_model import BaseModelSource
from composer.card import Ingredient, hash_rows, make_card, make_recipe, read_versions
from composer.composing import ComposeRequest
from composer.report import Report, ReportRow, Sanity, Score, Verdict
from tests.composer.tiny import BASE_NAME, ROWS

SCORE = Score(n=4, correct=3, score=0.75, interval=(0.3, 0.95), loss=0.5)
NO_LOSS = Score(n=4, correct=None, score=0.75, interval=(0.3, 0.95), loss=None)


def recipe_of(tmp_path: Any, **changes: Any) -> dict[str, Any]:
    request = ComposeRequest(
        BaseModelSource("hub", BASE_NAME, revision="b" * 40), (), ROWS, tmp_path, optimizer="NGOpt"
    )
    ingredients = [
        Ingredient("own/one", "c" * 40, "d" * 64, 0.75, 1.5),
        Ingredient("own/two", "", "e" * 64, -1.25, 2.5),
        Ingredient("own/none", "", "f" * 64, 0.0, None),
    ]
    values: dict[str, Any] = {
        "optimizer_resolved": "Cobyla",
        "evaluations": {"alone": 3, "search": 41},
        "fit_loss": 0.4,
        "svd_error": None,
        "dtype": "float32",
    }
    return make_recipe(request, ingredients, **{**values, **changes})


def report_of(fit: Score = SCORE, held_out: Score | None = SCORE) -> Report:
    verdict = Verdict("Composing helped.", "It answers 3 of 4.", "composed", 0.01)
    rows = (
        ReportRow("base", "Base", fit, held_out),
        ReportRow("composed", "Composed", fit, held_out),
    )
    metric = "exact_match" if fit.correct is not None else "rougeL"
    return Report(rows, metric, 4, 4 if held_out else 0, verdict)


def test_it_works(tmp_path) -> None:
    text = make_card(recipe_of(tmp_path), report_of(), is_seq2seq=False)
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "base_model": BASE_NAME,
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "composed", "lorahub"],
    }
    assert "**Composing helped.** It answers 3 of 4." in body
    assert "| Composed | 3/4 | 0.30 to 0.95 | 0.500 |" in body
    assert "NGOpt (Cobyla), 41 evaluations, seed 42" in body


def test_parents_are_named_heaviest_first_and_zeros_are_not(tmp_path) -> None:
    text = make_card(recipe_of(tmp_path), report_of(), is_seq2seq=True)
    assert text.index("| own/two | `eeeeeeeeeeee` | -1.250 |") < text.index(
        "| own/one | `cccccccccccc` | +0.750 |"
    )
    assert "own/none" not in text
    assert "text2text-generation" in text


def test_rouge_and_svd_are_said(tmp_path) -> None:
    recipe = recipe_of(tmp_path, svd_error=0.1234, optimizer_resolved="NGOpt")
    text = make_card(recipe, report_of(NO_LOSS, None), is_seq2seq=False)
    assert "ROUGE-L, fit rows" in text
    assert "| Base | 0.75 | 0.30 to 0.95 |  |" in text
    assert "Relative error of the SVD: 0.1234" in text
    assert "NGOpt (" not in text


def test_long_answers_show_both_measures_and_intervals_say_how_they_were_made(tmp_path) -> None:
    rouge = replace(NO_LOSS, exact=1, rouge_l=0.75, loss_interval=(0.4, 0.6), loss=0.5)
    text = make_card(recipe_of(tmp_path), report_of(rouge, rouge), is_seq2seq=False)
    assert "| method | ROUGE-L, held-out rows | 95 % interval | exact match | loss |" in text
    assert "| Composed | 0.75 | 0.30 to 0.95 | 1/4 | 0.500 | 0.40 to 0.60 |" in text
    assert "Intervals: bootstrap, over rows." in text
    exact = replace(SCORE, exact=3, rouge_l=0.81, interval_kind="wilson")
    text = make_card(recipe_of(tmp_path), report_of(exact, exact), is_seq2seq=False)
    assert "| Composed | 3/4 | 0.30 to 0.95 | 0.81 | 0.500 |" in text
    assert "Wilson's where all rows have the same score, else bootstrap" in text


def test_folds_and_the_offer_are_said(tmp_path) -> None:
    report = report_of()
    rows = (report.rows[0], replace(report.rows[1], cross_validated=replace(SCORE, n=8)))
    verdict = replace(report.verdict, offer="Use it.")
    recipe = recipe_of(tmp_path, evaluations={"alone": 3, "search": 41, "folds": 132})
    text = make_card(recipe, replace(report, rows=rows, folds=3, verdict=verdict), is_seq2seq=False)
    assert "It answers 3 of 4. Use it." in text
    assert "exact match, 3 folds |" in text
    assert "| Base | 3/4 | 0.30 to 0.95 | 0.500 |  |  |" in text
    assert "| Composed | 3/4 | 0.30 to 0.95 | 0.500 |  | 3/8 |" in text
    assert "Cross-validation: 132 evaluations more." in text


def test_what_stands_out_beside_the_parents_is_said(tmp_path) -> None:
    calm, loud = Sanity(0.8, {}, (), ()), Sanity(9.1, {"m": 9.1}, (), ("1 of 4 layers change.",))
    for sanity, words in ((calm, "Nothing stands out"), (loud, "* 1 of 4 layers change.")):
        report = replace(report_of(), sanity=sanity)
        text = make_card(recipe_of(tmp_path), report, is_seq2seq=False)
        assert f"{sanity.norm_ratio:.2f} times as much as its largest parent" in text
        assert words in text
    assert "Beside its parents" not in make_card(recipe_of(tmp_path), report_of(), is_seq2seq=False)


def test_the_recipe_holds_what_made_the_weights(tmp_path) -> None:
    recipe = recipe_of(tmp_path)
    assert recipe["base_revision"] == "b" * 40
    assert recipe["seed"] == 42
    assert recipe["rows"] == {"fit": len(ROWS), "sha256": hash_rows(ROWS)}
    assert recipe["parents"][1] == {
        "adapter": "own/two",
        "revision": "",
        "sha256": "e" * 64,
        "weight": -1.25,
        "fit_loss_alone": 2.5,
    }
    assert {"python", "torch", "peft", "nevergrad"} <= set(recipe["versions"])


def test_rows_are_told_apart_by_their_hash() -> None:
    assert hash_rows(ROWS) == hash_rows(list(ROWS))
    assert hash_rows(ROWS) != hash_rows(ROWS[:-1])


def test_a_missing_library_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "LIBRARIES", ("torch", "no-such-library"))
    assert set(read_versions()) == {"python", "torch"}
