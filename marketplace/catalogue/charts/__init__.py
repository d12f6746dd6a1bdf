"""Geometry of the site's charts: numbers in, frozen drawing instructions out.

Every function of this package is pure: it turns weights, losses and scores into positions inside a
``0 0 100 H`` view box and into the words that go beside the drawing. The templates in
``templates/charts/`` write those positions as SVG attributes (a strict CSP allows them) and
``site.css`` gives the colours; nothing here knows Django, HTML or a colour.
"""

from __future__ import annotations

from marketplace.catalogue.charts.gain import GAIN_TOP, Gain, draw_gain
from marketplace.catalogue.charts.lineage import Lineage, Strand, draw_lineage
from marketplace.catalogue.charts.loss_plot import LossPlot, References, draw_loss_plot
from marketplace.catalogue.charts.progress import ProgressBar, draw_progress
from marketplace.catalogue.charts.reading import finite, read_field, tenth
from marketplace.catalogue.charts.score_table import (
    METHOD_LABELS,
    METHOD_ORDER,
    METRIC_LABELS,
    ScoreRow,
    ScoreTable,
    draw_score_table,
)
from marketplace.catalogue.charts.weight_bars import (
    WeightBar,
    WeightBars,
    draw_weight_bars,
    sign_class,
)

__all__ = [
    "GAIN_TOP",
    "METHOD_LABELS",
    "METHOD_ORDER",
    "METRIC_LABELS",
    "Gain",
    "Lineage",
    "LossPlot",
    "ProgressBar",
    "References",
    "ScoreRow",
    "ScoreTable",
    "Strand",
    "WeightBar",
    "WeightBars",
    "draw_gain",
    "draw_lineage",
    "draw_loss_plot",
    "draw_progress",
    "draw_score_table",
    "draw_weight_bars",
    "finite",
    "read_field",
    "sign_class",
    "tenth",
]
