"""The HTML of a parsed message. Only the dialect comes in."""

import html
import re

import mistune
from mistune.util import escape, unescape

from chattable.markdown.bounds import step
from chattable.markdown.characters import CARET
from chattable.markdown.code_blocks import coloured, language_and_file
from chattable.markdown.latex import mathml
from chattable.markdown.links import BRACKETED, HALF_ADDRESS, HALF_LINK, LINK
from chattable.markdown.math import LONGEST_MATH

PROSE = ' dir="auto"'  # written in either direction, as its first letter is
SCROLLS = ' tabindex="0"'  # may be wider than its place: keys scroll what has the focus
FOREIGN = ' dir="ltr"'  # whatever is written around it, whose direction it says nothing about


def _wrapped(tag, attributes=""):
    # A block takes its direction from text in it that has none of its own.
    return lambda self, text: f"<{tag}{attributes}>{text.replace('<p' + PROSE, '<p')}</{tag}>"


class Renderer(mistune.HTMLRenderer):
    """Write the HTML: nothing between blocks, no inline style, no foreign content."""

    def iter_tokens(self, tokens, state):
        for token in tokens:
            step()
            yield self.render_token(token, state)

    paragraph = block_text = _wrapped("p", PROSE)
    list_item, _quote = _wrapped("li", PROSE), _wrapped("blockquote", PROSE)
    table = _wrapped("table", PROSE + SCROLLS + ' aria-label="Table"')
    table_body, table_row = _wrapped("tbody"), _wrapped("tr")

    def block_quote(self, text, kind=None):
        if not kind:
            return self._quote(text)
        title = f"<strong{FOREIGN}>{kind.capitalize()}</strong>"
        note = f'<blockquote class="callout callout--{kind}"'
        return self._quote(title + text).replace("<blockquote", note, 1)

    def text(self, text):
        return escape(unescape(text), quote=False)

    def heading(self, text, level, **attrs):
        return f"<h{level}{PROSE}>{text}</h{level}>"

    def linebreak(self):
        return "<br>\n"

    softbreak = linebreak

    def thematic_break(self):
        return "<hr>"

    def list(self, text, ordered, start=None, **attrs):
        if not ordered:
            return f"<ul>{text}</ul>"
        # Numbers need room: of fifty items at least.
        first = "" if start is None else f' class="digits-{len(str(start + 50))}" start="{start}"'
        return f"<ol{first}>{text}</ol>"

    def task_list_item(self, text, checked=False):
        box = f'<input type="checkbox" disabled{" checked" * checked} aria-label="Done"> '
        item = self.list_item(text).replace("<li", '<li class="task"', 1)
        return item.replace("<p>", f"<p>{box}", 1)

    def block_code(self, code, info=None):
        # Where the caret is in a fence's info, it must not get into an attribute.
        language, file = language_and_file((info or "").replace(CARET, ""))
        if language == "math" and len(code) <= LONGEST_MATH:
            return self.block_math(code.strip(), display=True)
        body = escape(code, quote=False) if CARET in code else coloured(code, language)
        button = '<button type="button" class="code__copy">Copy</button>'
        name = html.escape(file or language or "text")
        head = f'<div class="code__head"><span>{name}</span>{button}</div>'
        code = f'<code class="language-{html.escape(language or "text")}">{body}</code>'
        pre = f'<pre{SCROLLS} role="group" aria-label="Code">'
        return f'<div class="code"{FOREIGN}>{head}{pre}{code}</pre></div>'

    def codespan(self, text):
        return f"<code{FOREIGN}>{escape(text, quote=False)}</code>"

    def footnote(self, label):
        return f"<sup>[{label}]</sup>"

    def link(self, text, url, title=None):
        text = re.sub(r"</?a\b[^>]*>", "", text)  # an image in a link would be a link in a link
        if url == HALF_LINK or HALF_ADDRESS.search(f"{url} {title}"):
            return f"<a>{text}</a>"
        if not LINK.match(url):
            return text
        title = f' title="{html.escape(title)}"' if title else ""
        url = BRACKETED.sub(r"\1[\2]", url)
        rel = 'rel="noopener noreferrer nofollow" target="_blank"'
        return f'<a href="{html.escape(url)}"{title} {rel}>{text}</a>'

    def image(self, text, url, title=None):
        return self.link(text or escape(url, quote=False), url, title)

    def html_tag(self, text, tag):
        return f"<{tag}>{text}</{tag}>"

    summary = _wrapped("summary", PROSE)

    def details(self, text, opened):
        return f"<details{' open' * opened}>{text}</details>"

    def block_math(self, latex, display):
        # In a paragraph, which scrolls also where browsers scroll no formula.
        return f"<p>{self.math(latex, display)}</p>"

    def math(self, latex, display):
        formula = mathml(latex, display)
        return formula.replace('display="block"', f'display="block"{SCROLLS}', 1)

    def table_head(self, text):
        return f"<thead><tr>{text}</tr></thead>"

    def table_cell(self, text, align=None, head=False):
        tag = "th" if head else "td"
        return f'<{tag} class="align-{align}">{text}</{tag}>' if align else f"<{tag}>{text}</{tag}>"
