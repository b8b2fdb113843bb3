"""An open chat page without a browser: it does with frames what htmx does."""

import json
import re

from bs4 import BeautifulSoup


class Page:
    """The message list of one page: loaded once, then changed by the frames of a socket.

    What a frame changes elsewhere (the title, the cost) is left alone.
    """

    def __init__(self, html):
        self.soup = parse(html)

    @property
    def messages(self):
        """Return the articles in order, as BeautifulSoup elements."""
        return self.soup.select("#messages > article")

    @property
    def html(self):
        """Return the message list as markup, one article after the other."""
        return "\n".join(str(article) for article in self.messages)

    def text(self, message_id):
        """Return the visible text of a message's body."""
        return self.soup.select_one(f"#message-{message_id}-body").get_text()

    def status(self, message_id):
        """Return a message's status, or None if it is not on the page."""
        article = self.soup.select_one(f"#message-{message_id}")
        return article and article["data-status"]

    def apply(self, frame):
        """Swap in one frame; every target is looked up before anything changes, as htmx does."""
        for swap in [self._prepared(*patch) for patch in patches(frame)]:
            swap()

    def _prepared(self, target, swap, content):
        if swap == "upsert":
            return lambda: [self._upsert(article) for article in elements(content)]
        if not target.startswith("#message-"):
            return lambda: None  # the title and the cost are beside the list
        element = self.soup.select_one(target)
        assert element is not None, f"nothing on the page is {target}"
        return lambda: SWAPS[swap](element, content)

    def _upsert(self, article):
        known = self.soup.find(id=article["id"])
        if known:
            known.replace_with(article)
            return
        later = [other for other in self.messages if number(other) > number(article)]
        if later:
            later[0].insert_before(article)
        else:
            self.soup.select_one("#messages").append(article)


def patches(frame):
    """Return what a frame asks for: (target selector, swap, content) each."""
    if not frame.startswith("{"):
        return [patch for element in elements(frame) for patch in element_patches(element)]
    given = json.loads(frame)
    content = parse(given["content"])
    others = [partial.extract() for partial in content.find_all("hx-partial", recursive=False)]
    first = (given["target"], given.get("swap", "beforeend"), content)
    return [first, *(patch for other in others for patch in element_patches(other))]


def element_patches(element):
    if element.name == "hx-upsert":
        return [(element["hx-target"], "upsert", element)]
    if element.name == "hx-partial":
        return [(element["hx-target"], element.get("hx-swap", "innerHTML"), element)]
    assert element.name == "title", f"no page knows what to do with <{element.name}>"
    return []


def parse(html):
    return BeautifulSoup(html, "html.parser")


def elements(content):
    """Return the child elements of parsed or unparsed markup."""
    content = parse(content) if isinstance(content, str) else content
    return content.find_all(True, recursive=False)


def number(article):
    return int(re.search(r"\d+", article["id"])[0])


def append(element, content):
    for node in list(content.contents):
        element.append(node.extract())
    element.smooth()


def fill(element, content):
    element.clear()
    append(element, content)


def replace(element, content):
    element.replace_with(*[node.extract() for node in list(content.contents)])


def delete(element, content):
    element.decompose()


SWAPS = {"beforeend": append, "innerHTML": fill, "outerHTML": replace, "delete": delete}
