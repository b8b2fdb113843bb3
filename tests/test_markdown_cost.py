"""The cost of Markdown is linear, whatever is written: counted, not timed, where it can be."""

import signal
import time
from contextlib import contextmanager

import gevent
import pytest

from chattable.markdown import Growth, dialect
from tests.growing import pieces, render

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
    "[^1]",
    "\n[^1]: ",
    "\n> [!TIP]",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_repetition_neither_crashes_nor_hangs(hostile):
    text = hostile * (20_000 // len(hostile))
    assert render(text) is not None


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
    "callout": lambda size: "> [!NOTE]\n" + ("> " + PROSE + "\n>\n") * (size // 102),
    "footnotes": lambda size: "[^1]: a line of text[^2] with **bold** text\n" * (size // 44),
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
        for piece in (*pieces(text, 500), *end):
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
