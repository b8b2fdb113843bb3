"""LaTeX becomes MathML. The renderer comes in, once for each formula."""

import html
import re
from functools import lru_cache
from xml.etree.ElementTree import Element, SubElement, tostring

from latex2mathml.converter import Converter
from mistune.util import escape

from chattable.markdown.characters import CARET

MATH_ATTRIBUTES = set(
    "accent columnalign columnlines columnspacing depth display displaystyle fence form"
    " height largeop linebreak linethickness lspace mathbackground mathcolor mathsize"
    " mathvariant maxsize minsize movablelimits notation rowlines rowspacing rspace"
    " scriptlevel separator stretchy voffset width".split()
)
MACRO = re.compile(r"\\(?:\w*def|\w*command|Declare)")  # could grow without bound
UNKNOWN = re.compile(r"\\[A-Za-z]")  # a command that the converter took for a letter


@lru_cache(maxsize=512)
def mathml(latex, display):
    """Turn LaTeX into MathML; LaTeX that cannot be turned is shown as it was written."""
    try:
        if CARET in latex or MACRO.search(latex):
            raise ValueError(latex)
        converter = Converter(display="block" if display else "inline")
        return _written(converter.convert_to_element(_in_known_terms(latex)), latex)
    except Exception:  # the converter raises whatever its parser stumbles over
        return f'<code class="math">{escape(latex, quote=False)}</code>'


def _written(math, latex):
    """Write a MathML tree, escaped and with harmless attributes only, and the TeX it says."""
    for element in math.iter():
        element.text = html.unescape(element.text or "")
        if element.tag == "mtext":
            element.text = re.sub(r"\\([%_$&#{}])", r"\1", element.text)
        if element.tag in ("mi", "mo") and UNKNOWN.match(element.text):
            raise ValueError(element.text)
        element.attrib = {
            name: value for name, value in element.attrib.items() if name in MATH_ATTRIBUTES
        }
    meaning = Element("semantics")
    meaning[:], math[:] = math[:], [meaning]
    SubElement(meaning, "annotation", encoding="application/x-tex").text = latex
    return tostring(math, encoding="unicode", short_empty_elements=False)


IN_TEXT = r"(?:\\.|[^{}$\\\n]|\{[^{}$\n]*+\})*+"
TEXT_WITH_MATH = rf"\\(?:text|mbox)\{{(?:{IN_TEXT}\${IN_TEXT}\$)++{IN_TEXT}\}}"


def _in_known_terms(latex):
    latex = re.sub(TEXT_WITH_MATH, _apart, latex)
    for term, known in KNOWN_TERMS:
        latex = term.sub(known, latex)
    return latex


def _apart(match):
    """Put the $math$ in a \\text{} between texts of their own."""
    command, _, text = match[0][:-1].partition("{")
    parts = enumerate(re.split(r"(?<!\\)\$", text))
    return "".join(f"{command * (number % 2 == 0)}{{{part}}}" for number, part in parts if part)


ARGUMENT = r"[ \t]*+\{((?:[^{}]|\{[^{}]*+\})*+)\}"
# What mhchem and siunitx write in short.
CHEMISTRY = (
    (re.compile(r"<=>>?|<<=>"), r"\\rightleftharpoons "),
    (re.compile(r"<--?>"), r"\\leftrightarrow "),
    (re.compile(r"->\[([^][]*)\]"), r"\\xrightarrow{\\mathrm{\1}} "),
    (re.compile(r"->"), r"\\rightarrow "),
    (re.compile(r"<-"), r"\\leftarrow "),
    (re.compile(r"(?<=[A-Za-z)\]])\d+"), r"_{\g<0>}"),
    (re.compile(r"\^(\d*[+-])"), r"^{\1}"),
    (re.compile(r"(?<=[A-Za-z)\]}])[+-](?=[\s)\]]|$)"), r"^{\g<0>}"),
    (re.compile(r"[*.] ?(?=\d*[A-Z])"), r"\\cdot "),
)
UNITS = dict(
    pair.split(":")
    for pair in "meter:m metre:m gram:g kilogram:kg second:s minute:min hour:h day:d ampere:A"
    " kelvin:K mole:mol candela:cd newton:N joule:J watt:W pascal:Pa hertz:Hz volt:V ohm:Ω farad:F"
    " coulomb:C tesla:T henry:H liter:L litre:L bar:bar electronvolt:eV degreeCelsius:°C celsius:°C"
    r" percent:\% degree:° pico:p nano:n micro:μ milli:m centi:c deci:d kilo:k mega:M giga:G tera:T"
    " per:/ squared:^{2} cubed:^{3}".split()
)


