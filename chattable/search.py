"""Whatever was said in somebody's chats, found again by its words; see `chattable.indexing`."""

import functools
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from sqlalchemy import BigInteger, and_, bindparam, func, inspect, select, text
from sqlalchemy.orm import defer

from chattable.database import db
from chattable.family import family, family_of
from chattable.indexing import ACCENTS, BETWEEN, CLOSE, OWNERS, TITLES, Name, index_of
from chattable.owner import kind_of
from chattable.snippets import snippet

PAGE = 20
LONGEST = 200  # characters that are looked for
AFTER_ALL = 2 * TITLES


@dataclass
class Found:
    """A message, or a chat for its title: then `message` is None."""

    chat: Any
    message: Any
    snippet: Markup


@dataclass
class Term:
    """Words to be found one after the other, as the index has them and as they were written."""

    words: list[str]
    written: list[str]
    open: bool  # the last word may go on


def find(owner: Any, query: str, before: int | None = None) -> tuple[list[Found], int | None]:
    """Return (found, more): titles, then messages, the latest first, at most `PAGE` in all.

    What is found has each word of the query, or one that begins so; words in quotation marks stand
    in it as they are. `more` is the `before` to go on with, if there is more.
    """
    mapper = inspect(family_of(owner.__class__).message)
    dialect = db.session.get_bind(mapper=mapper).dialect
    terms = parse(query, folded if dialect.name == "postgresql" else str)
    if not terms:
        return [], None
    rows = look_up(owner, dialect, terms, before or AFTER_ALL)
    written = [term.written for term in terms]
    found = [
        Found(chat, message, snippet(message.content if message else chat.title, written))
        for _, chat, message in rows[:PAGE]
        if chat
    ]
    return found, rows[PAGE - 1].place if len(rows) > PAGE else None


def include_name(name: str | None, kind: str, _parents: Any) -> bool:
    """Return whether Alembic is to compare something: an index is not among an app's models.

    For `Migrate(app, db, include_name=…)`.
    """
    index = index_of(family().message.__table__)
    return not (kind == "table" and name and name.startswith(index))


# What is looked for.


def parse(query, plain):
    """Return the `Term`s of what a person wrote: in it nothing but quotation marks is syntax."""
    query = unicodedata.normalize("NFC", query[:LONGEST].replace("\0", " "))
    parts = re.finditer(r'"([^"]*)("?)|[^"\s]+', query)
    terms = [term(plain(each[1] or each[0]), open=not each[2]) for each in parts]
    return [term for term in terms if term.words]


def term(part, open):
    found = [word for word in re.sub(BETWEEN, " ", part).split() if is_word(word)]
    words, written = " ".join(found), [word.lower() for word in found]
    # A sign ends a word: C++ is not whatever begins with c.
    open = open and not re.search(f"{BETWEEN}$", part)
    # In a script without spaces a word may go on in any case: no lone last character, then.
    if re.search(f"[{CLOSE}]{{2}}$", words):
        return Term(pairs(words)[:-1], written, open=False)
    return Term(pairs(words), written, open or bool(re.search(f"[{CLOSE}]$", words)))


def is_word(word):
    return any(map(str.isalnum, word))


def pairs(words):
    """Return words, those of scripts without spaces as the index has them."""
    paired = re.sub(f"(?<=[{CLOSE}])([{CLOSE}])", r"\1 \1", words)
    return re.sub(f"([{CLOSE}]+)", r" \1 ", paired).split()


def folded(part):
    """Return words as PostgreSQL's index has them; SQLite's folds what it is asked itself."""
    bare = re.sub(ACCENTS, "", unicodedata.normalize("NFKD", part))
    return unicodedata.normalize("NFC", bare).lower()


# Where it is.


def look_up(owner, dialect, terms, before):
    its, kind = family_of(owner.__class__), kind_of(owner.__class__)
    values = {"kind": kind, "owner_id": owner.id, "limit": PAGE + 1}
    if dialect.name == "sqlite":
        low = (owner.id & OWNERS) << 33
        values |= {"low": low, "high": low + before, "query": fts5_query(terms)}
    else:
        values |= {"owner": f"{kind} {owner.id}", "before": before, "query": tsquery(terms)}
    rows: Any = []
    for where in PLACES[dialect.name]:
        if len(rows) <= PAGE:
            query = statement(its.chat, its.message, dialect, where)
            rows = db.session.execute(query, values).all()
    return rows


def fts5_query(terms):
    return " AND ".join(f'"{" ".join(term.words)}"{" *" * term.open}' for term in terms)


def tsquery(terms):
    phrases = (" <-> ".join(f"'{word}'" for word in term.words) for term in terms)
    return " & ".join(
        f"({phrase}{':*' * term.open})" for term, phrase in zip(terms, phrases, strict=True)
    )


@functools.cache
def statement(chat, message, dialect, where):
    """Return the query for (place, chat, message); what is somebody else's is not looked at."""
    table = message.__table__
    index = Name(dialect.identifier_preparer, index_of(table), table.schema)
    found = text(where.format(index=index)).columns(place=BigInteger).subquery()
    place = found.c.place
    # Once more, for two classes of owners may have the same id.
    mine = chat.chattable_type == bindparam("kind"), chat.chattable_id == bindparam("owner_id")
    its = chat.id == func.coalesce(message.chat_id, place - TITLES)
    query = select(place, chat, message).select_from(found)
    query = query.outerjoin(message, message.id == place).outerjoin(chat, and_(its, *mine))
    return query.options(defer(message.reasoning)).order_by(place.desc())


FTS5 = """
SELECT rowid & 8589934591 AS place FROM {index}
WHERE {index} MATCH :query AND rowid > :low AND rowid < :high ORDER BY rowid DESC LIMIT :limit
"""
# PostgreSQL cannot tell a common word from a rare one before it is found: so the latest are gone
# through, where a common one is soon met, and only then is the index of words asked.
LATEST = """
SELECT place FROM (
    SELECT place, words FROM {index} WHERE owner = :owner AND place < :before
    ORDER BY place DESC LIMIT 6000
) latest WHERE words @@ to_tsquery('simple', :query) ORDER BY place DESC LIMIT :limit
"""
ALL = """
WITH found AS MATERIALIZED (
    SELECT place FROM {index}
    WHERE owner = :owner AND place < :before AND words @@ to_tsquery('simple', :query)
) SELECT place FROM found ORDER BY place DESC LIMIT :limit
"""
PLACES = {"sqlite": [FTS5], "postgresql": [LATEST, ALL]}
