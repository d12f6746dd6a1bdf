from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.template import Context, Template, TemplateSyntaxError
from django.utils import timezone

from marketplace.catalogue.templatetags.icons import ICONS
from marketplace.styleguide import styleguide_context

TEMPLATES = Path(settings.BASE_DIR) / "templates"


def _render(source: str, **context: object) -> str:
    return Template("{% load charts icons %}" + source).render(Context(context))


def test_it_works():
    html = _render("{% gain 3.88 0.03 %}")

    assert "3.88 → <b>0.03</b>" in html
    assert 'class="c-dot"' in html


def test_a_gain_not_measured_says_so():
    assert "not measured" in _render("{% gain None 1 %}")


@pytest.mark.parametrize(
    "source",
    [
        "{% weight_bars parents %}",
        "{% loss_plot evaluations 40 best_single=0.58 uniform=1.42 base=3.41 %}",
        "{% loss_legend evaluations 40 best_single=0.58 uniform=1.42 base=3.41 %}",
        "{% loss_plot no_evaluations 40 %}",
        "{% score_table report hints=hints %}",
        "{% score_table report compact=True %}",
        "{% lineage parents child %}",
        "{% progress 3 4 %}",
    ],
)
def test_charts_need_no_inline_style_or_script(source):
    html = _render(source, **styleguide_context())

    assert html.strip()
    assert "style=" not in html
    assert "<script" not in html
    assert not re.search(r"\bon\w+=", html)
    assert "nan" not in html.lower()


def test_a_minus_is_a_real_minus_and_dashed():
    html = _render("{% lineage parents child %}", **styleguide_context())

    assert "\u22120.27" in html
    assert "c-s-minus" in html


@pytest.mark.parametrize("tag", ["weight_bars rows", "lineage rows child"])
def test_names_are_escaped(tag):
    rows = [{"name": "<b>x</b>/<i>", "weight": 1, "url": '/"><script>', "note": "<u>"}]
    html = _render("{% " + tag + " %}", rows=rows, child={"name": "<b>"})

    assert "<script>" not in html
    assert "<u>" not in html
    assert "<i>" not in html


def test_an_adapter_name_shows_its_owner_in_grey():
    html = _render('{% aid "demo/animal" "/demo/animal" %}{% aid "alone" %}')

    assert '<a class="aid" href="/demo/animal"><span class="o">demo/</span>animal</a>' in html
    assert '<span class="aid"><span class="o"></span>alone</span>' in html


def test_a_long_name_may_wrap_where_its_words_end():
    html = _render('{% aid "a-b/pick_the_one" %}')

    assert '<span class="o">a-<wbr>b/</span>pick_<wbr>the_<wbr>one</span>' in html


def test_filters_write_numbers():
    html = _render(
        "{{ w|signed }} {{ l|loss }} {{ p|percent }} {{ s|size }} {{ n|thousands }} "
        '{{ d|duration }} {{ h|short:4 }} {{ h|short:40 }} {{ one|plural:"row,rows" }} '
        '{{ n|plural:"row,rows" }} {{ t|age }} {{ none|age }} {{ t|ago }} {{ label|before:":" }}',
        w=0.5,
        l=1,
        p=0.5,
        s=1000,
        n=1204,
        d=61,
        h="abcdef",
        one=1,
        t=timezone.now(),
        label="Best single: demo/x",
    )

    assert html == (
        "+0.50 1.00 50 % 1.0 kB 1,204 1 min 1 s abcd… abcdef 1 row 1,204 rows "
        "just now \u2013 just now Best single"
    )


def test_an_unknown_icon_is_an_error():
    with pytest.raises(TemplateSyntaxError, match="no icon called 'unicorn'"):
        _render('{% icon "unicorn" %}')


def test_the_sprite_holds_exactly_the_known_icons():
    sprite = (TEMPLATES / "_icons.html").read_text()

    assert set(re.findall(r'id="i-([a-z-]+)"', sprite)) == ICONS


def test_templates_name_known_icons_only():
    used = {
        name
        for path in TEMPLATES.rglob("*.html")
        for name in re.findall(r'{% icon "([^"]+)" %}', path.read_text())
    }

    assert used <= ICONS


def test_ago_is_told_of_real_ages_only():
    hours = timezone.now() - timedelta(hours=3)

    assert _render("{{ t|ago }}/{{ none|ago }}", t=hours) == "3 hours ago/\u2013"
