"""Model cards: the Markdown that people push becomes HTML that cannot carry script, style, images or hidden links."""

import re

from markupsafe import Markup

from penstock.console.markdown import PlainMarkdown

_FRONT_MATTER = re.compile(r"\A---\r?\n.*?\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_COMMENT_LINE = re.compile(r"^[ \t]*<!--[^\n]*-->[ \t]*$", re.MULTILINE)  # marks for programs, such as where figures go
_LINK = re.compile(r"https?://", re.IGNORECASE)


class _CardMarkdown(PlainMarkdown):
    """Links go to http(s) only."""

    def validateLink(self, url: str) -> bool:  # noqa: N802 - the library's name
        """Whether `url` may stand in a link."""
        return _LINK.match(url.strip()) is not None


_MARKDOWN = _CardMarkdown()
_MOST_CHARACTERS = 200_000


def render_card(text: str) -> Markup:
    """The card's HTML. Its YAML front matter and lines that are a comment are left out, headings begin two levels down, and links tell the other site nothing."""
    body = _FRONT_MATTER.sub("", text[:_MOST_CHARACTERS], count=1)
    tokens = _MARKDOWN.parse(_COMMENT_LINE.sub("", body))
    for token in tokens:
        if token.type in {"heading_open", "heading_close"}:
            token.tag = f"h{min(6, int(token.tag[1]) + 2)}"
        if token.attrs:
            token.attrs.pop("style", None)  # of aligned table cells: the policy forbids inline style
        for child in token.children or ():
            if child.type == "link_open":
                child.attrs["rel"] = "noreferrer noopener nofollow"
    return Markup(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {}))  # noqa: S704 - html is off in the parser
