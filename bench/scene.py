"""A scene for a fault: people who write, pages that are open, and what became of all of it."""

import sqlite3
import time
import uuid
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException

import psycopg

from bench.books import Books, answered, doubled, running
from tests.tab import Tab, words

LOOK = 0.2
RECONNECT = 0.5
# Seconds in which an open page has to be what a fresh load shows.
CAUGHT_UP = 15
AT_ONCE = 8
AWAY = (OSError, HTTPException, TimeoutError)


class Watched(Tab):
    """A tab that connects again as htmx does, and remembers every word it has ever shown."""

    def __init__(self, person, chat_id):
        self.ever = defaultdict(set)
        self.due = 0
        self.broken = None
        super().__init__(person, chat_id, seen=Watched.remember)

    def remember(self):
        if self.reply:
            self.ever[self.reply_id] |= set(words(self.text))

    def follow(self):
        """Swap in what has come; open a socket that was closed again."""
        try:
            self.show()
        except AssertionError as error:
            self.broken = error
        if self.socket.code not in (None, 1008) and time.monotonic() > self.due:
            self.due = time.monotonic() + RECONNECT
            with suppress(*AWAY):
                self.connect()

    def equals_a_fresh_load(self):
        with suppress(*AWAY, AssertionError):
            return not self.broken and self.html == self.reloaded()
        return False


class Sent:
    """One message somebody wrote, and how the server has answered each time it was posted."""

    def __init__(self, tab, content):
        self.tab, self.content = tab, content
        self.client_id = str(uuid.uuid4())
        self.statuses = []

    def post(self):
        """Post it, maybe again; return the status, or 0 if nobody answered."""
        person, chat = self.tab.person, self.tab.chat_id
        try:
            status = person.say(chat, self.content, client_id=self.client_id).status
        except AWAY:
            status = 0
        self.statuses.append(status)
        return status

    @property
    def accepted(self):
        return 204 in self.statuses


class Scene:
    """The product on one database, its provider, and the tabs of one person.

    `chance` is the seeded `random.Random`, `postgres` the server or None, `wrong` what a fault
    found amiss beside the figures.
    """

    def __init__(self, stack, provider, chance, postgres):
        self.stack, self.provider, self.chance, self.postgres = stack, provider, chance, postgres
        self.books = Books(stack.database_url)
        self.person = stack.signup()
        self.tabs, self.sent, self.wrong, self.neighbours = [], [], [], []

    # what people do

    def open(self, count=1):
        """Open so many tabs, each with an empty chat of its own."""
        opened = [Watched(self.person, self.person.new_chat()) for _ in range(count)]
        self.tabs += opened
        return opened

    def forget(self, tab):
        """Leave out of the figures what belongs to a chat that was deleted."""
        self.tabs.remove(tab)
        self.sent = [message for message in self.sent if message.tab is not tab]

    def write(self, tab, count=20, gap=0.05, content=None):
        """Return a message, not posted yet, that asks for `count` words, `gap` seconds apart."""
        order = content or f"{count} words, {gap * 1000:.0f} ms apart"
        self.sent.append(Sent(tab, f"Message {len(self.sent)}: {order}"))
        return self.sent[-1]

    def send(self, tab, **order):
        """Write and post a message; return it."""
        message = self.write(tab, **order)
        message.post()
        return message

    def send_all(self, tabs, **order):
        """Send one message from each tab, several at a time; return them."""
        messages = [self.write(tab, **order) for tab in tabs]
        at_once(Sent.post, messages)
        return messages

    def insist(self, messages, patience=30):
        """Post what was not accepted until it is, as a person does who sees the draft again."""
        until = time.monotonic() + patience
        while (refused := [each for each in messages if not each.accepted]) and (
            time.monotonic() < until
        ):
            at_once(Sent.post, refused)
            self.watch(LOOK)
        self.expect(not refused, f"{len(refused)} never accepted: {statuses(refused)}")

    # what is seen

    def look(self):
        """Let every open page do what has come for it."""
        for tab in self.tabs:
            tab.follow()

    def watch(self, seconds):
        """Look on for so long."""
        self.wait_until(lambda: False, seconds)

    def wait_until(self, condition, seconds):
        """Look on until the condition holds, at most so long; return whether it does."""
        until = time.monotonic() + seconds
        self.look()
        while not (held := condition()) and time.monotonic() < until:
            time.sleep(LOOK)
            self.look()
        return held

    def wait_for_words(self, word, tabs=None, seconds=30):
        """Look on until each tab's latest reply shows a word."""
        shown = self.wait_until(
            lambda: all(tab.reply and word in words(tab.text) for tab in tabs or self.tabs),
            seconds,
        )
        self.expect(shown, f"{word} was never shown")

    def settle(self, seconds):
        """Look on until everything is stored, answered and ended; return whether it is."""
        return self.wait_until(lambda: not self.unsettled(), seconds)

    def unsettled(self):
        """Return what is still to come: accepted messages without an ended reply, replies."""
        try:
            rows = self.books.rows()
        except (sqlite3.Error, psycopg.Error) as error:
            return [error]
        done = answered(rows)
        return running(rows) + [each for each in self.accepted if each.client_id not in done]

    @property
    def accepted(self):
        return [message for message in self.sent if message.accepted]

    def expect(self, truth, sentence):
        """Note what is wrong beside the figures."""
        if not truth and sentence not in self.wrong:
            self.wrong.append(sentence)

    def expect_all_complete(self):
        """Expect that no reply was broken off."""
        ends = [row.status for row in self.books.rows() if row.role == "assistant"]
        broken = [end for end in ends if end != "complete"]
        self.expect(not broken, f"{len(broken)} of {len(ends)} replies not complete")

    # what became of it

    def figures(self, seconds):
        """Wait, at most so long, for the end of everything, then count."""
        started = time.monotonic()
        self.settle(seconds)
        settled = time.monotonic() - started
        self.wait_until(lambda: all(tab.equals_a_fresh_load() for tab in self.tabs), CAUGHT_UP)
        self.expect(not self.stack_has_lost(), "a worker has quit")
        return self.count() | {"settled": settled, "wrong": "; ".join(self.wrong)}

    def stack_has_lost(self):
        return [worker for worker in self.stack.workers if worker.poll() is not None]

    def count(self):
        rows = self.books.rows()
        known = {row.client_id for row in rows}
        done = answered(rows)
        return {
            "sent": len(self.sent),
            "accepted": len(self.accepted),
            "stored": sum(each.client_id in known for each in self.accepted),
            "answered": sum(each.client_id in done for each in self.accepted),
            "doubled": doubled(rows),
            "asked": len(self.provider.requests),
            "stuck": len(running(rows)),
            "pages": len(self.tabs),
            "equal": sum(tab.equals_a_fresh_load() for tab in self.tabs),
            "unsaved": self._unsaved({row.id: set(words(row.content)) for row in rows}),
        }

    def _unsaved(self, stored):
        shown = [(id, seen) for tab in self.tabs for id, seen in tab.ever.items()]
        return sum(len(seen - stored.get(id, set())) for id, seen in shown)


def at_once(act, things):
    """Do something with each thing, `AT_ONCE` at a time; return the results in order."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(act, things))


def statuses(messages):
    return sorted({message.statuses[-1] for message in messages})
