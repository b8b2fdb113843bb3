"""The mixins in an app of somebody else's, with its own `db`, as Flask-SQLAlchemy sets it up."""

import math
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import (
    BigInteger,
    Index,
    MetaData,
    TypeDecorator,
    UniqueConstraint,
    create_engine,
    event,
    inspect,
    text,
)
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import DeclarativeBase, registry

from chattable import Chattable, ReplyInProgress, init_app, keepers, live
from chattable.database import transient
from chattable.writing import INTERRUPTED
from tests.services import free_port, wait_until
from tests.stranger import Stranger

NAMES = {
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "ix": "ix_%(column_0_label)s",
    "pk": "pk_%(table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
}


@pytest.fixture
def config(sqlite_url, redis_url, provider):
    return {
        "SQLALCHEMY_DATABASE_URI": sqlite_url,
        "REDIS_URL": redis_url,
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": provider.url,
        "READ_TIMEOUT": 5,
    }


@pytest.fixture
def make(config):
    """Make a stranger's app with its tables; `config` adds to the configuration."""
    made = []

    def make(order="member chat message", config=config, **options):
        made.append(Stranger(config, order, **options))
        made[-1].db.create_all()
        return made[-1]

    yield make
    for stranger in reversed(made):
        stranger.close()


@pytest.fixture
def stranger(make):
    return make()


@pytest.fixture
def chat(stranger):
    return stranger.new_chat()


ORDERS = [
    "member chat message",
    "member message chat",
    "chat member message",
    "chat message member",
    "message member chat",
    "message chat member",
]


@pytest.mark.parametrize("order", ORDERS)
def test_models_may_come_in_any_order(make, order, provider):
    stranger = make(order)
    chat = stranger.new_chat()
    provider.says("Hel", "lo").uses(8, 2)
    assert chat.say("user", "Hi").author == "Ada"
    reply = chat.run("gpt-4o")
    wait_for_connections(stranger)
    assert [message.content for message in chat.messages] == ["Hi", "Hello"]
    assert (reply.prompt_token_usage, reply.completion_token_usage) == (8, 2)
    assert chat.cost == reply.input_cost + reply.output_cost > 0


def wait_for_connections(stranger):
    """Wait until no connection to the database is held: the keeper of leases has one at times."""
    pool = stranger.pool
    wait_until(lambda: pool.checkedout() == 0, 5, "the connections to come back")


def test_models_keep_what_is_their_own(make):
    own = {"__table_args__": (UniqueConstraint("subject", "chattable_id"), {"comment": "ours"})}
    stars = {"__table_args__": (Index("by_stars", "stars"),)}
    stranger = make(chat=own, message=stars)
    reply = stranger.new_chat().run("gpt-4o")
    reply.stars = 5
    stranger.db.session.commit()
    assert stranger.db.session.query(stranger.AiMessage).filter_by(stars=5).one() is reply
    indexes = inspect(stranger.db.engine).get_indexes("ai_message")
    assert {"by_stars", "ai_message_by_chat"} < {index["name"] for index in indexes}


def test_two_apps_in_one_process_share_nothing(make, config, tmp_path):
    one = make()
    two = make(config=config | {"SQLALCHEMY_DATABASE_URI": f"sqlite:///{tmp_path / 'two.db'}"})
    assert two.new_chat().run("gpt-4o").status == "complete"
    with one.app.app_context():
        assert one.db.session.query(one.AiMessage).count() == 0
        assert one.new_chat().run("gpt-4o").status == "complete"


def test_one_db_may_serve_two_apps(make, config, tmp_path):
    stranger = make()
    other = Flask("other")
    other.config.from_mapping(config)
    other.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path / 'other.db'}"
    stranger.db.init_app(other)
    init_app(other, stranger.db)
    with other.app_context():
        stranger.db.create_all()
        assert stranger.new_chat().run("gpt-4o").status == "complete"
        stranger.db.engine.dispose()
    assert stranger.db.session.query(stranger.AiMessage).count() == 0


