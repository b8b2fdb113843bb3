"""A page that patches are applied to, and messages that grow on it."""

import random
import re

import html5lib

from chattable import markdown
from chattable.markdown import Growth

X = (
    '<math display="inline"><semantics><mrow><mi>x</mi></mrow>'
    '<annotation encoding="application/x-tex">x</annotation></semantics></math>'
)
DISPLAYED_X = X.replace("inline", "block")
SAID_TO_FEW = 'dir="(?:auto|ltr)"|tabindex="0"|role="group"|aria-label="(?:Code|Table|Done)"'


class Page:
    """A message's body in a DOM of html5lib's making."""

    def __init__(self, html=""):
        self.body = html5lib.parse("<div></div>", treebuilder="dom").getElementsByTagName("div")[0]
        self._insert(html, self.body, None)

    def apply(self, patches):
        for target, patch in [(self._at(patch.path), patch) for patch in patches]:
            if patch.swap == "beforeend":
                self._insert(patch.html, target, None)
            elif patch.swap == "outerHTML":
                assert patch.html  # htmx exchanges nothing for nothing
                self._insert(patch.html, target.parentNode, target)
                target.parentNode.removeChild(target)
            elif patch.swap == "delete":
                target.parentNode.removeChild(target)
            else:
                assert (patch.swap, patch.path) == ("innerMorph", ())
                target.childNodes = []
                self._insert(patch.html, target, None)
        self.body.normalize()

    def _at(self, path):
        element = self.body
        for name in path:
            tag, _, own = name.partition(".")
            named = [child for child in elements(element) if child.tagName == tag]
            element = [each for each in named if own in each.getAttribute("class")][-1]
        return element

    def _insert(self, html, parent, before):
        fragment = html5lib.parseFragment(html, container=parent.tagName, treebuilder="dom")
        for node in list(fragment.childNodes):
            parent.insertBefore(node, before)
        parent.normalize()

    def crowd(self):
        """Append to each element what extensions and translators do."""
        for element in [self.body, *self.body.getElementsByTagName("*")]:
            if not element.hasAttribute("foreign"):
                for tag in ("div", "span", "font"):
                    self._insert(f"<{tag} foreign>theirs</{tag}>", element, None)

    def empty(self):
        """Take away what others have appended."""
        for element in list(self.body.getElementsByTagName("*")):
            if element.hasAttribute("foreign"):
                element.parentNode.removeChild(element)
        self.body.normalize()

    @property
    def html(self):
        return "".join(node.toxml() for node in self.body.childNodes)

    @property
    def text(self):
        """The text a reader sees, block by block, without the code's label and button."""
        broken = re.sub(
            r'<div class="code__head">.*?</div>|</?(?:p|li|h\d|tr|t[hd]|pre|div|blockquote)\b',
            r"\n\g<0>",
            self.html,
        )
        bare = re.sub(r'<div class="code__head">.*?</div>|<[^>]*>', "", broken)
        return [line.strip() for line in bare.split("\n") if line.strip()]


def elements(parent):
    return [child for child in parent.childNodes if child.nodeType == child.ELEMENT_NODE]


def grown(text, sizes):
    """Feed the text in pieces of these sizes; return the growth, its page and the bytes sent."""
    growth, page, sent = Growth(), Page(), 0
    for piece in pieces(text, sizes):
        patches = growth.feed(piece)
        page.apply(patches)
        sent += sum(len(patch.html.encode()) for patch in patches)
    return growth, page, sent


def pieces(text, sizes):
    dice = random.Random(sizes) if isinstance(sizes, str) else None
    while text:
        size = dice.randint(1, 30) if dice else sizes
        yield text[:size]
        text = text[size:]


def shown(text, sizes=1):
    return bare(grown(text, sizes)[0].html)


def render(text):
    return bare(markdown.render(text))


def bare(html):
    """HTML without what it says of directions, of keys, and to who listens."""
    return re.sub(f" (?:{SAID_TO_FEW})", "", html)


def assert_grown_alike(text, after="\n\nSo it is and so it ends.\n\n# End\n\nEnd."):
    """Check that a text is the same grown, whatever it was cut at, as whole."""
    html = markdown.render(text + after)
    for cut in range(0, len(text), 1 + len(text) // 300 * 20):
        growth, page = Growth(), Page()
        for piece in (text[:cut], text[cut:], after):
            page.apply(growth.feed(piece))
        assert growth.html == html
        assert page.html == Page(html).html
    if len(text) < 1000:
        assert grown(text + after, 1)[0].html == html


def link(url):
    return f'<a href="{url}" rel="noopener noreferrer nofollow" target="_blank">{url}</a>'


def shown_alike(text, html):
    """Check what is shown of a paragraph, whole and as it grows."""
    assert render(text) == f"<p>{html}</p>"
    for cut in range(len(text)):
        growth = Growth()
        growth.feed(text[:cut])
        growth.feed(text[cut:] + "\n\n")
        assert growth.html == markdown.render(text)
