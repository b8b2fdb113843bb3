"""Markdown becomes safe HTML, whole and as it grows; the growing page is a simulated DOM."""

import random
import re
import signal
import time
from contextlib import contextmanager
from itertools import pairwise
from textwrap import indent as indent_all

import gevent
import html5lib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chattable import markdown as markup
from chattable.markdown import Growth, code_blocks, dialect
from chattable.markdown.characters import CARET
from chattable.markdown.latex import MATH_ATTRIBUTES

# --- A page that patches are applied to, as htmx does: all targets first, then all changes


class Page:
    """A message's body in a DOM of html5lib's making."""

    def __init__(self, html=""):
        self.body = html5lib.parse("<div></div>", treebuilder="dom").getElementsByTagName("div")[0]
        self._insert(html, self.body, None)

    def apply(self, patches):
        for target, patch in [(self._at(patch.depth), patch) for patch in patches]:
            if patch.swap == "beforeend":
                self._insert(patch.html, target, None)
            elif patch.swap == "outerHTML":
                self._insert(patch.html, target.parentNode, target)
                target.parentNode.removeChild(target)
            else:
                assert (patch.swap, patch.depth) == ("innerHTML", 0)
                target.childNodes = []
                self._insert(patch.html, target, None)
        self.body.normalize()

    def _at(self, depth):
        element = self.body
        for _ in range(depth):
            element = [
                child for child in element.childNodes if child.nodeType == child.ELEMENT_NODE
            ][-1]
        return element

    def _insert(self, html, parent, before):
        fragment = html5lib.parseFragment(html, container=parent.tagName, treebuilder="dom")
        for node in list(fragment.childNodes):
            parent.insertBefore(node, before)
        parent.normalize()

    @property
    def html(self):
        return "".join(node.toxml() for node in self.body.childNodes)

    @property
    def text(self):
        """The text a reader sees, block by block, without the code's label and button."""
        broken = re.sub(
            r'<div class="code__head">.*?</div>|</?(?:p|li|h\d|tr|t[hd]|pre|div|blockquote)\b',
            r"\n\g<0>",
            self.html,
        )
        bare = re.sub(r'<div class="code__head">.*?</div>|<[^>]*>', "", broken)
        return [line.strip() for line in bare.split("\n") if line.strip()]


def grown(text, sizes):
    """Feed the text in pieces of these sizes; return the growth, its page and the bytes sent."""
    growth, page, sent = Growth(), Page(), 0
    for piece in pieces(text, sizes):
        patches = growth.feed(piece)
        page.apply(patches)
        sent += sum(len(patch.html.encode()) for patch in patches)
    return growth, page, sent


def pieces(text, sizes):
    dice = random.Random(sizes) if isinstance(sizes, str) else None
    while text:
        size = dice.randint(1, 30) if dice else sizes
        yield text[:size]
        text = text[size:]


def shown(text, sizes=1):
    return undirected(grown(text, sizes)[0].html)


def render(text):
    return undirected(markup.render(text))


def undirected(html):
    return html.replace(' dir="auto"', "").replace(' dir="ltr"', "")


# --- Whole messages

X = (
    '<math display="inline"><semantics><mrow><mi>x</mi></mrow>'
    '<annotation encoding="application/x-tex">x</annotation></semantics></math>'
)
DISPLAYED_X = X.replace("inline", "block")


def test_prose_is_rendered_as_commonmark():
    assert (
        render("a **b** _c_ `d`\ne")
        == "<p>a <strong>b</strong> <em>c</em> <code>d</code><br>\ne</p>"
    )


def test_underscores_within_a_word_stay():
    assert render("snake_case_names") == "<p>snake_case_names</p>"


def test_a_list_looks_the_same_tight_and_loose():
    assert (
        render("- a\n- b") == render("- a\n\n- b") == "<ul><li><p>a</p></li><li><p>b</p></li></ul>"
    )


@pytest.mark.parametrize(
    "text, html",
    [
        ("So:\n\n  1. a\n  2. b\n3. c", "<ol>abc</ol>"),
        (" - a\n- b\n  - c\n - d", "<ul>ab<ul>c</ul>d</ul>"),
        ("1. a\n  2. b\n3. c", "<ol>abc</ol>"),
        ("  - b\n- \n- c", "<ul>bc</ul>"),
        ("- \n\n  a\n- b", "<ul></ul>a<ul>b</ul>"),
        ("- x\n- \n\n  a\n- b", "<ul>x</ul>a<ul>b</ul>"),
        ("> a\n1. \n\n1. b", "<ol>b</ol>"),
        ("> a\n2. b\n\n3. c", '<ol class="digits-2" start="2">bc</ol>'),
        (">\n>\na\n2. b", "</blockquote>a<br>\n2. b"),
        ("a\n  -\n  - b\n\n  - c", "<h2>a</h2><ul>bc</ul>"),
        ("a\n===\n2. b\n\n3. c", '<h1>a</h1><ol class="digits-2" start="2">bc</ol>'),
    ],
)
def test_a_list_is_as_long_grown_as_whole(text, html):
    assert html in re.sub("</?(?:p|li)>", "", render(text))
    assert_grown_alike(text)


def test_tasks_are_disabled_boxes():
    assert render("- [x] done").count('<input type="checkbox" disabled checked> done') == 1


def test_table_cells_are_aligned_by_class_and_short_rows_are_filled():
    html = render("|a|b|\n|:-|-:|\n|1|\n|1|2|3|")
    assert '<td class="align-left">1</td><td class="align-right"></td>' in html
    assert html.count("<td") == 4 and "style" not in html


@pytest.mark.parametrize(
    "text",
    [
        "$5 and $10",
        "US$5 to US$6",
        "it is $5 (US$), not $6",
        "$HOME/$USER",
        "a $ b $ c",
        r"\$x$",
        "$5bn/US$6",
        "$5k–$10k",
        "$5m (or AU$)",
        "$5 and up, say US$.",
        "5 $ + 3 $ = 8 $",
        "5 $ x 3 = 15 $",
        "$ = $ or $ a = b and c $",
    ],
)
def test_money_is_not_math(text):
    assert "<math" not in render(text)


@pytest.mark.parametrize(
    "text",
    [
        "$x^2$",
        r"\(x\)",
        "$$x$$",
        r"\[x\]",
        "$$\nx\n$$",
        "\\[\nx\n\\]",
        "- $$x$$",
        "> $x$",
        "$2x + 1 = 3$",
        "$4ac$",
        "$2xy$",
        "$12ab^2$",
        "$3ab + 2cd = 0$",
        "$2ab - cd$",
        r"$25 \text{ km}$",
        r"$3 \mathrm{~cm}$",
        "$10^{-3}$",
        r"$ \frac{1}{2} $",
        r"so $ 5 \text{ km} $, then",
        "so $`x^2`$, then",
        "中文$`x`$，**$`5 dollars_y`$**",
        "```math\nx\n```",
        "- a\n  ```math\n  x\n\n  y\n  ```\n- b",
        "$ x = 5 $",
    ],
)
def test_math_becomes_mathml(text):
    assert "<math" in render(text) and "$" not in render(text)


