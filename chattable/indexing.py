"""The index of what was said, which SQLite or PostgreSQL keeps by itself, and how it is made.

`db.create_all()` makes it along with the table of messages, and so does a migration that calls
`install`. One that batch-alters chats or messages in SQLite uninstalls it before and installs it
after: SQLite renames no table of which triggers and views speak.
"""

from typing import Any

from sqlalchemy import Connection, event, inspect

from chattable.snippets import CLOSE

# A place in the index is a message's id; and a chat's, for its title, after all of those.
TITLES = 1 << 32
# In SQLite the owner's id stands before it, with as many bits as are left of 63.
OWNERS = (1 << 30) - 1
# What is between words, for PostgreSQL and for Python: no name of it means the same everywhere.
BETWEEN = (
    r"[\u0001-\u002f\u003a-\u0040\u005b-\u0060\u007b-\u00a9\u00ab-\u00b1\u00b4\u00b6-\u00b8\u00bb"
    r"\u00bf\u00d7\u00f7\u02c2-\u02df\u0589\u058a\u05be\u05c0\u05c3\u05f3\u05f4\u060c\u061b\u061f"
    r"\u066a-\u066d\u06d4\u0964\u0965\u0e3f\u0e4f\u0e5a\u0e5b\u2000-\u206f\u20a0-\u20cf"
    r"\u2190-\u2bff\u2e00-\u2e7f\u3000-\u3004\u3008-\u3020\u3030\u303d-\u303f\u30fb\ufe00-\ufe6f"
    r"\ufffc\ufffd\U0001f000-\U0001faff]+"
)
ACCENTS = r"[\u0300-\u036f]"
SECURE_DELETE = (3, 42)  # of SQLite
# PostgreSQL takes no more than a megabyte of different words; and SQLite's other writers wait.
MOST = 80_000  # characters
RUNNING = "('pending', 'streaming')"


def install(connection: Connection, messages: Any, chats: Any) -> None:
    """Make the index of what two tables have, or make it anew."""
    uninstall(connection, messages, chats)
    run(connection, CREATE, messages, chats)
    if securely_deletes(connection):
        # What was deleted is overwritten here, too.
        run(connection, SECURE, messages, chats)


def index_of(messages: Any) -> str:
    return f"{messages.name}_search"


def uninstall(connection: Connection, messages: Any, chats: Any) -> None:
    """Drop the index, if it is there."""
    run(connection, DROP, messages, chats)


def keep_with(messages, chats):
    """Have the index made and dropped with the table of messages."""
    event.listen(messages, "after_create", lambda table, bind, **_: install(bind, table, chats))
    event.listen(messages, "before_drop", lambda table, bind, **_: uninstall(bind, table, chats))


def securely_deletes(connection):
    return getattr(connection.dialect.dbapi, "sqlite_version_info", ()) >= SECURE_DELETE


def run(connection, statements, messages, chats):
    names = names_of(connection, messages, chats)
    for statement in statements.get(connection.dialect.name, ()):
        connection.exec_driver_sql(statement.format_map(names))


def names_of(connection, messages, chats):
    quoted, index = connection.dialect.identifier_preparer, index_of(messages)
    columns = {each["name"] for each in inspect(connection).get_columns(chats.name, chats.schema)}
    return {
        "messages": quoted.format_table(messages),
        "chats": quoted.format_table(chats),
        "index": Name(quoted, index, messages.schema),
        # A trigger or an index of PostgreSQL is where its table is.
        "own": Name(quoted, index),
        # An app's chats may have no title, and then no such entry.
        "title": "title" if "title" in columns else "''",
        "collated": collation(connection),
        "retitled": "title" if "title" in columns else "id",
    }


def collation(connection):
    """Return what has PostgreSQL know all capitals, whatever its locale: ICU, if it is built in."""
    if connection.dialect.name == "postgresql":
        known = "SELECT 1 FROM pg_collation WHERE collname = 'und-x-icu'"
        if connection.exec_driver_sql(known).scalar():
            return ' COLLATE "und-x-icu"'
    return ""


class Name:
    """A name to be quoted, in its schema; `{index:_words}` in a template is one derived from it."""

    def __init__(self, quoted, name, schema=None):
        self._quoted, self._name, self._schema = quoted, name, schema

    def __format__(self, suffix):
        name = self._quoted.quote(self._name + suffix)
        return f"{self._quoted.quote(self._schema)}.{name}" if self._schema else name


# What can be found.
FOUND = f"""said.role <> 'system' AND said.content <> '' AND said.status NOT IN {RUNNING}
AND coalesce(said.finish_reason, '') <> 'unseen'"""
CHANGED = "UPDATE OF chat_id, role, status, finish_reason, content ON {messages}"
RETITLED = "UPDATE OF {retitled}, chattable_type, chattable_id ON {chats}"