def test_a_wrong_order_says_what_to_do(config):
    with pytest.raises(RuntimeError, match=r"db\.init_app\(app\) first"):
        init_app(Flask("wrong"), SQLAlchemy())


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_redis_that_is_not_named_is_the_usual_one(config, monkeypatch, nothing):
    monkeypatch.setenv("REDIS_URL", "")
    stranger = Stranger(config | {"REDIS_URL": nothing})
    assert stranger.app.config["REDIS_URL"] == "redis://localhost:6379"
    stranger.close()


def test_a_mixin_that_nobody_mixed_in_is_named(config):
    for order, missing in (("member", "ChatMixin"), ("member chat", "MessageMixin")):
        stranger = Stranger(config, order)
        with pytest.raises(LookupError, match=missing):
            stranger.Member()
        stranger.close()


def test_an_owner_needs_an_integer_id():
    db = SQLAlchemy()
    with pytest.raises(TypeError, match="Account needs an integer id"):

        class Account(Chattable, db.Model):
            id = db.Column(db.Uuid, primary_key=True)


def unusual_owners(db):
    class Guid(TypeDecorator):
        impl = db.CHAR(36)
        cache_ok = True

    return {
        "a text": {"id": db.Column(db.String(9), primary_key=True)},
        "a text of its own": {"id": db.Column(Guid, primary_key=True)},
        "not the key": {
            "key": db.Column(db.String(9), primary_key=True),
            "id": db.Column(db.Integer, unique=True),
        },
    }


@pytest.mark.parametrize("kind", ["a text", "a text of its own", "not the key"])
def test_an_owner_whose_id_finds_nobody_is_refused(kind):
    db = SQLAlchemy()
    with pytest.raises(TypeError, match="Thing needs an integer id"):
        type("Thing", (Chattable, db.Model), unusual_owners(db)[kind])


def test_owners_of_one_name_are_refused(stranger):
    columns = {"__tablename__": "others", "id": stranger.db.Column(BigInteger, primary_key=True)}
    with pytest.raises(TypeError, match="called Member"):
        type("Member", (Chattable, stranger.db.Model), columns)


def test_a_chat_may_be_given_its_owner(stranger):
    member = stranger.Member(name="Ada")
    chat = stranger.AiChat(chattable=member)
    stranger.db.session.add(member)
    stranger.db.session.commit()
    assert chat.say("user", "Hi").author == "Ada"
    assert (chat.chattable, member.chats) == (member, [chat])


def test_a_chat_whose_owner_was_deleted_goes_on_unheard(stranger, chat):
    stranger.db.session.execute(stranger.Member.__table__.delete())
    stranger.db.session.commit()
    stranger.db.session.expunge_all()
    chat = stranger.db.session.get(stranger.AiChat, 1)
    stranger.heard.clear()
    assert chat.run("gpt-4o").status == "complete"
    assert not stranger.heard


def test_an_owner_may_have_subclasses(stranger):
    db = stranger.db

    class Person(Chattable, db.Model):
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}

        id = db.Column(db.Integer, primary_key=True)
        kind = db.Column(db.String(20))

    class Admin(Person):
        __mapper_args__ = {"polymorphic_identity": "admin"}

        id = db.Column(db.ForeignKey("person.id"), primary_key=True)

    db.create_all()
    admin = Admin(chats=[stranger.AiChat()])
    db.session.add(admin)
    db.session.commit()
    (chat,) = admin.chats
    assert chat.run("gpt-4o").status == "complete"
    db.session.remove()
    admin = db.session.get(Person, 1)
    chat = admin.chat_or_404(1)
    assert (chat.chattable, chat.chattable_type) == (admin, "Person")
    db.session.delete(admin)
    db.session.commit()
    assert db.session.query(stranger.AiMessage).count() == 0


def test_a_chat_knows_its_owner_before_anybody_saved_them(stranger):
    member, chat = stranger.Member(name="Ada"), stranger.AiChat()
    member.chats.append(chat)
    assert chat.chattable is member
    stranger.db.session.add(member)
    assert chat.say("user", "Hi").author == "Ada"


