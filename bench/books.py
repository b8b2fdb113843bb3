"""What the database says of messages and replies, read past the product."""

import sqlite3
from collections import Counter
from contextlib import closing, contextmanager
from itertools import groupby, pairwise
from typing import NamedTuple

import psycopg

COLUMNS = "id, chat_id, role, status, content, client_id, finish_reason"
RUNNING = ("pending", "streaming")


class Row(NamedTuple):
    """One message or reply."""

    id: int
    chat_id: int
    role: str
    status: str
    content: str
    client_id: str | None
    finish_reason: str | None


class Books:
    """The tables of one install, on SQLite or PostgreSQL."""

    def __init__(self, url):
        self.url = url
        self.sqlite = url.startswith("sqlite")

    def _connect(self):
        if self.sqlite:
            return sqlite3.connect(self.url.removeprefix("sqlite:///"), isolation_level=None)
        return psycopg.connect(self.url, connect_timeout=5)

    def rows(self):
        """Return all messages in order; raise `sqlite3.Error` or `psycopg.Error` without them."""
        with closing(self._connect()) as connection:
            found = connection.execute(f"SELECT {COLUMNS} FROM messages ORDER BY chat_id, id")
            return [Row(*row) for row in found.fetchall()]

    @contextmanager
    def locked(self):
        """Let nobody else write a message."""
        lock = "BEGIN IMMEDIATE" if self.sqlite else "LOCK TABLE messages IN EXCLUSIVE MODE"
        with closing(self._connect()) as connection:
            connection.execute(lock)
            yield
            connection.execute("ROLLBACK")

    @contextmanager
    def setting(self, name, value):
        """Have PostgreSQL, old connections included, live with another setting."""
        self._change(f"ALTER SYSTEM SET {name} = {value}")
        try:
            yield
        finally:
            self._change(f"ALTER SYSTEM RESET {name}")

    def _change(self, command):
        with psycopg.connect(self.url, autocommit=True) as connection:
            # whoever sets it may be under it
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(command)
            connection.execute("SELECT pg_reload_conf()")


def running(rows):
    """Return the replies that are still being written, as far as the database knows."""
    return [row for row in rows if row.status in RUNNING]


def answered(rows):
    """Return the client ids of messages that have a reply, however it ended."""
    return {
        message.client_id
        for message, reply in pairwise(rows)
        if message.chat_id == reply.chat_id and (message.role, reply.role) == ("user", "assistant")
    }


def doubled(rows):
    """Count what is there more often than once: a message's words, the reply to a message."""
    shown = [row for row in rows if row.finish_reason != "unseen"]
    said = Counter(row.content for row in shown if row.role == "user")
    replies = [
        len(list(several)) - 1
        for (_, role), several in groupby(shown, lambda row: (row.chat_id, row.role))
        if role == "assistant"
    ]
    return sum(said.values()) - len(said) + sum(replies)