# SQLite: FTS5 takes the words and keeps no copy of them, so it is told them again to forget them.

# Of scripts without spaces each two neighbours are a word, and so is the last character.
PAIRS = f"""CASE WHEN pair GLOB '[{CLOSE}][{CLOSE}]' THEN ' ' || pair
WHEN pair GLOB '[{CLOSE}]*' THEN ' ' || substr(pair, 1, 1) || ' ' ELSE substr(pair, 1, 1) END"""
# Part by part: SQLite counts from the beginning to find a character.
SPACED = f"""CASE WHEN text GLOB '*[{CLOSE}]*' THEN (WITH RECURSIVE
parts(part, rest) AS (SELECT substr(text, 1, 101), substr(text, 101)
UNION ALL SELECT substr(rest, 1, 101), substr(rest, 101) FROM parts WHERE rest <> ''),
numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 100),
pairs(pair) AS (SELECT substr(part, n, 2) FROM parts CROSS JOIN numbers WHERE n <= length(part))
SELECT group_concat({PAIRS}, '') FROM pairs) ELSE text END"""
OWNER = f"(chat.chattable_id & {OWNERS}) << 33"

SAID = f"""CREATE VIEW {{index:_said}} AS SELECT place, chat_id, message_id, {SPACED} AS words
FROM (SELECT ({OWNER}) | said.id AS place, said.chat_id, said.id AS message_id,
substr(said.content, 1, {MOST}) AS text
FROM {{messages}} said JOIN {{chats}} chat ON chat.id = said.chat_id WHERE {FOUND})"""
CALLED = f"""CREATE VIEW {{index:_called}} AS SELECT place, chat_id, {SPACED} AS words
FROM (SELECT ({OWNER}) | {TITLES} | id AS place, id AS chat_id, {{title}} AS text
FROM {{chats}} chat)"""

ADD = (
    "INSERT INTO {{index}}(rowid, words) SELECT place, words FROM {{index:{0}}} WHERE {1} = NEW.id;"
)
REMOVE = """INSERT INTO {{index}}({{own}}, rowid, words)
SELECT 'delete', place, words FROM {{index:{0}}} WHERE {1} = OLD.id;"""
MESSAGE, TITLE, MESSAGES = ("_said", "message_id"), ("_called", "chat_id"), ("_said", "chat_id")
MOVED = "NEW.chattable_id <> OLD.chattable_id"
IS_NEW, WAS_ENDED = f"NEW.status NOT IN {RUNNING}", f"OLD.status NOT IN {RUNNING}"
# {name: (when, on what condition, what is done)}
TRIGGERS = {
    "new": ("AFTER INSERT ON {messages}", IS_NEW, ADD.format(*MESSAGE)),
    "old": (f"BEFORE {CHANGED}", WAS_ENDED, REMOVE.format(*MESSAGE)),
    "end": (f"AFTER {CHANGED}", IS_NEW, ADD.format(*MESSAGE)),
    "gone": ("BEFORE DELETE ON {messages}", "true", REMOVE.format(*MESSAGE)),
    "title": ("AFTER INSERT ON {chats}", "true", ADD.format(*TITLE)),
    "old_title": (f"BEFORE {RETITLED}", "true", REMOVE.format(*TITLE)),
    "new_title": (f"AFTER {RETITLED}", "true", ADD.format(*TITLE)),
    "old_owner": (f"BEFORE {RETITLED}", MOVED, REMOVE.format(*MESSAGES)),
    "new_owner": (f"AFTER {RETITLED}", MOVED, ADD.format(*MESSAGES)),
    "lost_title": ("BEFORE DELETE ON {chats}", "true", REMOVE.format(*TITLE)),
    # While the chat is there, which says whose they are.
    "lost": ("BEFORE DELETE ON {chats}", "true", "DELETE FROM {messages} WHERE chat_id = OLD.id;"),
}
FTS5 = [
    """CREATE VIRTUAL TABLE {index} USING fts5(words, content='', columnsize=0, prefix='1 2 3',
    tokenize="unicode61 remove_diacritics 2 categories 'L* N* M* Co'")""",
    SAID,
    CALLED,
    *(
        f"CREATE TRIGGER {{own:_{name}}} {moment} WHEN {condition} BEGIN {action} END"
        for name, (moment, condition, action) in TRIGGERS.items()
    ),
    # In the order of their places: FTS5 is slow where they go back and forth.
    f"""INSERT INTO {{index}}(rowid, words) SELECT place, {SPACED} FROM (
    SELECT ({OWNER}) | said.id AS place, said.id FROM {{messages}} said
    JOIN {{chats}} chat ON chat.id = said.chat_id WHERE {FOUND} ORDER BY place LIMIT -1
    ) CROSS JOIN (SELECT id AS message_id, substr(content, 1, {MOST}) AS text FROM {{messages}})
    ON message_id = id""",
    "INSERT INTO {index}(rowid, words) SELECT place, words FROM {index:_called} ORDER BY place",
    "INSERT INTO {index}({own}) VALUES ('optimize')",
]