def test_a_chat_whose_owner_nobody_imported_says_so(make):
    stranger = make("chat message")
    chat = stranger.AiChat(chattable_type="Member", chattable_id=1)
    stranger.db.session.add(chat)
    stranger.db.session.commit()
    with pytest.raises(LookupError, match="Member"):
        chat.say("user", "Hi")


def test_what_an_app_adds_to_a_chat_by_itself_was_said(chat, stranger, provider):
    chat.messages.append(stranger.AiMessage(role="user", content="Hi"))
    stranger.db.session.commit()
    chat.run("gpt-4o")
    assert provider.wait_for_request().json["messages"] == [{"role": "user", "content": "Hi"}]


# Where the tables are.


def test_the_types_of_an_apps_own_base_do_not_matter(make):
    types = {int: BigInteger, str: BigInteger, bool: BigInteger}

    class Base(DeclarativeBase):
        registry = registry(type_annotation_map=types)

    assert make(model_class=Base).new_chat().run("gpt-4o").status == "complete"


def test_chats_may_have_a_database_of_their_own(make, config, tmp_path):
    binds = {"SQLALCHEMY_BINDS": {"ai": f"sqlite:///{tmp_path / 'ai.db'}"}}
    attributes = {"__bind_key__": "ai"}
    stranger = make(config=config | binds, chat=attributes, message=attributes)
    chat = stranger.new_chat()
    stranger.hook = lambda kind, member, message: live.broadcast_message(message)
    chat.say("user", "Hi")
    assert chat.run("gpt-4o").status == "complete"
    stranger.db.session.remove()
    chat = stranger.AiChat.with_owner(1)
    member = chat.chattable
    assert member.chats_by_recency() == [chat]
    assert member.message_or_404(1).content == "Hi"
    stranger.db.session.delete(member)
    stranger.db.session.commit()
    assert stranger.db.session.query(stranger.AiMessage).count() == 0


def test_chats_may_have_a_schema_of_their_own(make, config, postgres_url):
    url = postgres_url.replace("postgresql:", "postgresql+psycopg:")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA ai"))
    attributes = {"__table_args__": {"schema": "ai"}}
    stranger = make(
        config=config | {"SQLALCHEMY_DATABASE_URI": url},
        chat=attributes,
        message=attributes,
        metadata=MetaData(naming_convention=NAMES),
    )
    assert stranger.new_chat().run("gpt-4o").status == "complete"
    assert len(live.install()) == 10
    tables = set(inspect(engine).get_table_names("ai"))
    engine.dispose()
    assert tables == {"ai_chat", "ai_message", "ai_chat_install", "ai_message_search"}


def test_two_apps_may_share_a_schema_and_hear_nothing_of_each_other(make, config, postgres_url):
    url = postgres_url.replace("postgresql:", "postgresql+psycopg:")
    apps = [
        make(config=config | {"SQLALCHEMY_DATABASE_URI": url}, **named)
        for named in (
            {},
            {"chat": {"__tablename__": "talks"}, "message": {"__tablename__": "words"}},
        )
    ]
    names = []
    for app in apps:
        with app.app.app_context():
            chat = app.new_chat()
            chat.say("user", "Hi", client_id="one")
            assert chat.exchange("Hi", "one", "gpt-4o") is None
            names.append(live.install())
    assert names[0] != names[1]


def test_a_database_in_memory_will_do(make, config, provider):
    stranger = make(config=config | {"SQLALCHEMY_DATABASE_URI": "sqlite://"})
    chat = stranger.new_chat()
    provider.says("one ").pauses(1.1).says("two ").pauses(1.1).says("three")
    assert chat.run("gpt-4o").content == "one two three"


# Hooks.


def commits(stranger, member, message):
    stranger.db.session.commit()


def commits_and_looks(stranger, member, message):
    stranger.db.session.commit()
    assert (member.name, message.role, message.chat.chattable) == ("Ada", message.role, member)


def adds(stranger, member, message):
    stranger.db.session.add(stranger.Note(text=f"{len(stranger.heard)} {message.content}"))


def adds_in_a_savepoint(stranger, member, message):
    with stranger.db.session.begin_nested():
        adds(stranger, member, message)


