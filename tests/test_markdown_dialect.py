"""Markdown becomes HTML: prose, lists, tables and quotes, in every script."""

import re

import pytest

from chattable import markdown
from chattable.markdown import Growth
from tests.growing import Page, X, assert_grown_alike, grown, link, render, shown, shown_alike


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
        assert growth.html == markdown.render(text)
        assert page.html == Page(growth.html).html
    assert shown(text) == render(text)


def test_a_newline_is_a_line_break():
    poem = "Roses are red,\nviolets are blue,\n\n- sugar\n  is sweet\n\n> and\n> so"
    html = render(poem)
    assert html.startswith("<p>Roses are red,<br>\nviolets are blue,</p>")
    assert "<li><p>sugar<br>\nis sweet</p></li>" in html and "<p>and<br>\nso</p>" in html
    assert shown(poem) == html


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
    "text", ["x==1 is a test and y==2 too", "if(a==b||c[0]==d[1])", "版本==1.0 和 版本==2.0"]
)
def test_a_comparison_is_no_mark(text):
    assert render(text) == f"<p>{text}</p>"


def test_bold_ends_where_it_ends_while_it_streams():
    assert shown("他说**「你好」**然后") == "<p>他说<strong>「你好」</strong>然后</p>"


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
    for html in (markdown.render(text), grown(text, 1)[0].html):
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


@pytest.mark.parametrize(
    "turns",
    ["1. Question\n> Answer\n", "- \n> answer\n", "1. \n> a\n", "> a\n- \n", "- a\n> b\n# c\n"],
)
def test_lists_and_quotes_take_turns_as_long_as_they_like(turns):
    text = turns * 400
    html = markdown.render(text + "\n\nEnd.")
    assert html.count("<blockquote") == 400 and "&gt;" not in html
    assert grown(text + "\n\nEnd.", 100)[0].html == html


def test_deep_nesting_does_not_crash():
    assert "deep" in render(">" * 500 + " deep")
    assert "deep" in render("".join("  " * depth + "- deep\n" for depth in range(500)))
