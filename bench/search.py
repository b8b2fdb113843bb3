"""What a search costs at size, in the database and up to the answer: 100,000 messages, 5,000 chats.

    uv run python -m bench.search [sqlite|postgres] [messages]

All are one person's; a fifth as much beside them is somebody else's, and says the same.
"""

import random
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import insert

from app import create_app
from bench.measure import percentile
from bench.text import WORDS
from chattable import indexing
from chattable.database import now
from models import Chat, Message, User, db
from tests.entered import entered
from tests.services import Postgres

CHARACTERS = (
    "的一是不了人在有我他这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可"
)
QUERIES = {
    "a word in every second message": "quartz",
    "a word in every thousandth": "zeolite",
    "a word in three messages": "obsidian",
    "no such word": "xylophone",
    "one letter": "t",
    "three letters": "con",
    "five letters": "conne",
    "several words": "connection server memory",
    "a common and a rare word": "quartz obsidian",
    "a phrase": '"request server"',
    "a rare phrase of common words": '"quartz the quartz"',
    "two characters": "中国",
    "one character": "的",
    "four characters": "我们中国",
}
ROUNDS = 40


@contextmanager
def database(kind):
    if kind == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{Path(folder) / 'bench.db'}"
    else:
        server = Postgres()
        try:
            yield server.database()
        finally:
            server.close()


def fill(chance, messages):
    """Have so many messages said, before there is an index; return (seconds to make it, user)."""
    indexing.uninstall(db.session.connection(), Message.__table__, Chat.__table__)
    users = [User(name=name, email=f"{name}@example.com", password_hash="-") for name in "ab"]
    db.session.add_all(users)
    db.session.commit()
    for user, count in zip(users, (messages, messages // 5), strict=True):
        talk(chance, user, count)
    db.session.commit()
    started = time.monotonic()
    indexing.install(db.session.connection(), Message.__table__, Chat.__table__)
    db.session.commit()
    return time.monotonic() - started, users[0]


def talk(chance, user, count):
    moment = now()
    owner = {"chattable_type": "User", "chattable_id": user.id, "_created_at": moment}
    chats = [
        {**owner, "title": " ".join(chance.choices(WORDS, k=5)), "_updated_at": moment}
        for _ in range(count // 20)
    ]
    ids = list(db.session.scalars(insert(Chat).returning(Chat.id), chats))
    for start in range(0, count, 5_000):
        batch = [
            {
                "chat_id": chance.choice(ids),
                "role": ("user", "assistant")[number % 2],
                "content": said(chance, number),
                "_created_at": moment,
            }
            for number in range(start, min(count, start + 5_000))
        ]
        db.session.execute(insert(Message), batch)


def said(chance, number):
    """Return about 500 characters; every tenth message is Chinese."""
    if number % 10 == 7:
        return "".join(chance.choices(CHARACTERS, k=200))
    words = chance.choices(WORDS, k=chance.randint(20, 160))
    words += ["quartz"] * (number % 2 == 0) + ["zeolite"] * (number % 1000 == 1)
    words += ["obsidian"] * (number % 40_000 == 3)
    chance.shuffle(words)
    return " ".join(words)


def ask(client, query):
    """Return the milliseconds of one answer to what somebody types."""
    started = time.perf_counter()
    answer = client.get("/search", query_string={"q": query}, headers={"HX-Request": "true"})
    assert answer.status_code == 200
    return 1000 * (time.perf_counter() - started)


def main(kind="sqlite", messages="100000"):
    with database(kind) as url, tempfile.TemporaryDirectory() as folder:
        config = {"DATABASE_URL": url, "INSTANCE_PATH": folder, "SECRET_KEY": "bench"}
        app = create_app(config | {"REDIS_URL": "redis://127.0.0.1:9/0", "OPENAI_API_KEY": "-"})
        with app.app_context():
            db.create_all()
            seconds, user = fill(random.Random(7), int(messages))
            print(f"{kind}: {messages} messages are indexed in {seconds:.1f} s")
            client = entered(app, user)
            ask(client, "warm up")
        everything = []
        for name, query in QUERIES.items():
            times = [ask(client, query) for _ in range(ROUNDS)]
            everything += times
            print(f"| {name} | {percentile(times, 0.5):.1f} | {percentile(times, 0.95):.1f} ms |")
        print(
            f"| all | {percentile(everything, 0.5):.1f} | {percentile(everything, 0.95):.1f} ms |"
        )
        with app.app_context():
            db.session.remove()
            db.engine.dispose()


if __name__ == "__main__":
    main(*sys.argv[1:])