def adds_and_fails(stranger, member, message):
    stranger.db.session.add(stranger.Note(text="the same"))
    try:
        stranger.db.session.commit()
    except IntegrityError:
        stranger.db.session.rollback()


def rolls_back(stranger, member, message):
    stranger.db.session.rollback()


def asks(stranger, member, message):
    assert message in stranger.db.session.query(stranger.AiMessage).all()


def forgets(stranger, member, message):
    stranger.db.session.expire_all()


def closes(stranger, member, message):
    stranger.db.session.remove()


def changes(stranger, member, message):
    message.stars = 5


HOOKS = [
    *(commits, commits_and_looks, adds, adds_in_a_savepoint, adds_and_fails),
    *(rolls_back, asks, forgets, closes, changes),
]


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.__name__)
def test_a_hook_may_do_anything_and_nothing_is_lost_or_held(stranger, chat, provider, hook):
    stranger.hook = lambda kind, *args: hook(stranger, *args)
    free = []
    script = provider.says("one ", hold=True).says("two ").holds().says("three").uses(8, 2)

    def look():
        for shown in (["one "], ["one ", "one two "]):
            wait_until(lambda shown=shown: updates(stranger) == shown, 5, "the update")
            wait_for_connections(stranger)
            free.append(shown)
            script.release()

    looking = threading.Thread(target=look)
    looking.start()
    chat.say("user", "count")
    reply = chat.run("gpt-4o")
    looking.join()
    assert len(free) == 2
    wait_for_connections(stranger)
    assert (reply.status, reply.content, reply.completion_token_usage) == COUNTED
    assert updates(stranger) == ["one ", "one two ", "one two three"]
    stranger.db.session.remove()
    stored = stranger.db.session.get(stranger.AiMessage, 2)
    assert (stored.status, stored.content, stored.completion_token_usage) == COUNTED
    kept = {adds: len(stranger.heard), adds_in_a_savepoint: len(stranger.heard), adds_and_fails: 1}
    assert stranger.db.session.query(stranger.Note).count() == kept.get(hook, 0)
    assert stored.stars == (5 if hook is changes else None)


COUNTED = "complete", "one two three", 2


def updates(stranger):
    """Return what the hook was shown of the reply, each once."""
    return list(dict.fromkeys(content for kind, *_, content in stranger.heard if kind == "update"))


@pytest.mark.parametrize("hook", [asks, commits, adds_and_fails, forgets])
def test_a_reply_holds_no_connection_before_its_first_word_either(stranger, chat, provider, hook):
    live.install()  # the keeper of leases would ask for it meanwhile
    stranger.db.session.commit()
    stranger.hook = lambda kind, *args: hook(stranger, *args)
    script = provider.reply().begins().holds()

    with ThreadPoolExecutor() as pool:
        reply = pool.submit(in_a_context, stranger, lambda: stranger.AiChat.with_owner(1).run("m"))
        script.wait_for_hold()
        try:
            wait_for_connections(stranger)
            assert not reply.done()
        finally:
            script.release()
        reply.result()


def test_a_hook_may_broadcast_what_it_has_not_saved_yet(stranger, chat):
    def hook(kind, member, message):
        stranger.db.session.add(stranger.Note(text="mine"))
        stranger.db.session.flush()
        live.broadcast_message(message)

    stranger.hook = hook
    chat.say("user", "Hi")
    assert stranger.db.session.query(stranger.Note).count() == 1


def raises(stranger, when):
    """Have a hook raise `ZeroDivisionError` at a (kind, role, status), and never again."""

    def hook(kind, member, message):
        if when == (kind, message.role, message.status):
            stranger.hook = lambda *args: None
            raise ZeroDivisionError

    stranger.hook = hook


@pytest.mark.parametrize(
    ("when", "ended"),
    [
        (("create", "assistant", "pending"), "failed"),
        (("update", "assistant", "streaming"), "failed"),
        (("update", "assistant", "complete"), "complete"),
    ],
)
def test_a_reply_ends_though_a_hook_raises(stranger, chat, when, ended):
    raises(stranger, when)
    chat.say("user", "Hi")
    with pytest.raises(ZeroDivisionError):
        chat.run("gpt-4o")
    assert chat.messages[-1].status == stranger.heard[-1][2] == ended
    assert chat.run("gpt-4o").status == "complete"


