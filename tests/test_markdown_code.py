"""Code is coloured and quoted as its fence says, whole and as it grows."""

import re
from textwrap import indent as indent_all

import pytest

from chattable import markdown
from chattable.markdown import Growth, code_blocks
from chattable.markdown.characters import CARET
from tests.growing import Page, bare, render, shown


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
    assert growth.html == markdown.render(text + "\n\nEnd.")


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
    assert bare(re.sub("</(?:li|ul|ol)>", "", shown(code))).endswith("</code></pre></div>")
    for cut in range(len(code) + 1):
        growth = Growth()
        growth.feed(code[:cut])
        for letter in code[cut:] + after:
            growth.feed(letter)
        assert growth.html == markdown.render(code + after)


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
        assert growth.html == markdown.render(text + "\nEnd.")
    assert "<p>More" not in shown(text[: text.index("More") + 4])


def test_a_fence_in_markdown_that_comes_alone_ends_it():
    assert render("```markdown\n```python\nx\n```\nText.").endswith("</div><p>Text.</p>")
    assert render("```text\n```python\nx\n```\nText.\n```\n").count("<pre>") == 2


def test_code_that_would_take_pygments_seconds_stays_plain():
    assert "<span" not in render("```ts\n" + "a." * 5000 + "\n```").partition("<pre>")[2]


def test_open_code_is_shown_line_by_line_and_coloured_when_it_closes():
    assert shown("```python\nif x:\n    p").endswith(">if x:\n    p</code></pre></div>")
    assert '<span class="k">if</span>' in shown("```python\nif x:\n    p\n```\n")
