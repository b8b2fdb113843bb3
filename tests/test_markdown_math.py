"""Math between dollars, brackets and environments becomes MathML; money does not."""

import re

import pytest

from chattable import markdown
from chattable.markdown import Growth
from tests.growing import DISPLAYED_X, X, assert_grown_alike, render, shown, shown_alike


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
        ("```math\nx\n```\nso", f"<p>{DISPLAYED_X}</p><p>so</p>"),
        (
            "> ~~~ math\n> x\n> ~~~\n>\n> so",
            f"<blockquote><p>{DISPLAYED_X}</p><p>so</p></blockquote>",
        ),
        ("1. a\n   ```math\n   x\n\n   ```\n2. b", f"<p>a</p><p>{DISPLAYED_X}</p></li>"),
    ],
)
def test_math_in_code_is_math_as_github_has_it(text, html):
    assert html in render(text)
    assert_grown_alike(text)


def test_math_in_code_is_shown_as_it_is_typed():
    assert shown("so $`x^2 + y") == '<p>so <code class="math">x^2 + y</code></p>'
    assert shown("so $`x`") == '<p>so <code class="math">x</code></p>'
    assert shown("```math\nx^2\n\n+ y\n") == '<p><code class="math">x^2\n\n+ y\n</code></p>'


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
    assert html.startswith('<p><math display="block">') and html.endswith("</math></p>")
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
            assert growth.html == markdown.render(text + "\n\nEnd.")


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


def test_an_environment_is_shown_as_code_until_it_ends():
    assert shown("So:\n\\begin{align}\na &= b \\\\\n- c", 2).startswith(
        '<p>So:</p><p><code class="math">\\begin{align}\na &amp;= b \\\\\n- c'
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