@pytest.mark.parametrize(
    "text, html",
    [
        ("so $`x`$, then", f"<p>so {X}, then</p>"),
        ("**$`x`$** and `a` $`x`$s", f"<p><strong>{X}</strong> and <code>a</code> {X}s</p>"),
        ("| a |\n|---|\n| $`x`$ |", f"<td>{X}</td>"),
        ("`$`x`$`", "<p><code>$</code>x<code>$</code></p>"),
        ("$``x``$ of \\$`x`$", "<p>$<code>x</code>$ of $<code>x</code>$</p>"),
        ("```math\nx\n```\nso", f"{DISPLAYED_X}<p>so</p>"),
        ("> ~~~ math\n> x\n> ~~~\n>\n> so", f"<blockquote>{DISPLAYED_X}<p>so</p></blockquote>"),
        ("1. a\n   ```math\n   x\n\n   ```\n2. b", f"<p>a</p>{DISPLAYED_X}</li>"),
    ],
)
def test_math_in_code_is_math_as_github_has_it(text, html):
    assert html in render(text)
    assert_grown_alike(text)


def test_math_in_code_is_shown_as_it_is_typed():
    assert shown("so $`x^2 + y") == '<p>so <code class="math">x^2 + y</code></p>'
    assert shown("so $`x`") == '<p>so <code class="math">x</code></p>'
    assert shown("```math\nx^2\n\n+ y\n") == '<code class="math">x^2\n\n+ y\n</code>'


def test_a_fence_of_very_much_math_is_code():
    assert "<math" not in render("```math\n" + "x + " * 5000 + "x\n```")


ENVIRONMENTS = "equation displaymath gather gathered multline eqnarray align aligned flalign split cases dcases matrix pmatrix bmatrix Bmatrix vmatrix Vmatrix smallmatrix equation* align* gather* array".split()


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_environment_is_math_without_dollars_too(name):
    columns = "{cc}" if name == "array" else ""
    tab = "" if name.startswith(("equation", "displaymath")) else "&"
    latex = (
        f"\\begin{{{name}}}{columns}\na {tab}= b \\\\\n- c {tab}= d \\label{{e}}\n\\end{{{name}}}"
    )
    html = render(latex)
    assert html.startswith('<math display="block">') and html.endswith("</math>")
    visible = re.sub("<annotation.*?</annotation>", "", html, flags=re.S)
    assert not re.search(r"amp;|\\|>e<", visible)
    assert not tab or "<mtable" in html
    assert f"<p>So:</p>{html}<p>and" in render(f"So:\n{latex}\nand then")
    assert f"<blockquote>{html}" in render("> " + latex.replace("\n", "\n> "))
    assert f"<p>x</p>{html}" in render("- x\n\n  " + latex.replace("\n", "\n  "))
    inline = "so {} is".format(latex.replace("\n", " "))
    assert '<p>so <math display="inline">' in render(inline)
    for text in (latex, f"So:\n{latex}\nand then", inline):
        for cut in range(len(text)):
            growth = Growth()
            growth.feed(text[:cut])
            growth.feed(text[cut:] + "\n\nEnd.\n\n")
            assert growth.html == markup.render(text + "\n\nEnd.")


MORE = """<details>
<summary>More **of** it</summary>

A paragraph.

- one
- two

<details><summary>Inner</summary>x</details>

```html
<b>
```

</details>
"""


@pytest.mark.parametrize(
    "text, html",
    [
        ("a<br>b<br/>c<BR />d", "<p>a<br>\nb<br>\nc<br>\nd</p>"),
        (
            "H<sub>2</sub>O, x<sup>**2**</sup>",
            "<p>H<sub>2</sub>O, x<sup><strong>2</strong></sup></p>",
        ),
        (
            "**<kbd>Ctrl</kbd>+<kbd>C</kbd>**",
            "<p><strong><kbd>Ctrl</kbd>+<kbd>C</kbd></strong></p>",
        ),
        ("<mark>a</mark> <u>b *c*</u>", "<p><mark>a</mark> <u>b <em>c</em></u></p>"),
        ("<sub>a", "<p>&lt;sub&gt;a</p>"),
        (
            "a</sub> <b>c</b> <kbd class=x>",
            "<p>a&lt;/sub&gt; &lt;b&gt;c&lt;/b&gt; &lt;kbd class=x&gt;</p>",
        ),
        (
            "<SUB>2</SUB> <Kbd>x</Kbd>",
            "<p><sub>2</sub> <kbd>x</kbd></p>",
        ),
        (
            "<DETAILS>\n<Summary>a</SUMMARY>\n\nx\n\n<DETAILS>\n\n</DETAILS>\n</DETAILS>\ny",
            "<details><summary>a</summary><p>x</p><p>&lt;DETAILS&gt;</p><p>&lt;/DETAILS&gt;</p></details><p>y</p>",
        ),
        (
            "a\n<details>\n\n  <summary>b</summary>\n\nc\n\n</details>\nd",
            "<p>a</p><details><summary>b</summary><p>c</p></details><p>d</p>",
        ),
        (
            "<details>\n\n<summary>a\n\nb</summary>",
            "<p>&lt;details&gt;</p><p>&lt;summary&gt;a</p><p>b&lt;/summary&gt;</p>",
        ),
        ("<details>\n\nb", "<p>&lt;details&gt;</p><p>b</p>"),
        (
            "- a\n  <details>\n  <summary>b</summary>\n\n  - c\n\n  </details>\n\n  d\n- e",
            "<ul><li><p>a</p><details><summary>b</summary><ul><li><p>c</p></li></ul></details>"
            "<p>d</p></li><li><p>e</p></li></ul>",
        ),
        (
            "> a\n> <details>\n> <summary>b</summary>\n>\n> c\n>\n> </details>\n> d",
            "<blockquote><p>a</p><details><summary>b</summary><p>c</p></details><p>d</p></blockquote>",
        ),
        (
            "<details>\n<summary><b>a *b*</b> <EM>c</EM> <code>d</code> <b>e</summary>\n<b>f</b>\n</details>",
            "<details><summary><strong>a <em>b</em></strong> <em>c</em> <code>d</code> &lt;b&gt;e"
            "</summary><p>&lt;b&gt;f&lt;/b&gt;</p></details>",
        ),
        (
            "a\n<details>\n<summary>b</summary>\n\nc\n\n</details>\nd",
            "<p>a</p><details><summary>b</summary><p>c</p></details><p>d</p>",
        ),
        (
            "<details></details>\n<details>\n<summary>b</summary>\n\nc\n\n</details>\nd",
            "<p>&lt;details&gt;&lt;/details&gt;</p><details><summary>b</summary><p>c</p></details><p>d</p>",
        ),
        (
            "<details open>\n<summary>a</summary>\n\nb\n\n<Details OPEN><summary>c</summary>d</details>\n\n</details>\ne",
            "<details open><summary>a</summary><p>b</p><details open><summary>c</summary><p>d</p></details>"
            "</details><p>e</p>",
        ),
        (
            "a\n<details open>\n\n<summary>b</summary>\n\n> <details open>\n> <summary>c</summary>\n> d",
            "<p>a</p><details open><summary>b</summary><blockquote><details open><summary>c</summary>"
            "<p>d</p></details></blockquote></details>",
        ),
        (
            "<details  open>\n<summary>a</summary>\n\n<details open onclick=x>\n<summary>a</summary>",
            "<p>&lt;details  open&gt;<br>\n&lt;summary&gt;a&lt;/summary&gt;</p>"
            "<p>&lt;details open onclick=x&gt;<br>\n&lt;summary&gt;a&lt;/summary&gt;</p>",
        ),
        ("<details open> is a tag", "<p>&lt;details open&gt; is a tag</p>"),
        (
            "`<br>` and `<kbd>x</kbd>`",
            "<p><code>&lt;br&gt;</code> and <code>&lt;kbd&gt;x&lt;/kbd&gt;</code></p>",
        ),
        ("<details> is a tag", "<p>&lt;details&gt; is a tag</p>"),
        ("a\n<details>\n\nb", "<p>a<br>\n&lt;details&gt;</p><p>b</p>"),
        (
            "so\n<details><summary>a</summary>b</details>\nc",
            "<p>so</p><details><summary>a</summary><p>b</p></details><p>c</p>",
        ),
        (
            "<details>\n<summary>a</summary>\n\nnever closed",
            "<details><summary>a</summary><p>never closed</p></details>",
        ),
    ],
)
def test_harmless_html_is_read_as_markdown(text, html):
    assert render(text) == html
    for cut in range(len(text)):
        growth = Growth()
        growth.feed(text[:cut])
        growth.feed(text[cut:] + "\n\n")
        growth.feed("End.")
        assert growth.html == markup.render(text + "\n\nEnd.")


