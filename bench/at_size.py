"""How long the server takes for each page where one person has 5,000 chats and 500,000 messages.

    uv run python -m bench.at_size [DATABASE_URL]

Without an address it makes an SQLite file. A row is a route: median, p95 and CPU (ms) of `ROUNDS`
requests by Flask's test client, and the size of the answer. Redis is where `REDIS_URL` says.
"""

import os
import sys
import tempfile
import time
import uuid
from datetime import timedelta
from statistics import median, quantiles

from sqlalchemy import insert, text

from app import create_app
from chattable.database import now
from models import Chat, Message, User, db
from tests.entered import entered

CHATS, LONG, MESSAGES = 5_000, 10_000, 500_000
ROUNDS = 40
WORDS = "What is said in a message of a usual length, in words of a usual length. " * 3


def fill():
    """Make a person, their chats and what was said in them; the first chat is the long one."""
    user = User(name="Ada", email="ada@example.com", password_hash="none")
    db.session.add(user)
    db.session.commit()
    begun = now()
    mine = {"chattable_type": "User", "chattable_id": user.id, "title": "A chat", "revision": 1}
    moments = [begun - timedelta(minutes=7 * n) for n in range(CHATS)]
    rows = [mine | {"_created_at": moment, "_updated_at": moment} for moment in moments]
    db.session.execute(insert(Chat), rows)
    each = (MESSAGES - LONG) // (CHATS - 1)
    for first in range(1, CHATS + 1, 500):
        chats = range(first, min(first + 500, CHATS + 1))
        said = [turn(chat, n) for chat in chats for n in range(LONG if chat == 1 else each)]
        db.session.execute(insert(Message), said)
    db.session.commit()
    db.session.execute(text("ANALYZE"))
    db.session.commit()
    return user


def turn(chat_id, number):
    asks = number % 2 == 0
    row = {"chat_id": chat_id, "role": "user" if asks else "assistant", "content": WORDS}
    costs = {"input_picodollars": 10**8, "output_picodollars": 10**9}
    return row | {"revision": number} | (dict.fromkeys(costs) if asks else costs)


def routes():
    last = now() - timedelta(minutes=7 * 2_500)
    cursor = f"{int(last.timestamp() * 10**6)}-2500"

    def form(chat_id):
        return {"chat_id": chat_id, "content": "Hello", "client_id": str(uuid.uuid4())}

    return {
        "GET /chats": lambda ada, n: ada.get("/chats"),
        "GET /chats?after=": lambda ada, n: ada.get(f"/chats?after={cursor}"),
        "GET /chats?archived=1": lambda ada, n: ada.get("/chats?archived=1"),
        "GET /sidebar?after=": lambda ada, n: ada.get(f"/sidebar?after={cursor}"),
        "GET /chats/new": lambda ada, n: ada.get("/chats/new"),
        "GET /chats/1 (10,000 messages)": lambda ada, n: ada.get("/chats/1"),
        "GET /chats/4000": lambda ada, n: ada.get("/chats/4000"),
        "GET /chats/1/edit": lambda ada, n: ada.get("/chats/1/edit"),
        "POST /chats": lambda ada, n: ada.post("/chats"),
        "POST /chats/2 (title)": lambda ada, n: ada.post("/chats/2", data={"title": f"Title {n}"}),
        "POST /chats/3 (pinned)": lambda ada, n: ada.post("/chats/3", data={"pinned": n % 2}),
        "POST /messages": lambda ada, n: ada.post("/messages", data=form(100 + n)),
        "the sweeper": lambda ada, n: Message.running_ids(),
    }


def measure(ask, ada):
    """Return median, p95 and CPU in ms, and the size of the answer in bytes."""
    took, busy = [], time.process_time()
    for number in range(ROUNDS):
        began = time.perf_counter()
        answer = ask(ada, number)
        took.append(1000 * (time.perf_counter() - began))
        db.session.remove()
    assert getattr(answer, "status_code", 200) < 400, answer.text[:500]
    busy = 1000 * (time.process_time() - busy) / ROUNDS
    return median(took), quantiles(took, n=20)[-1], busy, len(getattr(answer, "data", b""))


def main(url=None):
    folder = tempfile.TemporaryDirectory()
    app = create_app(
        {
            "DATABASE_URL": url or f"sqlite:///{folder.name}/chattable.db",
            "REDIS_URL": os.environ.get("REDIS_URL", "redis://localhost:6379/0"),
            "REDIS_PREFIX": f"at_size:{uuid.uuid4()}",
            "SECRET_KEY": "at size",
            "INSTANCE_PATH": folder.name,
            "WTF_CSRF_ENABLED": False,
            "MODELS": "gpt-4o-mini",
        }
    )
    with app.app_context():
        db.create_all()
        user = fill()
        for name, ask in routes().items():
            ada = entered(app, user)
            *times, size = measure(ask, ada)
            print(f"| {name} |", *(f"{ms:.1f} |" for ms in times), f"{size / 1000:.1f} kB |")
    folder.cleanup()


if __name__ == "__main__":
    main(*sys.argv[1:2])
