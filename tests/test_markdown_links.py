"""Links, bare addresses and images lead where they say, and nowhere before they are whole."""

import re

import pytest

from chattable import markdown
from chattable.markdown import Growth
from chattable.markdown.characters import CARET
from tests.growing import Page, pieces, render, shown

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


def test_half_a_definition_is_neither_shown_nor_kept():
    growth = Growth()
    for cut in range(len(DEFINED[:24])):
        growth.feed(DEFINED[cut])
        assert growth.html == ""
    growth.feed(DEFINED[24:])
    assert 'href="http://b.c"' in growth.html


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
    html = markdown.render(text.format(url))
    assert re.findall("<a href=.*?>(.*?)</a>", html) == [url]
    for cut in range(len(text.format(url))):
        growth = Growth()
        growth.feed(text.format(url)[:cut])
        growth.feed(text.format(url)[cut:] + "\n\nEnd.")
        assert growth.html == markdown.render(text.format(url) + "\n\nEnd.")


@pytest.mark.parametrize(
    "text",
    ["😀\ufe0fhttps://e.f", "1\ufe0f\u20e3https://e.f", "https://e.f好", "https://e.f，好.x"],
)
def test_addresses_begin_after_emoji_and_end_before_unspaced_text(text):
    assert re.findall("<a href=.*?>(.*?)</a>", render(text)) == ["https://e.f"]


def test_a_bracketed_host_keeps_its_brackets():
    for text in ("http://[::1]:80/x", "[a](http://[::1]:80/x)", "<http://[::1]:80/x>"):
        assert 'href="http://[::1]:80/x"' in render(text)


def test_links_open_outside_and_tell_nothing():
    assert 'href="http://a.b" rel="noopener noreferrer nofollow" target="_blank">x</a>' in render(
        "[x](http://a.b)"
    )


def test_images_are_links_and_load_nothing():
    assert render("![chart](http://a.b/c.png)").endswith(">chart</a></p>")
    assert render("[![i](http://a.b)](http://c.d)").count("<a ") == 1


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
    html = re.sub('<span class="rest">|</span>', "", shown(text + "\n\nEnd.", sizes))
    assert html == render(text + "\n\nEnd.")
