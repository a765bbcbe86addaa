"""Markdown of people, as HTML that cannot carry script, style or images."""

from markdown_it import MarkdownIt


class PlainMarkdown(MarkdownIt):
    """CommonMark with tables; HTML stands as text, images are left out. Which links may stand, a subclass says."""

    def __init__(self) -> None:
        super().__init__("commonmark", {"html": False, "linkify": False})
        self.enable("table")
        self.disable(["image", "html_block", "html_inline"])