@pytest.mark.parametrize("when", [("create", "pending"), ("update", "streaming")])
def test_a_reply_ends_whatever_a_hook_that_raises_has_left_in_the_session(stranger, chat, when):
    stranger.db.session.add(stranger.Note(text="the same"))
    chat.say("user", "Hi")

    def hook(kind, member, message):
        if when == (kind, message.status):
            stranger.db.session.add(stranger.Note(text="the same"))
            raise ZeroDivisionError

    stranger.hook = hook
    with pytest.raises(ZeroDivisionError):
        chat.run("gpt-4o")
    assert chat.messages[-1].status == "failed"


def test_what_was_said_is_kept_though_a_hook_raises(stranger, chat):
    raises(stranger, ("create", "user", "complete"))
    with pytest.raises(ZeroDivisionError):
        chat.say("user", "Hi")
    assert [message.content for message in chat.messages] == ["Hi"]


def test_a_hook_that_finds_the_database_locked_costs_no_reply(stranger, chat, provider):
    provider.says("one ", hold=True).says("two")

    def hook(kind, member, message):
        if message.status == "streaming" and message.content == "one ":
            provider.release()
            raise OperationalError("INSERT", {}, sqlite_busy())

    stranger.hook = hook
    reply = chat.run("gpt-4o")
    assert (reply.status, reply.content) == ("complete", "one two")


def sqlite_busy():
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error


# The session of the app.


def test_what_the_app_has_in_its_session_is_saved_along(stranger, chat):
    stranger.db.session.add(stranger.Note(text="mine"))
    chat.say("user", "Hi")
    stranger.db.session.rollback()
    assert stranger.db.session.query(stranger.Note).count() == 1


def test_what_was_said_before_takes_nothing_of_the_app_along(stranger, chat):
    said = chat.say("user", "Hi", client_id="one id")
    stranger.db.session.add(stranger.Note(text="mine"))
    assert chat.say("user", "Hi", client_id="one id") is said
    assert stranger.db.session.query(stranger.Note).count() == 1


def test_a_running_reply_takes_nothing_of_the_app_along(stranger, chat):
    chat.begin_reply("gpt-4o")
    stranger.db.session.add(stranger.Note(text="mine"))
    live.redis().set(live.lease_key(chat.running_reply.id), 1)
    with pytest.raises(ReplyInProgress):
        chat.run("gpt-4o")
    assert stranger.db.session.query(stranger.Note).count() == 1


def test_what_the_app_itself_did_wrong_is_said_as_it_is(stranger, chat):
    stranger.db.session.add(stranger.Note(text="mine"))
    stranger.db.session.commit()
    for go_on in (lambda: chat.say("user", "Hi"), lambda: chat.run("gpt-4o")):
        stranger.db.session.add(stranger.Note(text="mine"))
        with pytest.raises(IntegrityError, match="note"):
            go_on()
        stranger.db.session.rollback()
    assert chat.messages == []


@pytest.mark.parametrize("url", ["sqlite_url", "postgres_url"])
def test_what_cannot_be_saved_is_said_and_nothing_is_taken_for_it(make, config, request, url):
    url = request.getfixturevalue(url).replace("postgresql:", "postgresql+psycopg:")
    stranger = make(config=config | {"SQLALCHEMY_DATABASE_URI": url})
    stranger.AiMessage.__table__.c.stars.nullable = False
    stranger.db.drop_all()
    stranger.db.create_all()
    chat = stranger.new_chat()
    for go_on in (
        lambda: chat.say("user", "Hi"),
        lambda: chat.run("gpt-4o"),
        lambda: chat.exchange("Hi", None, "gpt-4o"),
    ):
        with pytest.raises(IntegrityError, match="stars"):
            go_on()
    assert chat.messages == []


