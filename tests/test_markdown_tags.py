"""A few harmless HTML tags are read as Markdown, whole and as they grow."""

import pytest

from chattable import markdown
from chattable.markdown import Growth
from tests.growing import Page, grown, render, shown

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
        assert growth.html == markdown.render(text + "\n\nEnd.")


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
        assert page.html == Page(markdown.render(text + "\n\nEnd.")).html


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
