"""Footnotes and GitHub's notes are never shown as they are written, whole and as they grow."""

import re

import pytest

from tests.growing import assert_grown_alike, bare, grown, link, render, shown


def callout(kind, html):
    title = f"<strong>{kind.capitalize()}</strong>"
    return f'<blockquote class="callout callout--{kind}">{title}{html}</blockquote>'


@pytest.mark.parametrize("kind", ["note", "tip", "important", "warning", "caution"])
def test_a_quote_may_be_one_of_five_kinds_of_notes(kind):
    text = f"> [!{kind.upper()}]\n> One **two**.\n>\n> Three."
    html = callout(kind, "<p>One <strong>two</strong>.</p><p>Three.</p>")
    assert render(text) == html
    assert_grown_alike(text)


@pytest.mark.parametrize(
    "text, html",
    [
        ("> [!tip]  \n> - a\n> - b", callout("tip", "<ul><li><p>a</p></li><li><p>b</p></li></ul>")),
        ("> [!NOTE]\n>\n> a", callout("note", "<p>a</p>")),
        ("> [!NOTE]\na", callout("note", "<p>a</p>")),
        ("> [!NOTE]", callout("note", "")),
        ("> > [!NOTE]\n> > a", f"<blockquote>{callout('note', '<p>a</p>')}</blockquote>"),
        ("- > [!NOTE]\n  > a", f"<ul><li>{callout('note', '<p>a</p>')}</li></ul>"),
        ("> [!NOTE] a", "<blockquote><p>[!NOTE] a</p></blockquote>"),
        ("> [!OTHER]\n> a", "<blockquote><p>[!OTHER]<br>\na</p></blockquote>"),
        ("> a\n>\n> [!TIP]\n> b", "<blockquote><p>a</p><p>[!TIP]<br>\nb</p></blockquote>"),
        ("> [!TIP]\n> a\n>\n> [!TIP]\n> b", callout("tip", "<p>a</p><p>[!TIP]<br>\nb</p>")),
        ("[!NOTE]\na", "<p>[!NOTE]<br>\na</p>"),
    ],
)
def test_only_the_first_line_of_a_quote_makes_it_a_note(text, html):
    assert render(text) == html
    assert_grown_alike(text)


def test_what_a_note_is_called_is_never_seen_half_typed():
    text = "> [!IMPORTANT]\n> Words."
    growing = [shown(text[:cut]) for cut in range(len(text))]
    assert all("!" not in html and "IMP" not in html for html in growing)
    assert growing[-1] == callout("important", "<p>Words</p>")


def test_a_long_note_is_cut_like_any_quote():
    text = "> [!NOTE]\n> " + "some *words* of it, `more` " * 400 + "end.\n>\n> [!TIP]\n> x\n\nEnd."
    html = bare(grown(text, 100)[0].html)
    assert '<span class="rest">' in html
    assert re.sub('<span class="rest">|</span>', "", html) == render(text)


@pytest.mark.parametrize(
    "text, html",
    [
        ("a[^1] b [^2].", "<p>a<sup>[1]</sup> b <sup>[2]</sup>.</p>"),
        ("a[^1][^note]", "<p>a<sup>[1]</sup><sup>[note]</sup></p>"),
        ("a[^1]\n\n[^1]: *b*", "<p>a<sup>[1]</sup></p><p><sup>[1]</sup> <em>b</em></p>"),
        (
            "[^1]: http://a.b\n[^n]: *c*",
            f"<p><sup>[1]</sup> {link('http://a.b')}<br>\n<sup>[n]</sup> <em>c</em></p>",
        ),
        (
            "> a[^1]\n>\n> [^1]: b",
            "<blockquote><p>a<sup>[1]</sup></p><p><sup>[1]</sup> b</p></blockquote>",
        ),
        (
            "- a[^1]\n\n  [^1]: b",
            "<ul><li><p>a<sup>[1]</sup></p><p><sup>[1]</sup> b</p></li></ul>",
        ),
        ("as in [^1]: a", "<p>as in <sup>[1]</sup>: a</p>"),
        ("`a[^1]` \\[^1] [^abc] a[^1 b]", "<p><code>a[^1]</code> [^1] [^abc] a[^1 b]</p>"),
        ("a[^1](http://a.b)", f"<p>a{link('http://a.b').replace('>http://a.b', '>^1')}</p>"),
    ],
)
def test_a_footnote_is_a_number_in_both_of_its_places(text, html):
    assert render(text) == html
    assert_grown_alike(text)


def test_a_footnote_is_never_seen_half_typed():
    text = "a[^12] b\n\n[^12]: c"
    assert all("^" not in shown(text[:cut]) for cut in range(len(text) + 1))
