"""A growing message shows what the whole one does, and nothing that flickers or lies."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chattable import markdown
from chattable.markdown import Growth
from tests.growing import Page, bare, grown, pieces, render, shown

CHAT = """# Title here

Some **bold text** and `code` with a [link](http://example.com/x) and *more*.
Second line, https://example.com/y is nice; $x^2$ costs $5 & up, ~~no~~ ==yes==.

- one **lead**: text
- two

  paragraph
  ```python
  def f(x):

      return x
  ```
  after *it*
- [ ] three

1. first
2. second
   - nested
   - nested `too`

| a | b |
|---|--:|
| 1 | **2** |
| 3 | |

```js
let x = 1 < 2;

foo()
```

$$
x = y^2
$$

> [!NOTE]
> A note[^1].

[^1]: Its footnote.

> quote **bold
> more** text
>
> second

Setext
------

***

End of _text_.
"""


@pytest.mark.parametrize("sizes", [1, 2, 3, 7, 10, 30, 1000, "a", "b"])
def test_a_grown_message_equals_the_rendered_one(sizes):
    growth, page, _ = grown(CHAT + "\nLast.", sizes)
    assert page.html == Page(growth.html).html == Page(markdown.render(CHAT + "\nLast.")).html


@pytest.mark.parametrize(
    "text, html",
    [
        ("a **bold", "<p>a <strong>bold</strong></p>"),
        ("a *em", "<p>a <em>em</em></p>"),
        ("a `code x", "<p>a <code>code x</code></p>"),
        ("a ~~gone", "<p>a <del>gone</del></p>"),
        ("a ==mark", "<p>a <mark>mark</mark></p>"),
        ("**a *b", "<p><strong>a <em>b</em></strong></p>"),
        ("**a `b", "<p><strong>a <code>b</code></strong></p>"),
        ("see [text](http://exa", "<p>see <a>text</a></p>"),
        ("| a | b", "<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody></tbody></table>"),
        ("- a **b", "<ul><li><p>a <strong>b</strong></p></li></ul>"),
        ("> a *b", "<blockquote><p>a <em>b</em></p></blockquote>"),
        ("# a *b", "<h1>a <em>b</em></h1>"),
        (r"so $ \pi +", r'<p>so <code class="math">\pi +</code></p>'),
        ("so $$x +", '<p>so <code class="math">x +</code></p>'),
    ],
)
def test_half_open_markup_is_shown_closed(text, html):
    assert shown(text) == html


@pytest.mark.parametrize(
    "tail",
    [
        "*",
        "**",
        "_",
        "`",
        "[",
        "[te",
        "~~",
        "\n-",
        "\n1.",
        "\n#",
        "\n```",
        "\n```py",
        "\n| --",
        "&am",
        "http",
        "https://exa",
        "!",
        "$",
        "\\",
        " ",
        "\n",
    ],
)
def test_a_tail_that_may_become_something_else_is_held_back(tail):
    assert shown("word" + (" " if tail[0] != "\n" else "") + tail) == "<p>word</p>"


def test_a_row_in_progress_is_shown_cell_by_cell():
    assert "<td>1</td><td>2</td></tr>" in shown("| a | b |\n|---|---|\n| 1 | 2")


def test_the_shown_text_never_flickers_while_bold_is_typed():
    growth, texts = Growth(), []
    for letter in "plain **bold text** plain":
        growth.feed(letter)
        texts.append(re.sub("<[^>]*>", "", growth.html))
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))


GUESSES = [
    "Today $AAPL rose by four percent after the report was out",
    "use *args to take them all and then go on with it",
    "the __dirname of a module is what you look for now, in _most of the cases that there are around",
    "press ` to open the console of this program and then write",
    "let $x be as it is in the text before it",
    "**kwargs lets you pass any number of named arguments to it, and then some more words here",
    "~~ and ==this is no mark at all of anything that anybody ever wrote about",
    "|x| is the absolute value of x and that is never negative at all",
    "and [an aside in brackets that goes on for a good many words or so",
    "![an aside in brackets that goes on for a good many words or so",
    "a [word](and then an aside in brackets that goes on",
    r"a \[ or \( is a bracket that somebody has escaped for whatever reason",
    "中文*强调的文字很长很长很长很长很长很长",
]


@pytest.mark.parametrize("sizes", [1, 3, 8, "a"])
@pytest.mark.parametrize("text", GUESSES)
def test_a_guess_is_taken_back_after_a_few_words(text, sizes):
    assert re.sub("<[^>]*>", "", shown(text, sizes)) == text.replace("\\", "")
    assert shown(text, sizes) == f"<p>{text}</p>".replace("\\", "")


@pytest.mark.parametrize(
    "text", [*GUESSES, "a [link to](http://a.b 'with a title') and *more of it* then"]
)
def test_no_more_than_a_few_words_are_ever_hidden(text):
    for cut in range(len(text)):
        said = len(re.findall(r"\w\w+", re.sub(r"\(http.*?\)|\(http.*", "", text[:cut])))
        assert len(re.findall(r"\w\w+", re.sub("<[^>]*>", "", shown(text[:cut], 5)))) >= said - 7


def test_an_empty_feed_changes_nothing():
    growth = Growth()
    assert growth.feed("") == [] and growth.html == ""
    growth.feed("a")
    assert growth.feed("") == [] and bare(growth.html) == "<p>a</p>"


WORDS = [
    "word",
    "x",
    "two words",
    "é—“”",
    "1",
    "5",
    "😀",
    "the",
    "http",
    "snake_case",
    "中文。",
    "ที่",
]
MARKS = "** * _ __ ` `` ~~ == [ ] ( ) [a](http://b.c) https://d.ef ![i](http://j.k) $ $x$ $$ \\( \\) \\ < > & &amp; <b> | ! . , : - + # = <br> <sub> </sub> <u> </u> \\begin{align} \\end{align} </details> [^1] [^x]: [!TIP]".split()
STARTS = [
    "\n",
    "\n\n",
    "\n- ",
    "\n\n- ",
    "\n  - ",
    "\n1. ",
    "\n2. ",
    "\n* ",
    "\n> ",
    "\n\n> ",
    "\n>\n> ",
    "\n# ",
    "\n## ",
    "\n```\n",
    "\n```py\n",
    "\n~~~\n",
    "\n---\n",
    "\n===\n",
    "\n***\n",
    "\n| a | b |\n|---|---|\n| ",
    "\n| ",
    " |\n",
    "\n    ",
    "\n   ",
    "\n  ",
    "\n\n  ",
    "\n\n   ",
    "\n$$\n",
    "\t",
    "  \n",
    "\n- [ ] ",
    "\n```\n\n",
    "\n  ```\n  ",
    "\n<details>\n<summary>x</summary>\n",
    "\n</details>\n",
    "\n\\begin{align}\n",
    "\n\\end{align}\n",
    "\n[^1]: ",
    "\n\n> [!NOTE]\n> ",
]
texts = st.lists(
    st.sampled_from(WORDS) | st.just(" ") | st.sampled_from(MARKS) | st.sampled_from(STARTS),
    max_size=40,
).map("".join)
sizes = st.integers(1, 30) | st.text("abcdef", min_size=1, max_size=3)


@settings(max_examples=1500, deadline=None)
@given(texts, sizes)
def test_the_page_equals_what_the_growth_says_it_shows(text, sizes):
    growth, page = Growth(), Page()
    for piece in pieces(text, sizes):
        page.apply(growth.feed(piece))
        assert page.html == Page(growth.html).html


@settings(max_examples=500, deadline=None)
@given(texts, sizes)
def test_a_finished_message_equals_the_rendered_one(text, sizes):
    growth, page, _ = grown(text, sizes)
    html = markdown.render(text)
    page.apply(growth.finish(html))
    assert page.html == Page(html).html


@pytest.mark.parametrize(
    "text, swaps",
    [
        ("One **two** three.", []),
        ("One.\n\n```py\nx = 1\n```", [("div.code", "pre", "code", "span.rest")]),
        ("One.\n\n```\nx = 1\n```", []),
        ("- one\n- a *guess", [("ul", "li", "p", "em")]),
        ("A [reference][1].\n\n[1]: https://example.com", [()]),
    ],
)
def test_a_finished_message_changes_only_where_it_differs(text, swaps):
    growth, _, _ = grown(text, 3)
    assert [patch.path for patch in growth.finish(markdown.render(text))] == swaps


@settings(max_examples=200, deadline=None)
@given(texts, sizes)
def test_the_text_goes_into_our_own_elements_whatever_others_append(text, sizes):
    growth, page = Growth(), Page()
    for piece in pieces(text, sizes):
        page.apply(growth.feed(piece))
        page.crowd()
    page.empty()
    assert page.html == Page(growth.html).html


def test_a_long_paragraph_goes_on_among_what_others_append():
    growth, page = Growth(), Page()
    for _ in range(400):
        page.apply(growth.feed("a few *more* words of it "))
    page.crowd()
    page.apply(growth.feed("and the last of them"))
    page.empty()
    assert "rest" in growth.html and page.html == Page(growth.html).html


BLOCKS = [
    "{}", "{}\n{}", "# {}", "## {}\n\n{}", "- {}\n- {}\n- {}", "- {}\n\n  {}\n- {}", "1. {}\n2. {}", "1. {}\n   - {}\n   - {}\n2. {}",
    "- [ ] {}\n- [x] {}", "> {}", "> {}\n> {}\n>\n> {}", "> - {}\n> - {}", "```py\n{}\n\n{}\n```", "~~~\n{}\n~~~", "- {}\n  ```\n  {}\n\n  x\n  ```\n  {}",
    "| a | b |\n|---|:-:|\n| {} | {} |\n| {} |", "a | b\n--|--\n{} | {}", "{}\n---", "{}\n===", "***", "$$\nx + y\n$$", "{}\n$$\nx\n$$\n{}", "    x\n\n    y", "{}:\n- {}\n- {}", "{}  \n{}", "**{}**: {}", "*{}*", "> [!NOTE]\n> {}\n>\n> {}", "[^1]: {}\n[^2]: {}", "<details>\n<summary>{}</summary>\n\n{}\n\n{}\n\n</details>", "\\begin{{gather}}\nx \\\\\ny\n\\end{{gather}}",
]  # fmt: skip
inlines = st.lists(
    st.sampled_from(
        WORDS
        + [
            "**b c**",
            "*e*",
            "`f g`",
            "[h](http://i.j)",
            "$x^2$",
            r"\(x\)",
            "~~k~~",
            "==l==",
            "<b>",
            "&amp;",
            "https://m.no",
            "(p)",
            "**中。**文",
            "x<sub>i</sub>",
            "a<br>b",
            "a[^1]",
            "a*b",
            "**",
            "`",
            "$5",
        ]
    ),
    min_size=1,
    max_size=6,
)
lines = inlines.map(" ".join).map("So {}".format)
blocks = st.sampled_from(BLOCKS).flatmap(
    lambda block: st.tuples(*[lines] * block.count("{}")).map(lambda parts: block.format(*parts))
)
messages = st.lists(blocks, min_size=1, max_size=6).map("\n\n".join)


@settings(max_examples=150, deadline=None)
@given(messages, sizes)
def test_the_final_text_equals_that_of_the_rendered_message(text, sizes):
    text += "\n\nThe end."
    _, page, _ = grown(text, sizes)
    assert page.text == Page(render(text)).text
