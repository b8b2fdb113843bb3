"""Code is coloured and quoted as its fence says, whole and as it grows."""

import re
from textwrap import indent as indent_all

import pytest

from chattable import markdown
from chattable.markdown import Growth, code_blocks, colours
from chattable.markdown.characters import CARET
from tests.growing import Page, bare, grown, pieces, render, shown


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


def test_open_code_is_shown_line_by_line_and_each_is_coloured_when_it_ends():
    line = '<span class="k">if</span> <span class="n">x</span><span class="p">:</span>\n'
    opened = '<code class="language-python">'
    assert shown("```python\nif x:").endswith(
        f'{opened}<span class="rest">if x:</span></code></pre></div>'
    )
    code = shown("```python\nif x:\n    p")
    assert code.endswith(f'{opened}{line}<span class="rest">    p</span></code></pre></div>')
    assert shown("```unknown\nif x:\n    p").endswith(">if x:\n    p</code></pre></div>")
    assert f"{opened}{line}" in shown("```python\nif x:\n    p\n```\n")


LANGUAGES = {
    "python": 'class A:\n    """A text\n    of lines.\n    """\n\n    x = f"{1}" # no\n\n\ny = \'\'\'a\n\'b\'\n\'\'\'\n',
    "javascript": "/* one\n * two */\nlet a = `x\n${b} y`;\nif (a / 2) { // it's\n  c(/d/g);\n}\n",
    "typescript": "/**\n * A\n */\nexport const f = async (a: string): Promise<void> => {\n  b<C>();\n};\n",
    "html": "<!-- a\nb -->\n<style>\nb { color: red }\n</style>\n<p\n  class='x'>y</p>\n<script>\nlet a;\n</script>\n",
    "css": "/* a\n b */\n.a > b {\n  color: red;\n}\n@media print {\n a { b: c }\n}\n",
    "c": "#include <a.h>\nstatic int z = 1;\n/* a\n b */\nint main(void)\n{\n  size_t a;\n}\n",
    "cpp": "// a\nclass B : public C {\n  std::string d(int e) const;\n  wchar_t f;\n};\n",
    "java": "/** A\n */\nclass B {\n  @C\n  void d() throws E\n  {\n    int f = 1;\n  }\n}\n",
    "go": "package a\n\nvar b = `c\nd`\n\n/* e\nf */\nfunc g(h int) error {\n\treturn nil\n}\n",
    "rust": "/* a\n/* b */ c\n*/\nfn d<'e>(f: &'e str) -> g {\n  let h = \"i\nj\";\n}\n",
    "ruby": "# a\nclass B < C\n  def d(e = nil)\n    puts \"f#{g}\", :h\n  end\nend\n",
    "bash": "a() {\n  cat <<'B' | c\nif\nB\n  d \"e\nf\" $g \\\n    -h\n}\n",
    "sql": "SELECT 'a\nb', \"c\" -- d\nFROM e /* f\ng */ WHERE h = 1;\n",
    "yaml": "# a\nb:\n  - c: |\n      d: e\n    f: \"g\n      h\"\ni: {j: [1, 2]}\n",
    "json": '{\n  "a": [1, "b"],\n  "c": {"d": null}\n}\n',
    "diff": "--- a\n+++ b\n@@ -1 +1 @@\n-c\n+d\n e\n",
}  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("sizes", [1, 40])
def test_the_colours_of_open_code_are_those_it_has_when_it_is_closed(language, sizes):
    code, growth = LANGUAGES[language] * 4, Growth()
    whole = markdown.render(f"```{language}\n{code}```\n").removesuffix("</code></pre></div>")
    coloured = 0
    for piece in pieces(f"```{language}\n{code}", sizes):
        growth.feed(piece)
        lines, _, rest = growth.html.partition('<span class="rest">')
        assert whole.startswith(lines)
        coloured += rest.count("\n") < 6
    assert rest.replace("</span>", "") == "</code></pre></div>"  # none is left
    assert coloured > len(code) // sizes * 0.9


@pytest.mark.parametrize("blank", range(18, 23))
def test_groups_of_lines_are_the_same_in_code_that_grows(blank):
    lines = ["if x:\n"] * blank + ["\n"] * 3 + ["if x:\n"] * 40
    text = f"```python\n{''.join(lines)}```\n\nEnd."
    assert markdown.render(text).count('<span class="lines">') == 3
    for sizes in (5, 11, 100):
        growth, page = Growth(), Page()
        for piece in pieces(text, sizes):
            page.apply(growth.feed(piece))
            assert page.html == Page(growth.html).html
        assert growth.html == markdown.render(text)


def test_the_end_of_code_sends_none_of_it_again():
    growth = Growth()
    growth.feed("```python\n" + "if x:\n" * 500)
    assert sum(len(patch.html) for patch in growth.feed("```\n\nEnd.")) < 50


def test_what_never_ends_is_tried_a_few_times_only(monkeypatch):
    tried = []
    lexed = colours.lexed
    monkeypatch.setattr(
        colours,
        "lexed",
        lambda lexer, context: tried.append(len(context.text)) or lexed(lexer, context),
    )
    text = "```js\n/* a\n" + "let it = 'be';\n" * 2_000
    grown(text, 20)
    assert sum(tried) < 12 * len(text)
