"""What is left of Markdown when it is read as words: for titles."""

from mistune import BaseRenderer

from chattable.markdown.dialect import parser_for

# What stands within a line; everything else has one of its own.
WITHIN = set("text strong emphasis strikethrough mark codespan link image inline_math".split())


def words(text: str) -> str:
    """Return the words of a Markdown text in one line: no signs of emphasis, no addresses."""
    try:
        said = _parser(text.replace("\r", ""))
    except RecursionError:
        said = text
    return " ".join(str(said).split())


class Words(BaseRenderer):
    """Render every token as the text in it."""

    NAME = "words"

    def render_token(self, token, state):
        inside = token.get("children")
        said = self.render_tokens(inside, state) if inside else token.get("raw", "")
        return said if token["type"] in WITHIN else f" {said} "


_parser = parser_for(Words())
