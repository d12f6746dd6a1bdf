from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composer.intervals import wilson_interval
from marketplace.catalogue.charts import (
    References,
    draw_gain,
    draw_lineage,
    draw_loss_plot,
    draw_progress,
    draw_score_table,
    draw_weight_bars,
    finite,
)


def test_it_works():
    gain = draw_gain(4.5, 0.9)

    assert gain is not None
    assert (gain.ring, gain.dot) == ("50.0", "10.0")
    assert (gain.link_start, gain.link_end) == ("10.0", "50.0")
    assert gain.sentence == "Loss 0.90 with the adapter, down from 4.50 alone."


@pytest.mark.parametrize(
    ("base", "own", "words"),
    [(1.0, 2.0, "up from 1.00"), (1.0, 1.0, "the same as 1.00")],
)
def test_a_gain_says_which_way_the_loss_went(base, own, words):
    gain = draw_gain(base, own)

    assert gain is not None
    assert words in gain.sentence


@pytest.mark.parametrize("missing", [None, float("nan"), float("inf"), "much", True])
def test_an_unknown_loss_draws_no_gain(missing):
    assert draw_gain(missing, 1.0) is None
    assert draw_gain(1.0, missing) is None


def test_a_gain_beyond_the_scale_stays_inside_the_box():
    gain = draw_gain(40, 0)

    assert gain is not None
    assert (gain.ring, gain.dot) == ("98.5", "1.5")


def test_numbers_from_text_are_read():
    assert finite("0.25") == 0.25


# ---- weight bars


def test_weights_grow_from_the_middle_in_the_order_given():
    chart = draw_weight_bars([("a/minus", -0.5), ("a/plus", 0.25), ("a/zero", 0.004)])

    minus, plus, zero = chart.bars
    assert (minus.x, minus.width, minus.sign, minus.text) == ("25.0", "25.0", "minus", "\u22120.50")
    assert (plus.x, plus.width, plus.sign, plus.text) == ("50.0", "12.5", "plus", "+0.25")
    assert (zero.sign, zero.text) == ("zero", "0.00")
    assert chart.limit_text == "1"


@pytest.mark.parametrize(
    ("largest", "limit"), [(0.2, "1"), (1.0, "1"), (1.01, "1.5"), (-1.5, "1.5"), (1.7, "2")]
)
def test_the_axis_widens_for_all_rows_when_one_weight_needs_it(largest, limit):
    assert draw_weight_bars([("a", 0.1), ("b", largest)]).limit_text == limit


def test_rows_may_be_objects_or_mappings():
    @dataclass
    class Row:
        name: str
        weight: float
        url: str

    chart = draw_weight_bars(
        [Row("a/b", 0.3, "/a/b"), {"name": "c/d", "weight": None, "note": "v2"}]
    )

    assert (chart.bars[0].name, chart.bars[0].url) == ("a/b", "/a/b")
    assert (chart.bars[1].note, chart.bars[1].text) == ("v2", "0.00")


def test_no_weights_draw_an_empty_table():
    assert draw_weight_bars([]).bars == ()


# ---- loss plot


def test_a_loss_plot_steps_down_and_never_up():
    plot = draw_loss_plot([(1, 1.0), (2, 2.0), (3, 0.5), (4, 0.8)], 4)

    assert plot.best_path.startswith("M25.0 ")
    assert plot.best_path.count("V") == 1
    assert len(plot.dots) == 4
    assert plot.best_text == "0.50"
    assert "falls from 1.00 to 0.50 after 4 of 4 evaluations" in plot.sentence


def test_the_axes_do_not_move_while_a_job_runs():
    references = References(best_single=0.58, uniform=1.42, base=3.41)
    early = draw_loss_plot([(1, 0.58)], 40, references)
    late = draw_loss_plot([(n, 0.58 - n / 100) for n in range(1, 41)], 40, references)

    assert early.y_labels == late.y_labels == ("2", "1.5", "1", "0.5", "0")
    assert early.x_labels == late.x_labels == ("0", "10", "20", "30", "40")
    assert early.dots[0] == late.dots[0] or early.dots[0][0] == late.dots[0][0]


def test_what_does_not_fit_is_named_in_the_legend():
    plot = draw_loss_plot([(1, 0.58)], 40, References(best_single=0.58, uniform=1.42, base=3.41))

    assert plot.off_scale == ("base 3.41, off the scale",)
    assert plot.best_single_y
    assert plot.uniform_y
    assert "Base 3.41." in plot.sentence


def test_the_base_alone_is_a_reference_not_a_dot():
    rows = [
        {"number": 0, "fit_loss": 3.41, "loss": 3.41},
        {"number": 1, "fit_loss": 0.6, "loss": 0.7},
        {"number": 2, "loss": float("nan")},
        {"number": 3, "loss": 0.65},
    ]

    plot = draw_loss_plot(rows, 10)

    assert [x for x, _ in plot.dots] == ["10.0", "30.0"]
    assert plot.best_text == "0.60"


def test_a_plot_without_evaluations_says_so():
    plot = draw_loss_plot([], 40)

    assert plot.dots == ()
    assert plot.now is None
    assert plot.best_path == ""
    assert "None of 40 evaluations" in plot.sentence
    assert draw_loss_plot([], 0, References(base=3.0)).y_labels[0] == "4"


def test_a_budget_of_two_has_two_labels():
    assert draw_loss_plot([(1, 0.0)], 2).x_labels == ("0", "2")


