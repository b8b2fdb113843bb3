"""A browser's tab without a browser: a chat's page, and the socket that keeps it right."""

import re
import time

from tests.page import Page, parse
from tests.patience import patient

RUNNING = ("pending", "streaming")
TIME_IN_WORDS = re.compile(r"(<time[^>]*>)[^<]*")
WORD = re.compile(r"w\d+")


OPENINGS = {
    0: "\n\n",
    8: "\n\n- ",
    16: "\n- ",
    24: "\n\n1. ",
    32: "\n\n> ",
    40: "\n\n# ",
    48: "\n\n| a | b |\n|---|---|\n| ",
    56: "\n\n```python\n",
    64: "\n```\n\n",
}


class Tab:
    """One page of a chat, loaded once, and its socket; `page` is what a person would see.

    `seen`, if given, is called with the tab after each frame that was swapped in.
    Set `persists` for it to connect anew when it is told to, as a browser does.
    """

    persists = False

    def __init__(self, person, chat_id, seen=None):
        self.person, self.chat_id, self.seen = person, chat_id, seen
        html = self._load()
        self.since = re.search(r"/updates\?since=([^\"&]*)", html)[1]
        self.page = Page(html)
        self.connect()

    def connect(self):
        """Open the socket again as a page does: for what has changed since it last caught up."""
        self.socket = self.person.socket(self.chat_id, since=self.since)
        self.shown = 0

    def drop(self):
        """Lose the connection; frames that had come by then are still swapped in."""
        self.socket.drop()
        self.socket.wait_for_close()
        self.show()

    def show(self):
        """Swap in the frames that have come since the last time."""
        while self.shown < len(self.socket.frames):
            self._show_next()

    def wait_until(self, condition, timeout=10):
        """Show frames as they come until `condition(tab)` holds; return what it returned."""
        deadline = time.monotonic() + patient(timeout)
        while not (result := condition(self)):
            if self._has_news(deadline - time.monotonic()):
                self._show_next()
            elif self.persists and self.socket.code == 1012 and time.monotonic() < deadline:
                self.connect()
            elif not (result := condition(self)):
                raise TimeoutError(
                    f"socket {self.socket.code}, {self.shown} frames, the page shows:\n"
                    f"{self.page.html[-3000:]}"
                )
            else:
                break
        return result

    def _has_news(self, timeout):
        def news():
            return len(self.socket.frames) > self.shown or self.socket.code

        with self.socket.changed:
            self.socket.changed.wait_for(news, max(0, timeout))
            return len(self.socket.frames) > self.shown

    def _show_next(self):
        self.shown += 1
        frame = self.socket.frames[self.shown - 1]
        self.page.apply(frame)
        if moved := re.fullmatch(r'{"since":(\d+)}', frame):
            self.since = moved[1]
        if self.seen:
            self.seen(self)

    def wait_for_words(self, text, timeout=10):
        """Wait until the latest reply shows this text."""
        return self.wait_until(lambda tab: tab.reply and text in tab.text, timeout)

    def wait_for_status(self, status, replies=1, timeout=10):
        """Wait until the page's `replies`-th reply is the last and has this status."""

        def ended(tab):
            found = tab.replies
            return len(found) == replies and found[-1]["data-status"] == status

        self.wait_until(ended, timeout)
        return self

    @property
    def replies(self):
        """Return the articles of all replies."""
        return [article for article in self.page.messages if article["data-role"] == "assistant"]

    @property
    def reply(self):
        """Return the article of the latest reply, or None."""
        return self.replies[-1] if self.replies else None

    @property
    def reply_id(self):
        return int(self.reply["id"].rsplit("-", 1)[1])

    @property
    def status(self):
        return self.reply and self.reply["data-status"]

    @property
    def text(self):
        """Return the visible text of the latest reply."""
        return self.page.text(self.reply_id)

    def thoughts(self, start=0, person=None):
        """Return what a reader of the latest thoughts is given: (text, where it goes on)."""
        path = f"/chats/{self.chat_id}?thoughts={self.reply_id}&from={start}"
        answer = (person or self.person).get(path, **{"HX-Request": "true"})
        if answer.status != 200:
            return answer.status, None
        found = parse(answer.text).find(id=f"message-{self.reply_id}-thoughts")
        more = found.a and int(found.a.extract()["hx-get"].rpartition("=")[2])
        return found.get_text(), more

    @property
    def summary(self):
        """Return what stands over the latest reply's thoughts, without the seconds."""
        summary = self.reply and self.reply.find("summary")
        return summary and re.sub(r"(\d+ min )?\d+ s", "…", summary.get_text())

    @property
    def html(self):
        """Return the message list without its times in words."""
        return TIME_IN_WORDS.sub(r"\1", self.page.html)

    def reloaded(self):
        """Return the message list of a fresh load, to compare with `html`."""
        return TIME_IN_WORDS.sub(r"\1", Page(self._load()).html)

    def _load(self):
        answer = self.person.get(f"/chats/{self.chat_id}")
        assert answer.status == 200, answer.text[:2000]
        return answer.text


def words(text):
    """Return the words w0, w1, … of a text, in order."""
    return WORD.findall(text)


def numbered(count):
    """Return the first `count` words of all `prose`."""
    return [f"w{n}" for n in range(count)]


def prose(count, start=0):
    """Return `count` tokens whose words are numbered, as Markdown of many kinds."""
    return [shape(start + n) for n in range(count)]


def shape(n):
    """Return token n: every eighth begins another kind of block."""
    inner = {3: "**w{n}**", 4: "`w{n}`", 5: "*w{n}", 6: "w{n}*"}.get(n % 8, "w{n}")
    return OPENINGS.get(n % 72, " ") + inner.replace("{n}", str(n))


def send(tab, content="count", **fields):
    """Send a message from a tab; it must be accepted."""
    answer = tab.person.say(tab.chat_id, content, **fields)
    assert answer.status == 204, answer.text


def paced(provider, tokens, gap=0.005, hold=False, **options):
    """Queue a reply that says its tokens one by one, with `hold` once it is released."""
    script = provider.reply(**options)
    if hold:
        script.holds()
    for token in tokens:
        script.says(token).pauses(gap)
    return script


def step_by_step(tab, provider, tokens, step=20):
    """Send a message whose reply says so many tokens only when those before are on the page."""
    script = provider.reply()
    steps = [tokens[n : n + step] for n in range(0, len(tokens), step)]
    for some in steps:
        script.says(*some).holds()
    send(tab)
    for number, some in enumerate(steps, 1):
        script.wait_for_hold(number)
        tab.wait_for_words(WORD.search(some[-1])[0])
        script.release()
    tab.wait_for_status("complete")