@pytest.mark.parametrize("url", ["sqlite_url", "postgres_url"])
def test_a_role_that_is_none_is_refused(make, config, request, url):
    url = request.getfixturevalue(url).replace("postgresql:", "postgresql+psycopg:")
    chat = make(config=config | {"SQLALCHEMY_DATABASE_URI": url}).new_chat()
    chat.say("user", "Hi")
    with pytest.raises(IntegrityError, match="known_role"):
        chat.say("tool", "Hello")
    assert [message.content for message in chat.messages] == ["Hi"]


@pytest.mark.parametrize("url", ["sqlite_url", "postgres_url"])
def test_what_was_said_before_or_to_nobody_is_no_error(make, config, request, url):
    url = request.getfixturevalue(url).replace("postgresql:", "postgresql+psycopg:")
    stranger = make(config=config | {"SQLALCHEMY_DATABASE_URI": url})
    chat = stranger.new_chat()
    said = chat.say("user", "Hi", client_id="one")
    assert chat.say("user", "Hi", client_id="one") is said
    assert chat.exchange("Hi", "one", "gpt-4o") is None
    chat.begin_reply("gpt-4o")
    assert chat.exchange("And now?", "two", "gpt-4o") is None
    stranger.db.session.execute(stranger.AiMessage.__table__.delete())
    stranger.db.session.execute(stranger.AiChat.__table__.delete())
    stranger.db.session.commit()
    assert chat.say("user", "Is anybody there?") is None


@pytest.mark.parametrize("expires", [True, False])
def test_a_chat_that_was_read_before_knows_what_was_said_as_the_app_has_it(make, expires):
    stranger = make(session_options={"expire_on_commit": expires})
    chat = stranger.new_chat()
    assert (len(chat.messages), chat.revision) == (0, 0)
    chat.say("user", "Hi")
    chat.run("gpt-4o")
    if not expires:
        stranger.db.session.refresh(chat)
    assert [message.role for message in chat.messages] == ["user", "assistant"]
    assert chat.revision == 3


@pytest.mark.parametrize("url", ["sqlite_url", "postgres_url"])
def test_what_no_database_takes_is_left_out_of_what_is_said(make, config, request, url):
    url = request.getfixturevalue(url).replace("postgresql:", "postgresql+psycopg:")
    chat = make(config=config | {"SQLALCHEMY_DATABASE_URI": url}).new_chat()
    assert chat.say("user", "one\0 \ud83d two").content == "one \ufffd two"


def test_a_cost_is_any_number(stranger, chat):
    reply = stranger.AiMessage(chat_id=chat.id, role="assistant", content="Hello", input_cost=2)
    stranger.db.session.add(reply)
    stranger.db.session.commit()
    dear = stranger.db.session.query(stranger.AiMessage).filter(stranger.AiMessage.input_cost > 1)
    assert [message.input_cost for message in dear] == [2]


# The end.


@pytest.fixture(params=["ignored", "kept"])
def foreign_keys(request, make):
    """A stranger whose SQLite minds foreign keys, or does not."""
    stranger = make()
    if request.param == "kept":

        def enforce(connection, _):
            connection.execute("PRAGMA foreign_keys=ON")

        event.listen(stranger.db.engine, "connect", enforce)
        stranger.db.engine.dispose()
    return stranger