def _chemistry(match):
    formula = match[1]
    for short, known in CHEMISTRY:
        formula = short.sub(known, formula)
    return rf"\mathrm{{{formula}}}"


def _number(match):
    return re.sub(r"(?<=\d)[eE]([+-]?\d+)", r"\\times 10^{\1}", match[1])


def _unit(match):
    unit = re.sub(
        r"\\([A-Za-z]+) ?", lambda name: UNITS.get(name[1], name[0]), match[match.lastindex]
    )
    unit = unit.replace(".", r"\,").replace("~", r"\,")
    return rf"\mathrm{{{unit}}}"


def _quantity(match):
    return rf"{_number(match)}\,{_unit(match)}"


# What the converter does not know, in terms of what it does.
KNOWN_TERMS = (
    (re.compile(r"\\label\{[^{}]*\}|\\(?:nonumber|notag)\b"), ""),
    (re.compile(r"\\begin\{(?:aligned|gathered)\}\[[tbc]\]"), lambda match: match[0][:-3]),
    (re.compile(r"\\begin\{(?:fl)?align(?:ed)?at\*?\}\{\d\}"), r"\\begin{aligned}"),
    (
        re.compile(r"\\(begin|end)\{(?:aligned|flalign\*?|(?:fl)?align(?:ed)?at\*?)\}"),
        r"\\\1{align*}",
    ),
    (re.compile(r"\\begin\{eqnarray\*?\}"), r"\\begin{array}{rcl}"),
    (re.compile(r"\\begin\{(?:gather(?:ed)?|multline)\*?\}"), r"\\begin{array}{c}"),
    (re.compile(r"\\end\{(?:eqnarray|gather(?:ed)?|multline)\*?\}"), r"\\end{array}"),
    (re.compile(r"\\(begin|end)\{[dr]cases\*?\}"), r"\\\1{cases}"),
    (
        re.compile(r"\\operatorname\*?\{(\w+)(?:\\[,;: ]|[ ~])(\w+)\}"),
        "\\\\operatorname{\\1\u2006\\2}",
    ),
    (re.compile(r"(?<!\\)((?:\\\\)+)\*?[ \t]*+\[-?[\d.]+[ \t]*[a-z]{2}\]"), r"\1"),
    (re.compile(r"\\operatorname\*"), r"\\operatorname"),
    (re.compile(r"\\(arg|argmax|argmin)(?![A-Za-z])"), r"\\operatorname{\1}"),
    (re.compile(r"\\([RNZQC])(?![A-Za-z])"), r"\\mathbb{\1}"),
    (re.compile(rf"\\ce{ARGUMENT}"), _chemistry),
    (re.compile(rf"\\(?:SI|qty){ARGUMENT}{ARGUMENT}"), _quantity),
    (re.compile(rf"\\(?:si|unit){ARGUMENT}"), _unit),
    (re.compile(rf"\\num{ARGUMENT}"), _number),
    (re.compile(rf"\\abs{ARGUMENT}"), r"\\left|\1\\right|"),
    (re.compile(rf"\\norm{ARGUMENT}"), r"\\left\\|\1\\right\\|"),
)
