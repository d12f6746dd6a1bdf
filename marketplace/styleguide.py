"""Sample data for /styleguide, the page on which all components are looked at in all states.

The numbers are made up to reach every branch of every component; nothing here is shown on a page
that visitors see.
"""

from __future__ import annotations

from typing import Any

from django import forms

LONG_NAME = (
    "a-research-group-with-a-long-name/"
    "smollm2-135m-instruct-question-rewriting-lora-r64-alpha128-second-attempt"
)
WEIGHTS = (
    ("demo/pick_animal", 0.74),
    ("demo/larger_animal", 0.31),
    ("demo/clinc_intent", 0.18),
    ("bob/alphabetical_first", 0.12),
    ("demo/last_item", -0.27),
    ("bob/antonym", -0.11),
    ("bob/spell_letters", 0.04),
    ("alice/count_list", 0.0),
)
LOSSES = (
    *(0.58, 0.93, 0.60, 0.52, 0.98, 0.59, 0.69, 1.22, 0.41, 0.63, 0.43, 0.43, 0.50, 0.46, 0.33),
    *(0.53, 0.41, 0.35, 0.27, 0.36, 0.35, 0.53, 0.29),
)
SCORES = (
    ("base", 2, 3.36, 3.41),
    ("prompting", 15, None, None),
    ("uniform", 16, 1.55, 1.42),
    ("best_single", 38, 0.71, 0.58),
    ("composed", 44, 0.33, 0.19),
)
ROWS = 48


class SampleForm(forms.Form):
    """A form with a field of each kind, shown with its errors."""

    name = forms.CharField(help_text="Letters, digits, “.”, “_” and “-”.")
    summary = forms.CharField(widget=forms.Textarea(attrs={"rows": 3}), required=False)
    merge = forms.ChoiceField(choices=[("concat", "concat"), ("factor", "factor"), ("svd", "svd")])
    evaluations = forms.IntegerField(max_value=200, initial=40)
    agree = forms.BooleanField(label="Everyone may see it")


def styleguide_context() -> dict[str, Any]:
    """Return everything that the style guide draws."""
    parents = [
        {"name": name, "weight": weight, "url": f"/{name}", "note": f"v{place} · 3d38a28{place}"}
        for place, (name, weight) in enumerate(WEIGHTS, start=1)
    ]
    bad_form = SampleForm({"name": "", "summary": "x", "merge": "mean", "evaluations": "1000"})
    bad_form.add_error(None, "Two things contradict each other: mend one of them.")
    return {
        "form": SampleForm(),
        "bad_form": bad_form,
        "parents": parents,
        "child": {
            "name": "demo/pick_vehicle",
            "url": "/demo/pick_vehicle",
            "notes": ["v1 · concat · rank 32"],
        },
        "weights": WEIGHTS,
        "large_weights": [(LONG_NAME, 1.45), ("demo/last_item", -0.27), ("demo/zero", 0.001)],
        "evaluations": list(enumerate(LOSSES, start=1)),
        "no_evaluations": [],
        "report": {"metric": "exact_match", "rows": [_score(*row) for row in SCORES]},
        "no_gain_report": {
            "metric": "exact_match",
            "rows": [_score("best_single", 39, 0.6, 0.5), _score("composed", 27, 0.9, 0.3)],
        },
        "hints": {"best_single": "demo/pick_animal", "composed": "8 adapters, learned weights"},
        "long_name": LONG_NAME,
        "icons": sorted(_all_icons()),
    }


def _score(method: str, correct: int, loss: float | None, fit_loss: float | None) -> dict[str, Any]:
    return {
        "method": method,
        "held_out": {"n": ROWS, "correct": correct, "score": correct / ROWS, "loss": loss},
        "fit": {"n": 5, "correct": None, "score": None, "loss": fit_loss},
    }


def _all_icons() -> frozenset[str]:
    from marketplace.catalogue.templatetags.icons import ICONS  # noqa: PLC0415 - a tag library

    return ICONS