ENDS = {
    "the member": lambda db, chat: db.session.delete(chat.chattable),
    "the chat": lambda db, chat: db.session.delete(chat),
    "the chat, by itself": lambda db, chat: chat.delete(),
    "the chat of the member": lambda db, chat: chat.chattable.chats.remove(chat),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_who_goes_leaves_nothing_behind(foreign_keys, end):
    stranger = foreign_keys
    chat, other = stranger.new_chat(), stranger.new_chat()
    for each in (chat, other):
        each.say("user", "Hi")
        each.run("gpt-4o")
        each.run("gpt-4o", after=each.messages[-1].follows)
    end(stranger.db, chat)
    stranger.db.session.commit()
    assert stranger.db.session.query(stranger.AiChat).all() == [other]
    left = stranger.db.session.query(stranger.AiMessage).all()
    assert {message.chat_id for message in left} == {other.id}
    assert len(left) == 3


def test_a_reply_whose_writer_was_killed_makes_way_for_the_next(stranger, chat):
    chat.say("user", "Hi")
    dead = chat.begin_reply("gpt-4o")
    assert chat.run("gpt-4o").status == "complete"
    stranger.db.session.refresh(dead)
    assert (dead.status, dead.error) == ("failed", INTERRUPTED)


def renames_the_owner(stranger):
    stranger.db.session.execute(text("UPDATE ai_chat SET chattable_type = 'Renamed' WHERE id = 1"))


def takes_the_chat_away(stranger):
    stranger.db.session.execute(text("DELETE FROM ai_chat WHERE id = 1"))


def breaks_the_hook(stranger):
    stranger.hook = lambda kind, member, message: message.chat_id == 1 and 1 / 0


@pytest.mark.parametrize("spoil", [renames_the_owner, takes_the_chat_away, breaks_the_hook])
def test_a_reply_that_resists_keeps_no_other_from_its_end(stranger, chat, spoil):
    ids = [each.begin_reply("gpt-4o").id for each in (chat, stranger.new_chat())]
    spoil(stranger)
    stranger.db.session.commit()
    stranger.db.session.expunge_all()
    keepers.interrupt_orphans(dict.fromkeys(ids, -math.inf))
    replies = [stranger.db.session.get(stranger.AiMessage, id) for id in ids]
    if spoil is takes_the_chat_away:  # with all that was said in it
        assert replies.pop(0) is None
    assert {(reply.status, reply.error) for reply in replies} == {("failed", INTERRUPTED)}


def test_a_reply_whose_chat_is_taken_away_ends(stranger, chat, provider):
    provider.says("one", hold=True)
    with ThreadPoolExecutor() as pool:
        reply = pool.submit(in_a_context, stranger, lambda: stranger.AiChat.with_owner(1).run("m"))
        provider.wait_for_request(1)
        takes_the_chat_away(stranger)
        stranger.db.session.commit()
        provider.release()
        assert reply.result().status == "failed"
    assert chat.say("user", "Is anybody there?") is None


def in_a_context(stranger, work):
    with stranger.app.app_context():
        return work()


@pytest.mark.parametrize("named", ["sqlstate", "pgcode"])
def test_what_a_database_says_is_heard_from_either_driver_of_postgresql(named):
    """psycopg calls the code of an error sqlstate, psycopg2 pgcode."""
    for state, passes in (("25006", True), ("54000", False)):
        error = type("Error", (Exception,), {named: state})()
        assert transient(OperationalError("SELECT", {}, error)) is passes


# Without Redis.


@pytest.fixture
def alone(make, config):
    """A stranger whose hooks broadcast, though there is no Redis."""
    stranger = make(config=config | {"REDIS_URL": f"redis://127.0.0.1:{free_port()}"})
    stranger.hook = lambda kind, member, message: live.broadcast_message(message)
    return stranger


def test_without_redis_a_chat_goes_on_and_the_log_says_so_once(alone, caplog):
    chat = alone.new_chat()
    chat.say("user", "Hi")
    assert chat.run("gpt-4o").status == "complete"
    again = chat.run("gpt-4o", after=chat.messages[-1].follows)
    assert [message.status for message in chat.page()[0]] == ["complete", "complete"]
    assert (again.version, len(chat.messages)) == (2, 3)
    chat.delete()
    assert alone.db.session.query(alone.AiMessage).count() == 0
    assert len([said for said in caplog.messages if "Redis" in said]) == 1, caplog.text


def test_without_redis_a_reply_is_over_when_no_job_can_write_it_any_more(alone):
    chat = alone.new_chat()
    dead = chat.begin_reply("gpt-4o")
    with pytest.raises(ReplyInProgress):
        chat.run("gpt-4o")
    alone.app.config["JOB_TIMEOUT"] = 0
    assert chat.run("gpt-4o").status == "complete"
    alone.db.session.refresh(dead)
    assert (dead.status, dead.error) == ("failed", INTERRUPTED)