def test_a_cell_of_a_table_can_have_two_lines():
    assert "<td>one<br>\ntwo</td>" in render("| a |\n|---|\n| one<br>two |")
    assert "<td>one<br>\ntwo</td>" in shown("| a |\n|---|\n| one<br>two |\n| x")


@pytest.mark.parametrize("sizes", [1, 2, 5, 17, 1000, "a"])
def test_details_hold_blocks_and_other_details(sizes):
    html = render(MORE + "\nAfter.")
    assert html.startswith(
        "<details><summary>More <strong>of</strong> it</summary><p>A paragraph.</p><ul>"
    )
    assert "<details><summary>Inner</summary><p>x</p></details><div" in html
    assert html.endswith("</div></details><p>After.</p>")
    assert shown(MORE + "\nAfter.", sizes) == html
    for cut in range(len(MORE)):
        assert "details&gt;" not in shown(MORE[:cut], 1000) and "summary&gt;" not in shown(
            MORE[:cut], 1000
        )


@pytest.mark.parametrize(
    "code",
    [
        "```html\n</details>\n```",
        "~~~\n```\n<details>\n</details>\n~~~",
        "````md\n```html\n</details>\n```\n````",
        "```md\n```html\n</details>\n```\n</details>\n```",
        "- a\n\n  ```\n  </details>\n  ```",
    ],
)
def test_code_in_details_does_not_end_them(code):
    text = f"<details>\n<summary>a</summary>\n\n{code}\n\nin\n\n</details>\nafter"
    html = render(text)
    assert html.endswith("</div><p>in</p></details><p>after</p>") or "</li></ul><p>in</p>" in html
    for sizes in (1, 3, 1000):
        _, page, _ = grown(text + "\n\nEnd.", sizes)
        assert page.html == Page(markup.render(text + "\n\nEnd.")).html


def test_half_a_tag_is_neither_shown_nor_waited_for():
    assert shown("H<sub>2") == "<p>H<sub>2</sub></p>"
    assert shown("<details>\n<summary>Mo") == "<details><summary>Mo</summary></details>"
    assert shown("<details open>\n<summary>Mo") == "<details open><summary>Mo</summary></details>"
    for cut in range(len("<details open>")):
        assert shown("<details open>"[:cut]) == ""
    half = "<details>\n<summary><strong>A *b"
    strong = "<strong>A <em>b</em></strong>"
    assert shown(half) == f"<details><summary>{strong}</summary></details>"
    assert (
        shown("a <u>b c d e f g h i j k l m n o p")
        == "<p>a &lt;u&gt;b c d e f g h i j k l m n o p</p>"
    )
    assert [shown(f"a {half}") for half in ("<b", "<br", "<br/", "</su")] == ["<p>a</p>"] * 4


WITH_BLANK_LINES = [
    ("$$\n\na = b\n\n$$", 1),
    ("\\[\n\na = b\n\n\\]", 1),
    ("\\[ a = b,\n  \n\n c = d \\]\nthen", 1),
    ("\\begin{align}\na &= b \\\\\n\n\nc &= d\n\\end{align}", 1),
    ("So:\n$$\na\n\n+ \\text{if it is what we saw}\n$$\nthen", 1),
    ("$$ S = 5\n\n\\text{where } S \\text{ is the sum}\n$$", 1),
    ("$$\na\n\n+ \\text{if $x$}\n$$ \nthen", 1),
    ("$$\nx\n$$\n\n$$\n\ny\n\n$$", 2),
    ("- x\n\n  $$\n\n  a\n\n  $$\n- y", 1),
    ("1. x:\n$$\na\n\nb\n$$\n2. y", 1),
    ("- a\n  - b\n\\[\nx\n\ny\n\\]\n- c", 1),
    ("> $$\n>\n> a\n>\n> $$", 1),
    ("> b\n>\n> \\[\n>\n> a\n>\n> \\]\n>\n> d", 1),
    ("> a\n$$\n\nb\n\n$$\n> c", 1),
    ("<details>\n<summary>a</summary>\n\n$$\n\na\n\n$$\n\n</details>\nb", 1),
]
NEVER_CLOSED = [
    "$$\n\n- a\n\n- b\n\n$x",
    "$$\n- a\n\n- b",
    "$$\n\n- a\n- b\n\n$$ c\n- d",
    "\\[\n\n1. a\n\n\\[\n\n2. b",
    "\\begin{align}\n\n- a\n\n\\begin{align}\n\nb",
    "$$\n\n$$\n\n$$\n\nSushi\n\n$$\n\nPizza for two",
    "$$\n\n- **Sushi**\n- Ramen\n\n$$\n\n1. Pizza\n\n$$",
    "$$\n\n# Sushi\n\n$$\n\n| a | b |\n|---|---|\n| c | d |",
    "$$\n\n这家餐厅的价格很高。\n\n$$",
    "\\[\n\nДорогие рестораны города\n\n\\]",
    "$$\n\nx\n\n- abcdefg\n" + "x = y\n" * 1500 + "\n$$",
]


@pytest.mark.parametrize("text, formulas", WITH_BLANK_LINES)
def test_display_math_may_hold_blank_lines(text, formulas):
    assert render(text).count("<math") == formulas and "$$" not in render(text)
    assert_grown_alike(text)
    for cut in range(len(text) + 1) if "$x$" not in text else ():
        assert not re.search(r"\$\$|<p>\[|<p>\\", shown(text[:cut], 2))


@pytest.mark.parametrize("text", NEVER_CLOSED)
def test_display_math_that_is_never_closed_takes_no_other_block(text):
    assert "<math" not in render(text)
    assert_grown_alike(text)


@pytest.mark.parametrize(
    "text", ["$$x$$ is what\nit is", "- a\n\n$$y$$ is\n- b\n\n\\[z\\], too\nso"]
)
def test_display_math_in_a_sentence_is_a_part_of_it(text):
    assert_grown_alike(text)


