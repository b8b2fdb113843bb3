"""No text gets an element, an attribute or an address through that is not harmless."""

import re

import pytest

from chattable.markdown.latex import MATH_ATTRIBUTES
from tests.growing import Page, render, shown

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
