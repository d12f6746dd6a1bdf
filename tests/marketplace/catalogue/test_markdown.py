from __future__ import annotations

import re

import pytest

from marketplace.catalogue.markdown import render_markdown


def test_it_works() -> None:
    html = render_markdown(
        "# Title\n\nSome *text* and `code`.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    )
    assert "<h2>Title</h2>" in html
    assert "<em>text</em>" in html
    assert "<td>2</td>" in html


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<svg onload=alert(1)>",
        "<svg><style><img src=x onerror=alert(1)></style></svg>",
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt:alert(1))",
        "[x](&#106;avascript:alert(1))",
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
        "[x](vbscript:x)",
        "![x](javascript:alert(1))",
        '![x" onerror="alert(1)](x)',
        "<a href='javascript:alert(1)'>x</a>",
        '<a href="http://e" onclick="alert(1)" style="position:fixed">x</a>',
        "<iframe src=//evil></iframe>",
        "<form action=//evil><input name=x><button>y</button></form>",
        "<math><mi//xlink:href='data:x,<script>alert(1)</script>'>",
        "<details open ontoggle=alert(1)>x</details>",
        "<base href=//evil>",
        "<meta http-equiv=refresh content='0;url=//evil'>",
        "<link rel=stylesheet href=//evil>",
        "<body onload=alert(1)>",
        "<p id=main class=btn hx-get=/x>x</p>",
        "```<script>alert(1)</script>\n```",
        "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    ],
)
def test_nothing_in_a_card_can_run_load_or_restyle(text: str) -> None:
    html = render_markdown(text).lower()
    lively = ("<script", "<img", "<svg", "<style", "<iframe", "<form", "<input", "<meta", "<link")
    assert not any(tag in html for tag in lively)
    assert "<body" not in html
    assert "<base" not in html
    inside = " ".join(re.findall(r"<[^>]*>", html))
    for word in (
        ' onerror="',
        ' onclick="',
        " style=",
        " hx-",
        " id=",
        'href="javascript',
        'href="data',
    ):
        assert word not in inside


def test_pictures_become_links() -> None:
    html = render_markdown("![a cat](https://example.org/cat.png)")
    assert '<a href="https://example.org/cat.png"' in html
    assert "a cat</a>" in html
    assert "<img" not in html


def test_links_are_marked_as_user_content() -> None:
    assert 'rel="nofollow ugc noopener noreferrer"' in render_markdown("[x](https://example.org)")


def test_headings_keep_the_outline_of_the_page() -> None:
    html = render_markdown("### A\n\n###### B\n\n# C\n\nSetext\n======\n")
    assert [html[at + 1 : at + 3] for at in range(len(html)) if html.startswith("<h", at)] == [
        "h2",
        "h3",
        "h2",
        "h2",
    ]


def test_template_syntax_is_text() -> None:
    assert "{{ 7*7 }}" in render_markdown("{{ 7*7 }} {% load x %}")


def test_deep_nesting_ends() -> None:
    assert render_markdown(">" * 5000 + "x")
    assert render_markdown("[" * 5000)
