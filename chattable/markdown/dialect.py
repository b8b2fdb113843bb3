"""The dialect: Markdown becomes safe HTML, a whole message or a part. Message and growth come in.

It is CommonMark with tables, ~~strikethrough~~, ==mark==, task lists, bare links, LaTeX math,
footnotes and the five kinds of notes that GitHub has.
A newline in a paragraph is a line break, as in most chats. `_x_` is emphasis, as CommonMark has it
(Redcarpet's underline is deliberately not taken). Raw HTML is never passed through; a few harmless
tags without attributes (<br>, <sub>, <details> and the like; <details open> alone may have one)
are read as if they were Markdown, all others are shown as text. Images are links (a loaded image
would tell its host what is being read), links go to http, https and mailto only, and no style
attribute is written. No whitespace is written between blocks, and a list item looks the same in a
tight and a loose list, so that what is shown of a growing message need not change when more of it
arrives.
"""

import mistune
from markupsafe import Markup
from mistune.plugins.formatting import strikethrough
from mistune.plugins.task_lists import task_lists
from mistune.util import escape

from chattable.markdown.blocks import THEMATIC_BREAK, Blocks, Lines
from chattable.markdown.emphasis import marks
from chattable.markdown.inline import Inline
from chattable.markdown.links import bare_links
from chattable.markdown.math import BLOCK_MATH, INLINE_MATH, parse_math
from chattable.markdown.notes import FOOTNOTE, parse_footnote
from chattable.markdown.renderer import Renderer
from chattable.markdown.tables import TABLE, aligns_of, parse_table, row_token
from chattable.markdown.tags import DETAILS, TAGS, parse_details, parse_tag


def render(text: str) -> Markup:
    """Render a whole message as safe HTML; what cannot be parsed is shown as it was written."""
    text = text.replace("\r", "")
    try:
        return Markup(parser(text)(text))
    except RecursionError:
        return Markup(f"<pre>{escape(text, quote=False)}</pre>")


def render_blocks(source, links, within=False):
    """Render some blocks; return their HTML and kinds, and add what they define to the links.

    `within` tells that they go on with what is shown before them.
    """
    state = Lines()
    state.env = {"ref_links": links, "within": within}
    shown, state = parser(source).parse(source, state)
    return shown, [token["type"] for token in state.tokens if token["type"] != "blank_line"]


def render_row(source, aligns, links):
    """Render one row of a table whose delimiter row is given."""
    cells = row_token(source, aligns_of(aligns), "table_row")["children"]
    return _renderer.table_row(
        "".join(
            _renderer.table_cell(render_inline(cell["text"], links), **cell["attrs"])
            for cell in cells
        )
    )


def render_inline(source, links):
    """Render text that stands inside a block."""
    tokens = parser(source).inline(source, {"ref_links": links})
    return _renderer.render_tokens(tokens, None)  # type: ignore[arg-type] # it looks at no state


def parser(source):
    """Return the parser for Markdown: with bare links, or without."""
    # To look for them at every h and w costs a third of the time.
    return _with_links if "://" in source or "www." in source else _without_links


def _dialect(md):
    """Set the rules: no HTML (its text is escaped like any other), tables, math, bare links."""
    md.block.specification |= {"block_html": r"(?!)", "thematic_break": THEMATIC_BREAK}
    # A footnote's note is no address.
    definition = md.block.specification["ref_link"].replace(r"\[", r"\[(?!\^)", 1)
    md.block.specification["ref_link"] = definition
    lists = (md.block.rules, md.block.block_quote_rules, md.block.list_rules)
    for rules in lists:
        rules.remove("raw_html")
    md.inline.rules.remove("inline_html")
    md.block.register("block_math", BLOCK_MATH, parse_math, before="list")
    md.block.register("table", TABLE, parse_table)
    md.block.register("details", DETAILS, parse_details, before="list")
    md.inline.register("html_tags", TAGS, parse_tag, before="auto_link", start_chars="<")
    for rules in lists[1:]:
        rules[:] = ["block_math", "details", *rules, "table"]
    md.inline.register("footnote", FOOTNOTE, parse_footnote, before="link")
    md.inline.register(
        "inline_math", INLINE_MATH, parse_math, before="escape", start_chars=("$", "\\")
    )


def parser_for(renderer, *plugins):
    """Return a parser whose tokens `renderer` gets."""
    rules = [strikethrough, marks, task_lists, _dialect, *plugins]
    return mistune.Markdown(renderer, Blocks(), Inline(), plugins=rules)


_renderer = Renderer()
_with_links, _without_links = parser_for(_renderer, bare_links), parser_for(_renderer)