@given(
    losses=st.lists(st.floats(0, 1e6), min_size=1, max_size=60),
    budget=st.integers(0, 100),
    best_single=st.none() | st.floats(0, 1e4),
)
def test_everything_drawn_lies_inside_the_box(losses, budget, best_single):
    plot = draw_loss_plot(
        list(enumerate(losses, start=1)), budget, References(best_single=best_single)
    )

    positions = [float(part) for dot in plot.dots for part in dot]
    assert all(0 <= position <= 100 for position in positions)


# ---- score table


def _report(**scores: int) -> dict[str, object]:
    return {
        "metric": "exact_match",
        "rows": [
            {
                "method": method,
                "held_out": {"n": 48, "correct": correct, "score": correct / 48, "loss": 1.0},
                "fit": {"n": 5, "loss": 0.5},
            }
            for method, correct in scores.items()
        ],
    }


def test_methods_keep_their_order_and_the_best_is_marked_whichever_it_is():
    table = draw_score_table(_report(composed=27, best_single=39, base=2), {"base": "no adapter"})

    assert [row.method for row in table.rows] == ["base", "best_single", "composed"]
    assert [row.wins for row in table.rows] == [False, True, False]
    assert table.rows[0].hint == "no adapter"
    assert table.rows[1].score_text == "81 %"
    assert table.rows[2].rows_text == "27/48"
    assert table.metric_label == "Exact match"


def test_the_adapter_in_a_label_becomes_its_grey_line():
    report = _report(best_single=39)
    report["rows"][0]["label"] = "Best single: demo/pick_animal"  # type: ignore[index]

    row = draw_score_table(report).rows[0]

    assert (row.label, row.hint) == ("Best single", "demo/pick_animal")


def test_the_interval_is_wilsons_and_drawn_under_the_bar():
    row = draw_score_table(_report(composed=44)).rows[0]

    assert row.interval_text == "80\u201397"
    assert row.whisker == "M80.4 16H96.7M80.4 13.5V18.5M96.7 13.5V18.5"
    assert row.width == "91.7"


def test_equal_scores_are_told_apart_by_their_loss():
    report = _report(best_single=30, composed=30)
    report["rows"][1]["held_out"]["loss"] = 0.2  # type: ignore[index]

    assert [row.wins for row in draw_score_table(report).rows] == [False, True]


def test_too_few_rows_to_hold_any_out_show_the_fit_rows():
    table = draw_score_table(
        {
            "metric": "rougeL",
            "rows": [
                {
                    "method": "composed",
                    "label": "Mixed",
                    "held_out": {"n": 0},
                    "fit": {"n": 4, "correct": None, "score": 0.5, "interval": [0.2, 0.8]},
                },
                {"method": "other", "held_out": None, "fit": {}},
                {"method": "last", "fit": {"n": 4, "correct": None, "score": 0.5, "exact": 1}},
            ],
        }
    )

    assert not table.held_out
    assert table.rows[2].rows_text == "1/4 exact"
    assert table.metric_label == "ROUGE-L"
    assert (table.rows[0].label, table.rows[0].rows_text) == ("Mixed", "4")
    assert table.rows[0].interval_text == "20\u201380"
    assert (table.rows[1].label, table.rows[1].score_text) == ("other", "\u2013")
    assert table.rows[1].whisker == ""
    assert not table.show_loss


def test_a_report_without_rows_is_an_empty_table():
    assert draw_score_table({}).rows == ()


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_wilson_interval_holds_the_share(pair):
    correct, n = pair
    low, high = wilson_interval(correct, n)

    assert 0 <= low <= correct / n + 1e-9
    assert correct / n - 1e-9 <= high <= 1


def test_a_wilson_interval_of_nothing_says_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)


# ---- lineage and progress


def test_parents_are_laid_by_sign_and_weight():
    drawn = draw_lineage([("a", -0.27), ("b", 0.18), ("c", 0.74)])

    assert [strand.name for strand in drawn.strands] == ["c", "b", "a"]
    assert [strand.sign for strand in drawn.strands] == ["plus", "plus", "minus"]
    assert drawn.strands[0].stroke == "10.4"
    assert drawn.strands[0].wide_path == "M0 16.7C55 16.7 45 47.8 100 47.8"
    assert drawn.hidden_text == ""


@pytest.mark.parametrize(
    ("count", "words"), [(7, "and 1 smaller parent"), (8, "and 2 smaller parents")]
)
def test_six_strands_at_most_and_the_rest_are_counted(count, words):
    drawn = draw_lineage([(f"p{i}", 0.1 + i / 10) for i in range(count)])

    assert len(drawn.strands) == 6
    assert drawn.hidden_text == words
    assert "p0" not in [strand.name for strand in drawn.strands]


def test_a_single_parent_flows_straight():
    strand = draw_lineage([("a", 1.0)]).strands[0]

    assert strand.wide_path == "M0 50.0C55 50.0 45 50.0 100 50.0"
    assert strand.tall_path.endswith("55.0 100")


@pytest.mark.parametrize(
    ("done", "total", "width"),
    [(23, 40, "57.5"), (50, 40, "100.0"), (1, 0, "0.0"), (None, 4, "0.0")],
)
def test_progress_is_a_share_of_a_known_total(done, total, width):
    assert draw_progress(done, total).width == width


@given(st.lists(st.tuples(st.text(max_size=3), st.floats(-3, 3)), max_size=12))
def test_all_weights_stay_on_their_axis(rows):
    for bar in draw_weight_bars(rows).bars:
        assert 0 <= float(bar.x) <= 50
        assert float(bar.x) + float(bar.width) <= 100.1
        assert not math.isnan(float(bar.width))