def assert_grown_alike(text, after="\n\nSo it is and so it ends.\n\n# End\n\nEnd."):
    """Check that a text is the same grown, whatever it was cut at, as whole."""
    html = markup.render(text + after)
    for cut in range(0, len(text), 1 + len(text) // 300 * 20):
        growth, page = Growth(), Page()
        for piece in (text[:cut], text[cut:], after):
            page.apply(growth.feed(piece))
        assert growth.html == html
        assert page.html == Page(html).html
    if len(text) < 1000:
        assert grown(text + after, 1)[0].html == html


def test_an_environment_is_shown_as_code_until_it_ends():
    assert shown("So:\n\\begin{align}\na &= b \\\\\n- c", 2).startswith(
        '<p>So:</p><code class="math">\\begin{align}\na &amp;= b \\\\\n- c'
    )


@pytest.mark.parametrize(
    "text", [r"\begin{itemize}", r"\begin{foo}a\end{foo}", r"\begin{align}a\end{gather}"]
)
def test_what_is_no_math_is_not_taken_for_it(text):
    assert "<math" not in render(text) and "<math" not in shown(text)


def test_a_formula_carries_its_latex():
    annotation = '<annotation encoding="application/x-tex">x &lt; y</annotation></semantics></math>'
    assert annotation in render("$x < y$")


@pytest.mark.parametrize("text", [r"\[ a \[ b \]", r"\( a \( b \)"])
def test_math_begins_at_the_last_sign_that_opens_it(text):
    assert render(text).count("<mi>") == 1 and render(text).count("<math") == 1


def test_math_symbols_are_characters():
    assert ">∫<" in render(r"$\int x$") and ">lim\u2006sup<" in render(r"$\limsup x$")


def test_bad_latex_is_shown_as_it_was_written():
    assert r'<code class="math">\left(&lt;</code>' in render(r"$\left(<$")


@pytest.mark.parametrize(
    "latex", [r"x + \foo{y}", r"\frac{\foo}{2}", r"\SI{5}{\foo}", r"\ce{\foo{A}}"]
)
def test_commands_that_are_not_known_are_shown_as_they_were_written(latex):
    assert render(f"${latex}$") == f'<p><code class="math">{latex}</code></p>'


@pytest.mark.parametrize(
    "latex, seen",
    [
        (r"\arg\max", "argmax"),
        (r"\argmin_x", "argminx"),
        (r"\operatorname*{arg\,min}_x f", "arg\u2006minxf"),
        (r"\operatorname{rank} A", "rankA"),
        (r"x \in \R", "x∈ℝ"),
        (r"\begin{aligned} a &= b \\[4pt] c &= d \\ [1.5 ex] e &= f \end{aligned}", "a=bc=de=f"),
        (r"\begin{cases} a \\*[1ex] [b] \end{cases}", "{a[b]"),
        (r"\begin{array}{c} a \\[-0.5em] b \end{array}", "ab"),
        (r"\text{50\%} = \text{user\_id\&\#1}", "50%=user_id&amp;#1"),
        (r"\text{if $x>0$ or $y$} z", "if\u00a0x&gt;0\u00a0or\u00a0yz"),
        (r"\text{\$5 is $x$}", "$5\u00a0is\u00a0x"),
        (r"\abs{x} \norm{x_{1}}", "|x|‖x1‖"),
        (r"\ce{2H2 + O2 -> 2H2O}", "2H2+O2→2H2O"),
        (r"\ce{Fe^3+ + SO4^{2-} <=> Ca(OH)2}", "Fe3++SO42−⇌Ca(OH)2"),
        (r"\ce{CuSO4.5H2O ->[heat] Na+ + Cl-}", "CuSO4·5H2O→heatNa++Cl−"),
        (r"\SI{5}{m/s} = \qty{1.5e-3}{\kilo\meter\per\second\squared}", "5m/s=1.5×10−3km/s2"),
        (
            r"\num{6.02e23}\,\si{mol^{-1}}, \unit{\degreeCelsius} \SI{5}{\percent}",
            "6.02×1023mol−1,°C5%",
        ),
    ],
)
def test_commands_that_models_take_for_granted_are_known(latex, seen):
    assert visible(f"$${latex}$$") == seen
    assert visible(f"\\[{latex}\\]") == seen


def visible(text):
    """Return what can be seen of a formula."""
    return re.sub("<annotation.*?</annotation>|<[^>]*>", "", render(text), flags=re.S)


def test_a_number_after_an_element_is_a_subscript():
    subscript = '<msub><mi mathvariant="normal">H</mi><mrow><mn>2</mn></mrow></msub>'
    assert subscript in render(r"$\ce{2H2O}$")


@pytest.mark.parametrize(
    "macro", [r"\def\a{\b\b}", r"\newcommand{\a}{\b\b}", r"\DeclareMathOperator{\a}{b}"]
)
def test_latex_macros_are_not_run(macro):
    assert "<math" not in render(f"${macro}$")


def test_code_that_takes_long_to_colour_stays_plain(monkeypatch):
    monkeypatch.setattr(code_blocks, "PATIENCE", -1)
    assert '<code class="language-python">slow = "&lt;"\n</code>' in render(
        '```python\nslow = "<"\n```'
    )


def test_code_is_coloured_by_class_and_can_be_copied():
    html = render("```python\nif x:\n```")
    assert '<code class="language-python"><span class="k">if</span>' in html
    assert '<span>python</span><button type="button" class="code__copy">Copy</button>' in html


def test_code_in_an_unknown_language_is_plain_and_its_name_is_escaped():
    assert '<code class="language-&quot;&gt;&lt;b&gt;">x &lt; y\n</code>' in render(
        '```"><b>\nx < y\n```'
    )


@pytest.mark.parametrize(
    "cell, html",
    [
        (r"`x \| y`", "<code>x | y</code>"),
        (r"``a ` \|``", "<code>a ` |</code>"),
        (r"x \| y", "x | y"),
        (r"`\d` \`a\|b\`", r"<code>\d</code> `a|b`"),
    ],
)
def test_a_bar_in_a_cell_loses_its_backslash(cell, html):
    for whole in (render, shown):
        assert f"<td>{html}</td><td>z</td>" in whole(f"| a | b |\n|---|---|\n| {cell} | z |\n")


@pytest.mark.parametrize(
    "info, language, name",
    [
        ("python", "python", "python"),
        ("python:src/app.py", "python", "src/app.py"),
        ("{.python}", "python", "python"),
        ("{ .python .numberLines }", "python", "python"),
        ("python{1,3-4}", "python", "python"),
        ('python title="my app.py"', "python", "my app.py"),
        ("python {1} filename=app.py", "python", "app.py"),
        ("c++", "c++", "c++"),
        ("python:<b>.py", "python", "&lt;b&gt;.py"),
        ("", "text", "text"),
        ("{}", "text", "text"),
    ],
)
def test_a_fence_says_language_and_file_in_many_ways(info, language, name):
    for html in (render(f"```{info}\nif x:\n```"), shown(f"```{info}\nif x:\n```\n\nEnd.")):
        assert f"<span>{name}</span>" in html and f'class="language-{language}"' in html
        assert ('<span class="k">if</span>' in html) == (language != "text")


@pytest.mark.parametrize(
    "text",
    [
        "1. ~~~python\n   x = 1\n   ~~~\n2. Second **bold** item",
        "- ~~~x",
        "- > ~~~x\n  > y",
        "> ~~~py\n>",
        "> ~~~py\n> x\n>\n> y",
        "> ```py\n>",
        "<details><summary></summary>~~~u",
        "- ```x title=y",
    ],
)
def test_no_caret_is_shown_where_a_fence_begins_on_the_line_of_something_else(text):
    growth, page = Growth(), Page()
    for letter in text + "\n\nEnd.":
        page.apply(growth.feed(letter))
        assert page.html == Page(growth.html).html
        assert CARET not in growth.html and "~~~" not in page.html
    assert growth.html == markup.render(text + "\n\nEnd.")


@pytest.mark.parametrize(
    "code, after",
    [
        ("1. ```bash\n   npm install\n   ", "```\n2. Then **bold** and `code` and more"),
        ("- ~~~\n  x\n  ", "~~~\n\n  Then **bold** and `code` and more"),
        ("- a\n  - ```py\n    if x:\n      y", "\n  - Then **bold** and `code` and more"),
        ("1. - ```py\n     if x:\n       y", "\n   - Then **bold** and `code` and more"),
        ("- ```py\nx = 1\n", "  ```\n- Then **bold** and `code` and more"),
        ("- a\n  ```py\nx = 1\n", "  ```\n- Then **bold** and `code` and more"),
        ("- ```py\n  x\n\n", "Then **bold** and `code` and more"),
        ("-   ```py\n    x\n", "    ```\n- Then **bold** and `code` and more"),
        ("- ```md\n  ```py\n  x\n  ```\n\n  y", "\n  ```\n- Then **bold** and `code` and more"),
    ],
)
def test_code_that_begins_on_the_line_of_an_item_ends_where_its_fence_does(code, after):
    assert undirected(re.sub("</(?:li|ul|ol)>", "", shown(code))).endswith("</code></pre></div>")
    for cut in range(len(code) + 1):
        growth = Growth()
        growth.feed(code[:cut])
        for letter in code[cut:] + after:
            growth.feed(letter)
        assert growth.html == markup.render(code + after)


DEFINED = '[a]: http://b.c "title"\n[Long one]:\n  http://d.e\n\nSee [it][a], [a] and\n\n- [long ONE]\n\n| [a] |\n|---|\n| [a] |\n'


@pytest.mark.parametrize("sizes", [1, 3, 10, 1000, "a"])
def test_links_by_reference_are_links_once_they_are_defined(sizes):
    html = render(DEFINED + "\nEnd.")
    assert (
        re.findall('href="(.*?)"', html) == ["http://b.c"] * 2 + ["http://d.e"] + ["http://b.c"] * 2
    )
    assert shown(DEFINED + "\nEnd.", sizes) == html
    assert shown(DEFINED[: DEFINED.index(" and")], sizes).endswith(
        'href="http://b.c" title="title" rel="noopener noreferrer nofollow" target="_blank">it</a>,</p>'
    )


@pytest.mark.parametrize("sizes", [1, 3, 1000])
@pytest.mark.parametrize(
    "text, html",
    [
        ("a[^1]\n\n[^1]: note", "<p>a[^1]</p><p>[^1]: note</p>"),
        ("[^1]: http://a.b\n[^n]: *c*", "<p>[^1]: {}<br>\n[^n]: <em>c</em></p>"),
        ("> a[^1]\n>\n> [^1]: b", "<blockquote><p>a[^1]</p><p>[^1]: b</p></blockquote>"),
        ("- [^1]\n\n  [^1]: b", "<ul><li><p>[^1]</p><p>[^1]: b</p></li></ul>"),
    ],
)
def test_footnotes_are_shown_as_they_are_written(text, html, sizes):
    assert render(text) == html.format(link("http://a.b"))
    _, page, _ = grown(text + "\n\nEnd.", sizes)
    assert page.html == Page(markup.render(text + "\n\nEnd.")).html


def test_half_a_definition_is_neither_shown_nor_kept():
    growth = Growth()
    for cut in range(len(DEFINED[:24])):
        growth.feed(DEFINED[cut])
        assert growth.html == ""
    growth.feed(DEFINED[24:])
    assert 'href="http://b.c"' in growth.html


BLANKS = "\u3000 \u00a0 \u2003 \u2028 \x85".split(" ")
AFTER_BLANKS = [
    "| 项目 | 值 |\n|---|---|\n| a | b |",
    "- a\n- b",
    "```py\nx = 1\n\ny = 2\n```",
    "1. a\n\n\N{IDEOGRAPHIC SPACE}\n2. b",
    "> a\n>\n> b",
    "# a",
    "    code\n{}\n\n    code",
    "a\n{}\nb\n\n{}c",
]


@pytest.mark.parametrize("blank", [*BLANKS, "\x0c", "\x0b"])
@pytest.mark.parametrize("text", AFTER_BLANKS)
def test_a_line_of_other_blanks_is_text_in_a_growing_message_too(blank, text):
    text = f"{blank}\n{text.replace('{}', blank)}\n\nEnd."
    for cut in range(len(text)):
        growth, page = Growth(), Page()
        for piece in (text[:cut], text[cut:]):
            page.apply(growth.feed(piece))
        assert growth.html == markup.render(text)
        assert page.html == Page(growth.html).html
    assert shown(text) == render(text)


def test_a_newline_is_a_line_break():
    poem = "Roses are red,\nviolets are blue,\n\n- sugar\n  is sweet\n\n> and\n> so"
    html = render(poem)
    assert html.startswith("<p>Roses are red,<br>\nviolets are blue,</p>")
    assert "<li><p>sugar<br>\nis sweet</p></li>" in html and "<p>and<br>\nso</p>" in html
    assert shown(poem) == html


@pytest.mark.parametrize("fence", ["```", "````", "~~~"])
@pytest.mark.parametrize("lead, indent", [("", ""), ("- x\n\n", "  ")])
def test_markdown_that_holds_a_fence_is_quoted_whole(fence, lead, indent):
    code = f"# Title\n\n{fence}python\nx\n{fence}\n\nMore.\n"
    text = (
        lead
        + indent_all(f"{fence}markdown\n{code}{fence}\n", indent)
        + "\nAfter.\n\n```js\ny\n```\n"
    )
    html = render(text + "\nEnd.")
    assert re.sub("<[^>]*>", "", re.search("<pre>(.*?)</pre>", html, re.S)[1]) == code
    assert html.count("<pre>") == 2 and "<p>After.</p>" in html
    for cut in range(len(text)):
        growth = Growth()
        growth.feed(text[:cut])
        growth.feed(text[cut:] + "\nEnd.")
        assert growth.html == markup.render(text + "\nEnd.")
    assert "<p>More" not in shown(text[: text.index("More") + 4])


def test_a_fence_in_markdown_that_comes_alone_ends_it():
    assert render("```markdown\n```python\nx\n```\nText.").endswith("</div><p>Text.</p>")
    assert render("```text\n```python\nx\n```\nText.\n```\n").count("<pre>") == 2


def test_code_that_would_take_pygments_seconds_stays_plain():
    assert "<span" not in render("```ts\n" + "a." * 5000 + "\n```").partition("<pre>")[2]


def test_bare_addresses_become_links_without_the_full_stop():
    html = render("See https://a.b/c_(d). Or www.e.fg, **https://h.ij**!")
    assert re.findall('href="(.*?)"', html) == [
        "https://a.b/c_(d)",
        "https://www.e.fg",
        "https://h.ij",
    ]


@pytest.mark.parametrize(
    "url",
    [
        "https://hi.wikipedia.org/wiki/हिन्दी",
        "https://bn.wikipedia.org/wiki/বাংলা",
        "https://ta.wikipedia.org/wiki/தமிழ்",
        "https://ar.wikipedia.org/wiki/مُحَمَّد",
        "https://fa.wikipedia.org/wiki/می\u200cخواهم",
        "https://he.wikipedia.org/wiki/שָׁלוֹם",
        "https://fr.wikipedia.org/wiki/cafe\u0301",
        "http://例え.jp/a",
        "https://www.例え.例子.中国/",
        "http://ที่.ไทย",
        "HTTPS://EXAMPLE.COM/A",
        "Http://example.com",
        "http://[::1]:8080/x",
        "http://[2001:db8::1]",
    ],
)
@pytest.mark.parametrize("text", ["See {} and", "({}).", "[{}]", "**{}**, then", "- {}\n- x"])
def test_addresses_in_any_script_are_whole_links(url, text):
    html = markup.render(text.format(url))
    assert re.findall("<a href=.*?>(.*?)</a>", html) == [url]
    for cut in range(len(text.format(url))):
        growth = Growth()
        growth.feed(text.format(url)[:cut])
        growth.feed(text.format(url)[cut:] + "\n\nEnd.")
        assert growth.html == markup.render(text.format(url) + "\n\nEnd.")


@pytest.mark.parametrize(
    "text",
    ["😀\ufe0fhttps://e.f", "1\ufe0f\u20e3https://e.f", "https://e.f好", "https://e.f，好.x"],
)
def test_addresses_begin_after_emoji_and_end_before_unspaced_text(text):
    assert re.findall("<a href=.*?>(.*?)</a>", render(text)) == ["https://e.f"]


def test_a_bracketed_host_keeps_its_brackets():
    for text in ("http://[::1]:80/x", "[a](http://[::1]:80/x)", "<http://[::1]:80/x>"):
        assert 'href="http://[::1]:80/x"' in render(text)


def link(url):
    return f'<a href="{url}" rel="noopener noreferrer nofollow" target="_blank">{url}</a>'


@pytest.mark.parametrize(
    "text, html",
    [
        ("**重点。**然后", "<strong>重点。</strong>然后"),
        ("他说**「你好」**然后", "他说<strong>「你好」</strong>然后"),
        ("他说**“你好”**然后", "他说<strong>“你好”</strong>然后"),
        ("**Note:**然后", "<strong>Note:</strong>然后"),
        ("価格は**1,000円（税込）**です", "価格は<strong>1,000円（税込）</strong>です"),
        ('**"강조"**는 것', '<strong>"강조"</strong>는 것'),
        ("**ที่**ต่อ", "<strong>ที่</strong>ต่อ"),
        ('**"คำพูด"**ต่อ', '<strong>"คำพูด"</strong>ต่อ'),
        ("**हिन्दी**में", "<strong>हिन्दी</strong>में"),
        ("~~删除。~~然后==标记。==", "<del>删除。</del>然后<mark>标记。</mark>"),
        ("设$x$为实数", f"设{X}为实数"),
        ("変数$x$は、$x$、です", f"変数{X}は、{X}、です"),
        ("ให้$x$เป็นจำนวน", f"ให้{X}เป็นจำนวน"),
        ("价格从$5到$6，共$5万，合$3万。", "价格从$5到$6，共$5万，合$3万。"),
        ("见 https://e.f/a，详见下文", f"见 {link('https://e.f/a')}，详见下文"),
        ("中文https://e.f/a。好", f"中文{link('https://e.f/a')}。好"),
        (
            "（https://e.f/(a)）「https://e.f/b」",
            f"（{link('https://e.f/(a)')}）「{link('https://e.f/b')}」",
        ),
        (
            "“https://e.f/a” «https://e.f/b»…",
            f"“{link('https://e.f/a')}” «{link('https://e.f/b')}»…",
        ),
        ("ดูที่https://e.f/aแล้ว", f"ดูที่{link('https://e.f/a')}แล้ว"),
    ],
)
def test_scripts_without_spaces_need_none(text, html):
    shown_alike(text, html)


@pytest.mark.parametrize(
    "text, html",
    [
        ("the $x$th of the $x$s, $x$C", f"the {X}th of the {X}s, {X}C"),
        ("**the $x$th** or ($x$st)", f"<strong>the {X}th</strong> or ({X}st)"),
        (
            "_$x$_ and **_$x$_**, __$x$__ a",
            f"<em>{X}</em> and <strong><em>{X}</em></strong>, <strong>{X}</strong> a",
        ),
        ("*$x$* ~~$x$~~ a", f"<em>{X}</em> <del>{X}</del> a"),
        ("the a_$b$ and $x$_1 or $x$__init", "the a_$b$ and $x$_1 or $x$__init"),
        ("و$x$ ו$x$, ה$x$ים", f"و{X} ו{X}, ה{X}ים"),
        ("من$5 إلى$6، و$٥ إلى$٦", "من$5 إلى$6، و$٥ إلى$٦"),
        ("$HOME/$USER or $a.$b $this and that", "$HOME/$USER or $a.$b $this and that"),
        ("from $5.$s to $x and $then go on", "from $5.$s to $x and $then go on"),
    ],
)
def test_a_formula_can_be_the_beginning_of_a_word(text, html):
    shown_alike(text, html)


def test_a_formula_is_one_while_the_end_of_its_word_is_typed():
    for end in ("t", "th", "th ", "s", "C"):
        assert shown(f"the $x${end}") == f"<p>the {X}{end.strip()}</p>"


def shown_alike(text, html):
    """Check what is shown of a paragraph, whole and as it grows."""
    assert render(text) == f"<p>{html}</p>"
    for cut in range(len(text)):
        growth = Growth()
        growth.feed(text[:cut])
        growth.feed(text[cut:] + "\n\n")
        assert growth.html == markup.render(text)


@pytest.mark.parametrize(
    "text", ["x==1 is a test and y==2 too", "if(a==b||c[0]==d[1])", "版本==1.0 和 版本==2.0"]
)
def test_a_comparison_is_no_mark(text):
    assert render(text) == f"<p>{text}</p>"


def test_bold_ends_where_it_ends_while_it_streams():
    assert shown("他说**「你好」**然后") == "<p>他说<strong>「你好」</strong>然后</p>"


def test_links_open_outside_and_tell_nothing():
    assert 'href="http://a.b" rel="noopener noreferrer nofollow" target="_blank">x</a>' in render(
        "[x](http://a.b)"
    )


def test_images_are_links_and_load_nothing():
    assert render("![chart](http://a.b/c.png)").endswith(">chart</a></p>")
    assert render("[![i](http://a.b)](http://c.d)").count("<a ") == 1


@pytest.mark.parametrize(
    "text, blocks",
    [
        ("שלום\n\nhello", "p p"),
        ("# שלום\n\n###### שלום\n\nשלום\n---", "h1 h6 h2"),
        ("- שלום\n- hello\n\n  more\n  1. hello\n- [ ] שלום", "li li li li"),
        ("> مرحبا\n>\n> hello\n\nx", "blockquote p"),
        ("> - مرحبا\n>\n>   hello", "blockquote li"),
        ("| مرحبا | b |\n|---|---|\n| 1 | 2 |", "table"),
        ("```\nשלום\n```\n\n    שלום\n\n$$x$$\n\n---", ""),
    ],
)
def test_every_block_of_prose_is_written_in_its_own_direction(text, blocks):
    text += "\n\nEnd."
    for html in (markup.render(text), grown(text, 1)[0].html):
        directed = re.findall(r'<(\w+)[^>]* dir="auto"', html)
        assert directed == [*blocks.split(), "p"]


def test_large_numbers_of_a_list_have_room():
    assert [re.match("<ol.*?>", render(f"{n}. a"))[0] for n in (1, 7, 49, 50, 950)] == [
        "<ol>",
        '<ol class="digits-2" start="7">',
        '<ol class="digits-2" start="49">',
        '<ol class="digits-3" start="50">',
        '<ol class="digits-4" start="950">',
    ]


ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    '<hx-partial hx-target="body">x</hx-partial>',
    '<div id="messages" hx-swap-oob="true">x</div>',
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java\nscript:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](<javascript:alert(1)>)",
    "[x](data:text/html,<script>alert(1)</script>)",
    "[x](vbscript:alert(1))",
    "[x](//evil.example)",
    "![x](data:image/svg+xml,<svg onload=alert(1)>)",
    "![x](javascript:alert(1))",
    '[x](http://a.b "\\" onmouseover=alert(1) x=\\"")',
    '[x](http://a.b" onmouseover=alert(1))',
    '!["onload="alert(1)](http://a.b)',
    "<javascript:alert(1)>",
    "[x]\n\n[x]: javascript:alert(1)",
    '```" onload="alert(1)\nx\n```',
    "```<script>\nx\n```",
    "```\n</code></pre><script>alert(1)</script>\n```",
    "```html\n<script>alert(1)</script>\n```",
    r"$\text{<script>alert(1)</script>}$",
    r"$\text{&lt;script&gt;alert(1)&lt;/script&gt;}$",
    r"$\href{javascript:alert(1)}{x}$",
    r"$\style{background:url(http://evil)}{x}$",
    r"$\class{x\" onload=\"alert(1)}{y}$",
    r"$\bad{</code><script>alert(1)</script>$",
    "$$<img src=x onerror=alert(1)>$$",
    "|<script>|b|\n|-|-|\n|<img src=x>|c|",
    "# <script>alert(1)</script>",
    "- <script>alert(1)</script>",
    "> <iframe src=http://evil>",
    "**<b onclick=alert(1)>**",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "`<script>`",
    'http://a.b/"onmouseover="alert(1)',
    "http://a.b/<script>",
    "[x](about:half)",
    "<kbd onclick=alert(1)>x</kbd>",
    "<sub style='position:fixed'>x</sub>",
    "<u/onmouseover=alert(1)>x</u>",
    "<br onload=alert(1)>",
    "<details open ontoggle=alert(1)>\n<summary>x</summary>\n</details>",
    "<details><summary><img src=x onerror=alert(1)></summary>\n<script>alert(1)</script>\n</details>",
    "<mark><script>alert(1)</script></mark>",
]
ELEMENTS = set(
    "html head body div p h1 h2 h3 h4 h5 h6 br hr blockquote ul ol li input pre code span button a em strong del mark"
    " table thead tbody tr th td math semantics annotation sub sup kbd mark u details summary".split()
)
ATTRIBUTES = {
    "class",
    "href",
    "title",
    "rel",
    "target",
    "type",
    "disabled",
    "checked",
    "start",
    "display",
    "encoding",
    "dir",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_attack_gets_an_element_attribute_or_address_through(attack):
    for html in (render(attack), shown(attack), shown(attack + "\n\nend", 7)):
        for element in Page(html).body.getElementsByTagName("*"):
            assert element.tagName in ELEMENTS or element.tagName.startswith("m")
            names = set(element.attributes.keys())
            assert (
                names <= ATTRIBUTES or element.tagName.startswith("m") and names <= MATH_ATTRIBUTES
            )
            assert re.match("https?://|mailto:|$", element.getAttribute("href"))


HOSTILE = [
    "[",
    "*",
    ">",
    "`",
    "_",
    "~~",
    "$",
    r"\(",
    "![",
    "<",
    "&",
    "- ",
    "1. ",
    "> - ",
    "**a ",
    "[a](",
    "|",
    "\n",
    "  \n",
    "# ",
    "\\",
    "==",
    "http://",
    "](",
    "`` ` ",
    "*a_",
    "$$ ",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_repetition_neither_crashes_nor_hangs(hostile):
    text = hostile * (20_000 // len(hostile))
    assert render(text) is not None


@pytest.mark.parametrize(
    "turns",
    ["1. Question\n> Answer\n", "- \n> answer\n", "1. \n> a\n", "> a\n- \n", "- a\n> b\n# c\n"],
)
def test_lists_and_quotes_take_turns_as_long_as_they_like(turns):
    text = turns * 400
    html = markup.render(text + "\n\nEnd.")
    assert html.count("<blockquote") == 400 and "&gt;" not in html
    assert grown(text + "\n\nEnd.", 100)[0].html == html


def test_deep_nesting_does_not_crash():
    assert "deep" in render(">" * 500 + " deep")
    assert "deep" in render("".join("  " * depth + "- deep\n" for depth in range(500)))


# --- Growing messages

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
    assert page.html == Page(growth.html).html == Page(markup.render(CHAT + "\nLast.")).html


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


def test_open_code_is_shown_line_by_line_and_coloured_when_it_closes():
    assert shown("```python\nif x:\n    p").endswith(">if x:\n    p</code></pre></div>")
    assert '<span class="k">if</span>' in shown("```python\nif x:\n    p\n```\n")


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
    assert growth.feed("") == [] and undirected(growth.html) == "<p>a</p>"


# --- The cost of growing: linear, counted and not timed

PROSE = "The **quick** brown fox `jumps` over the lazy dog, and then plain words follow for quite a while. "
CODE = "def function(argument, other=1):\n    return argument + other * 2  # why\n\n"
LONG = {
    "prose": lambda size: (PROSE * 4 + "\n\n") * (size // 400),
    "code": lambda size: "```python\n" + CODE * (size // 75) + "```\n",
    "code in a list": lambda size: (
        "1. Do:\n\n   ```python\n"
        + ("   " + CODE.replace("\n", "\n   ")) * (size // 80)
        + "\n   ```\n\n   So *it* is.\n"
    ),
    "table": lambda size: (
        "| Name | Value |\n|---|--:|\n" + "| some **bold** name | 12345 |\n" * (size // 30)
    ),
    "list": lambda size: "- **Lead in**: then the text of the item with `code`.\n" * (size // 54),
    "nested list": lambda size: (
        "- Top item\n  - nested **one** here\n    - deeper\n  - nested two\n" * (size // 62)
    ),
    "one item": lambda size: (
        "- Top item\n" + "  - nested **one** here\n    - deeper\n" * (size // 38)
    ),
    "giant paragraph": lambda size: PROSE * (size // 97),
    "markup everywhere": lambda size: (
        "**a b** c `d` *e* [f](http://g.hi) ~~j~~ $k$ https://l.mn " * (size // 58)
    ),
    "lines": lambda size: "a short line of text\n" * (size // 21),
    "bare json": lambda size: (
        '{"items": [\n' + '  {"name_of": "thing", "list": [1, 2, 3], "x": "y_z"},\n' * (size // 56)
    ),
    "quote": lambda size: ("> " + PROSE + "\n>\n") * (size // 102),
    "quoted lines": lambda size: "> a line with **bold** text\n" * (size // 28),
    "never closed": lambda size: "*" + "word and more " * (size // 14),
}


def cost(text, monkeypatch):
    """Return the bytes of all patches and the characters that were rendered, both per byte or character of the whole."""
    rendered = []
    with monkeypatch.context() as patch:
        parser = dialect.parser
        patch.setattr(
            dialect, "parser", lambda source: rendered.append(len(source)) or parser(source)
        )
        growth = Growth()
        sent = sum(
            len(patch.html.encode()) for piece in pieces(text, 10) for patch in growth.feed(piece)
        )
    return sent / max(len(render(text).encode()), 1), sum(rendered) / len(text)


@pytest.mark.parametrize("case", LONG)
def test_no_more_than_twice_the_final_html_is_sent(case, monkeypatch):
    assert cost(LONG[case](10_000), monkeypatch)[0] < 2


@pytest.mark.parametrize("case", LONG)
def test_twice_the_text_costs_twice_the_rendering(case, monkeypatch):
    short, long = (cost(LONG[case](size), monkeypatch)[1] for size in (8_000, 16_000))
    assert long < short * 1.3 and long < 40


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_repetition_costs_no_more_as_it_grows(hostile, monkeypatch):
    short, long = (
        cost(hostile * (size // len(hostile)), monkeypatch)[1] for size in (3_000, 6_000)
    )
    assert long < max(short * 1.4, 5)


GRAMMAR = [
    *" \t\n\u00a0\u3000*_~=`#>|:+-.!\"'()[]<&$\\{}1aé中",
    *[
        "- ",
        "* ",
        "1. ",
        "> ",
        "> \n",
        "-\n",
        "|-",
        "](",
        "[](",
        "[a](",
        "**a ",
        "$a ",
        "|a",
        "a\n",
    ],
    *[
        "x_ *",
        "http://a",
        "www.",
        "://",
        "\\[",
        "\\(",
        "$$",
        "&a",
        "<a",
        "<kbd>",
        "</u>",
        "<details><summary>a</summary>\n",
        "> <details><summary>a</summary>\n",
        "- <details><summary>a</summary>\n",
        "</details>\n",
        "```md\n```a\n```\n",
        "\\begin{align}",
        "$$\n",
        "$$\n\nx\n\n",
        "\\[\n\n",
        "\\begin{align}\n\nx",
        "`a ``",
        "a|\n",
        "[a]: b\n",
    ],
]
NESTINGS = [
    "",
    "a ",
    "> ",
    "- ",
    "1. - ",
    "> - a\n  > ",
    "# ",
    "| a | b |\n|---|---|\n| ",
    "```\n",
    "- ```\n  ",
]


@contextmanager
def at_most(seconds):
    """Raise `TimeoutError` once this process has used so much CPU."""

    def end(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def grow_all(run):
    """Feed a run of `run` at every nesting, followed by text, and render it; return the bytes sent."""
    sent = 0
    for nesting in NESTINGS:
        text, end = nesting + run * (10_000 // len(run)), "a word\n\nThe end."
        growth = Growth()
        for piece in (*pieces(text, 200), *end):
            sent += sum(len(patch.html) for patch in growth.feed(piece))
        render(text + end)
    return sent


@pytest.fixture(scope="module")
def usual():
    """The CPU and the bytes that ordinary text of that length takes."""
    began = time.process_time()
    sent = grow_all("A **bold** word, `code` and a [link](http://a.b), then more words.\n")
    return time.process_time() - began, sent


@pytest.mark.parametrize("run", GRAMMAR)
def test_a_run_of_anything_costs_about_what_ordinary_text_does(run, usual):
    seconds, sent = usual
    with at_most(10 * seconds):
        assert grow_all(run) < 10 * sent


@pytest.mark.parametrize(
    "opening, closing",
    [
        ("**a ", "b*** "),
        ("***a ", "b** "),
        ("a **b ", "c*** "),
        ("中 **", "***-"),
        ("*a **b ", "c**"),
    ],
)
def test_marks_of_other_lengths_cost_no_more_in_a_long_text(opening, closing):
    text = opening * 6_000 + closing * 6_000
    began = time.process_time()
    render("**a** *b* " * (len(text) // 10))
    with at_most(5 * (time.process_time() - began)):
        render(text)


def test_many_quotes_cost_no_more_each_than_a_few():
    seconds = []
    for size in (4_000, 32_000):
        began = time.process_time()
        with at_most(10):
            render("\n>\n" * size)
        seconds.append(time.process_time() - began)
    assert seconds[1] < 20 * seconds[0]


def test_emphasis_that_never_ends_costs_no_more_in_a_long_text():
    seconds = []
    for size in (1_000, 8_000):
        began = time.process_time()
        with at_most(10):
            render("*a **b " * size + "** b*" * size)
        seconds.append(time.process_time() - began)
    assert seconds[1] < 20 * seconds[0]


def test_a_table_takes_no_more_room_than_what_was_written_of_it():
    head = "|" + "a|" * 2_000 + "\n|" + "-|" * 2_000 + "\n"
    assert len(render(head + "|\n" * 2_000)) < 100_000
    assert len(render("|a" * 90 + "|\n" + "|-" * 90 + "|\n" + "|\n" * 100)) < 50_000


@pytest.mark.parametrize("code", ["", "```python\n"])
def test_others_go_on_while_a_long_text_is_rendered(code, monkeypatch):
    monkeypatch.setattr("time.sleep", gevent.sleep)  # as in a worker
    turns = []

    def other():
        while True:
            turns.append(1)
            gevent.sleep(0.0001)  # as one that waits for something to arrive

    others = gevent.spawn(other)
    render(code + "**a** [b](http://c.d) (`e`)\n" * 3_000)
    others.kill()
    assert len(turns) > 10


# --- Any text, in any pieces

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
MARKS = "** * _ __ ` `` ~~ == [ ] ( ) [a](http://b.c) https://d.ef ![i](http://j.k) $ $x$ $$ \\( \\) \\ < > & &amp; <b> | ! . , : - + # = <br> <sub> </sub> <u> </u> \\begin{align} \\end{align} </details>".split()
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


BLOCKS = [
    "{}", "{}\n{}", "# {}", "## {}\n\n{}", "- {}\n- {}\n- {}", "- {}\n\n  {}\n- {}", "1. {}\n2. {}", "1. {}\n   - {}\n   - {}\n2. {}",
    "- [ ] {}\n- [x] {}", "> {}", "> {}\n> {}\n>\n> {}", "> - {}\n> - {}", "```py\n{}\n\n{}\n```", "~~~\n{}\n~~~", "- {}\n  ```\n  {}\n\n  x\n  ```\n  {}",
    "| a | b |\n|---|:-:|\n| {} | {} |\n| {} |", "a | b\n--|--\n{} | {}", "{}\n---", "{}\n===", "***", "$$\nx + y\n$$", "{}\n$$\nx\n$$\n{}", "    x\n\n    y", "{}:\n- {}\n- {}", "{}  \n{}", "**{}**: {}", "*{}*", "<details>\n<summary>{}</summary>\n\n{}\n\n{}\n\n</details>", "\\begin{{gather}}\nx \\\\\ny\n\\end{{gather}}",
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


LONG_ADDRESS = "https://a.b/" + "c/de-f_" * 90 + "g"


@pytest.mark.parametrize(
    "text",
    [
        f"See {LONG_ADDRESS} for *more* of it",
        f"See <{LONG_ADDRESS}> for more",
        f"- see [t]({LONG_ADDRESS}) for more",
        f'see [t]({LONG_ADDRESS} "title") for more',
        f"**see {LONG_ADDRESS}**, for more",
        f"| a | b |\n|---|---|\n| {LONG_ADDRESS} | c |",
        f"[t]: {LONG_ADDRESS}\n\n[t] and more",
    ],
)
@pytest.mark.parametrize("sizes", [3, 50])
def test_no_link_leads_to_half_an_address(text, sizes):
    growth, page = Growth(), Page()
    for piece in pieces(text, sizes):
        page.apply(growth.feed(piece))
        assert page.html == Page(growth.html).html
        assert set(re.findall('href="(.*?)"', growth.html)) <= {LONG_ADDRESS}
        assert CARET not in growth.html and "](" not in growth.html
    html = re.sub("</?span>", "", shown(text + "\n\nEnd.", sizes))
    assert html == render(text + "\n\nEnd.")
