from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.console.cards import render_card

HOSTILE = [
    "<script>alert(1)</script>",
    "# <img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "[x](vbscript:msgbox)",
    "[x](//evil.example)",
    "<javascript:alert(1)>",
    "![x](https://evil.example/track.png)",
    '[x](https://ok.example "\\" onmouseover=alert(1)")',
    "`<b onclick=alert(1)>`",
    "```html\n<iframe src=//evil.example></iframe>\n```",
    "| <svg/onload=alert(1)> | b |\n|---|:-:|\n| c | <style>*{}</style> |",
    "[x]: javascript:alert(1)\n\n[x]",
    "<!-- --><form action=//evil.example><input></form>",
    "<a href='x' style='position:fixed'>",
]
ALLOWED = {
    *(
        [
            "h3",
            "h4",
            "h5",
            "h6",
            "p",
            "a",
            "em",
            "strong",
            "code",
            "pre",
            "ul",
            "ol",
            "li",
            "blockquote",
            "hr",
            "br",
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
        ]
    ),
}


class Reading(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def check(html: str) -> None:
    reading = Reading()
    reading.feed(html)
    for tag, attributes in reading.found:
        assert tag in ALLOWED, (tag, html)
        assert set(attributes) <= {"href", "rel", "title", "class", "start"}, (attributes, html)
        if "href" in attributes:
            assert (attributes["href"] or "").lower().startswith(("http://", "https://")), html


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_cards_carry_nothing(text: str) -> None:
    check(render_card(text))


@given(
    st.text(alphabet="<>&\"'`[]()!#*_-|:/\\ \n\tabjscript=onclick", max_size=200)
    | st.sampled_from(HOSTILE).map(lambda t: "> " + t)
)
@settings(max_examples=300, deadline=None)
def test_no_text_gives_other_tags(text: str) -> None:
    check(render_card(text))


def test_a_card_reads_well() -> None:
    html = render_card(
        "---\nlicense: x\n---\n# Title\n\nText with [a link](https://example.org).\n\n| a |\n|--:|\n| 1 |\n"
    )
    assert "license" not in html
    assert "<h3>Title</h3>" in html
    assert '<a href="https://example.org" rel="noreferrer noopener nofollow">' in html
    assert "<td>1</td>" in html


def test_a_line_that_is_a_comment_is_not_shown() -> None:
    html = render_card("before\n\n<!-- figures: made by a program -->\n\nafter")
    assert "figures" not in html
    assert "before" in html
    assert "after" in html