# PostgreSQL: a table of its own, for the index of words is asked for one owner's.

PLAIN = f"""regexp_replace(lower(normalize(regexp_replace(normalize(left(said, {MOST}), NFKD),
'{ACCENTS}', '', 'g'), NFC){{collated}}), '{BETWEEN}', ' ', 'g')"""
OWNED = "concat(chat.chattable_type, ' ', chat.chattable_id) AS owner"
TSVECTOR = [
    """CREATE TABLE {index} (owner text NOT NULL, place bigint NOT NULL, words tsvector NOT NULL,
    PRIMARY KEY (owner, place))""",
    f"""CREATE FUNCTION {{index:_words}}(said text) RETURNS tsvector LANGUAGE sql IMMUTABLE
    AS $$ SELECT to_tsvector('simple', CASE WHEN plain ~ '[{CLOSE}]' THEN regexp_replace(
    regexp_replace(plain, '(?<=[{CLOSE}])[{CLOSE}]', '\\& \\&', 'g'), '[{CLOSE}]+', ' \\& ', 'g')
    ELSE plain END) FROM (SELECT left({PLAIN}, {MOST}) AS plain) known $$""",
    f"""CREATE VIEW {{index:_said}} AS SELECT said.id::bigint AS place, said.chat_id,
    said.id AS message_id, {OWNED}, {{index:_words}}(said.content) AS words
    FROM {{messages}} said JOIN {{chats}} chat ON chat.id = said.chat_id WHERE {FOUND}""",
    f"""CREATE VIEW {{index:_called}} AS SELECT {TITLES} + id AS place, id AS chat_id,
    {OWNED}, {{index:_words}}({{title}}) AS words FROM {{chats}} chat""",
    """CREATE FUNCTION {index:_note_message}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    DELETE FROM {index} WHERE place = OLD.id;
    INSERT INTO {index} SELECT owner, place, words FROM {index:_said} WHERE message_id = NEW.id;
    RETURN NULL; END $$""",
    f"""CREATE FUNCTION {{index:_note_chat}}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    DELETE FROM {{index}} WHERE place = {TITLES} + OLD.id;
    INSERT INTO {{index}} SELECT owner, place, words FROM {{index:_called}} WHERE chat_id = NEW.id;
    IF TG_OP = 'UPDATE' THEN
    IF (NEW.chattable_type, NEW.chattable_id) <> (OLD.chattable_type, OLD.chattable_id) THEN
    UPDATE {{index}} SET owner = concat(NEW.chattable_type, ' ', NEW.chattable_id)
    WHERE place IN (SELECT id FROM {{messages}} WHERE chat_id = NEW.id);
    END IF; END IF; RETURN NULL; END $$""",
    f"""CREATE TRIGGER {{own:_new}} AFTER INSERT OR {CHANGED} FOR EACH ROW
    WHEN (NEW.status NOT IN {RUNNING}) EXECUTE FUNCTION {{index:_note_message}}()""",
    """CREATE TRIGGER {own:_gone} AFTER DELETE ON {messages} FOR EACH ROW
    EXECUTE FUNCTION {index:_note_message}()""",
    f"""CREATE TRIGGER {{own:_title}} AFTER INSERT OR DELETE OR {RETITLED} FOR EACH ROW
    EXECUTE FUNCTION {{index:_note_chat}}()""",
    "INSERT INTO {index} SELECT owner, place, words FROM {index:_said}",
    "INSERT INTO {index} SELECT owner, place, words FROM {index:_called}",
    "CREATE INDEX {own:_by_word} ON {index} USING gin (words)",
    # By hash, for it must not be taken for the order of one owner's places.
    "CREATE INDEX {own:_by_place} ON {index} USING hash (place)",
    "ANALYZE {index}",
]

CREATE = {"sqlite": FTS5, "postgresql": TSVECTOR}
SECURE = {"sqlite": ["INSERT INTO {index}({own}, rank) VALUES ('secure-delete', 1)"]}
DROP = {
    "sqlite": [
        *(f"DROP TRIGGER IF EXISTS {{own:_{name}}}" for name in TRIGGERS),
        "DROP VIEW IF EXISTS {index:_said}",
        "DROP VIEW IF EXISTS {index:_called}",
        "DROP TABLE IF EXISTS {index}",
    ],
    "postgresql": [
        "DROP FUNCTION IF EXISTS {index:_note_message}, {index:_note_chat} CASCADE",
        "DROP VIEW IF EXISTS {index:_said}, {index:_called}",
        "DROP TABLE IF EXISTS {index}",
        "DROP FUNCTION IF EXISTS {index:_words}",
    ],
}
