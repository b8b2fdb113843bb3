"""An open chat page without a browser: it does with frames what htmx does."""

import json
import re

from bs4 import BeautifulSoup

from chattable.live.frames import ROOT

KEPT = "hx-morph-skip-children"
RUNNING = "[data-status=streaming] "

STEP = re.compile(r"(?::nth-last-child\(1 of )?(?P<tag>\w+)(?:\.(?P<own>[\w-]+)\)|:last-of-type)")


class Page:
    """The message list of one page: loaded once, then changed by the frames of a socket.

    What a frame changes elsewhere (the title, the cost) is left alone.
    """

    def __init__(self, html):
        page = parse(html)
        self.list = page.find(id="messages")
        self._note_away(page.find(id="elsewhere"))

    def _note_away(self, content):
        """Know which reply is written in a branch that is not looked at."""
        reply = content and content.find(attrs={"data-message": True})
        self.away = reply and reply["data-message"]

    @property
    def messages(self):
        """Return the articles in order, as BeautifulSoup elements."""
        return self.list.find_all("article", recursive=False)

    @property
    def html(self):
        """Return the message list as markup, one article after the other, and what is between."""
        return "\n".join(str(each) for each in self.list.find_all(True, recursive=False))

    def text(self, message_id):
        """Return the visible text of a message's body."""
        return self.find(f"#message-{message_id}-body").get_text()

    def status(self, message_id):
        """Return a message's status, or None if it is not on the page."""
        article = self.find(f"#message-{message_id}")
        return article and article["data-status"]

    def find(self, selector):
        """Return the element in the list at `#id`, or at `#id>li:last-of-type` and deeper, or None.

        BeautifulSoup's own `select` takes ten times as long, which tests of speed would feel.
        """
        name, *path = selector.removeprefix("find ").removeprefix(RUNNING).split(">")
        article = re.match(r"#message-\d+", name)[0]
        element = next((each for each in self.messages if f"#{each['id']}" == article), None)
        if selector.startswith(RUNNING) and element["data-status"] != "streaming":
            return None
        if element and name != article:
            element = element.find(id=name[1:])
        for step in path:
            tag, own = STEP.fullmatch(step).group("tag", "own")
            named = element.find_all(tag, recursive=False) if element else []
            named = [each for each in named if not own or own in each.get("class", [])]
            element = named[-1] if named else None
        return element

    def apply(self, frame):
        """Swap in one frame; every target is looked up before anything changes, as htmx does."""
        frame = frame.replace(ROOT, "")  # where the app is: at the root
        elsewhere = self.away and re.search(rf"#?message-{self.away}\b", frame)
        if elsewhere and '"#elsewhere"' not in frame:
            return
        for swap in [self._prepared(*patch) for patch in patches(frame)]:
            swap()

    def _prepared(self, target, swap, content):
        if swap == "upsert":
            return lambda: [self._upsert(article) for article in elements(content)]
        if target == "#messages[role=log]":
            return lambda: SWAPS[swap](self.list, content)
        if target == "#elsewhere":
            return lambda: self._note_away(content)
        if target == ".unsent":
            return lambda: [line.decompose() for line in self.list.select(target)]
        if "#message-" not in target:
            return lambda: None  # the title and the cost are beside the list
        element = self.find(target)
        if element is None and (target.startswith(RUNNING) or swap == "beforebegin"):
            return lambda: None
        assert element is not None, f"nothing on the page is {target}"
        return lambda: SWAPS[swap](element, content)

    def _upsert(self, article):
        known = self.find(f"#{article['id']}")
        if known:
            known.replace_with(article)
            return
        later = [other for other in self.messages if number(other) > number(article)]
        if later:
            later[0].insert_before(article)
        else:
            self.list.append(article)


def patches(frame):
    """Return what a frame asks for: (target selector, swap, content) each."""
    if not frame.startswith("{"):
        return [patch for element in elements(frame) for patch in element_patches(element)]
    given = json.loads(frame)
    if "content" not in given:
        return []
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


def morph(element, content):
    kept = content.find(attrs={KEPT: True})
    if kept:
        body = element.find(id=kept["id"]).extract()
        assert len(body.get_text().encode("utf-16-le")) // 2 == int(kept[KEPT])
        kept.replace_with(body)
    element.replace_with(*[node.extract() for node in list(content.contents)])


def insert_before(element, content):
    element.insert_before(*[node.extract() for node in list(content.contents)])


def delete(element, content):
    element.decompose()


# What htmx morphs is in the end what it is morphed into.
SWAPS = {
    "beforeend": append,
    "innerHTML": fill,
    "innerMorph": fill,
    "outerHTML": morph,
    "outerMorph": morph,
    "beforebegin": insert_before,
    "delete": delete,
}
