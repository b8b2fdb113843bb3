"""Chattable in other models and other apps; `chat.run` from a shell; the README's own lines."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy.orm import Mapped, mapped_column

from chattable import Chattable, ReplyInProgress, init_app, live
from models import Chat, Message, db
from pages.people import sign_up
from tests.patience import patient

ROOT = Path(__file__).resolve().parent.parent


class Robot(Chattable, db.Model):
    """A model of another app: it has chats and hears of every message in them."""

    __tablename__ = "robots"

    id: Mapped[int] = mapped_column(primary_key=True)
    heard = []

    def on_message_create(self, message):
        self.heard.append(("create", self.id, message.role, message.status, message.content))

    def on_message_update(self, message):
        self.heard.append(("update", self.id, message.role, message.status, message.content))


@pytest.fixture
def small_app(sqlite_url, redis_url, provider):
    """An app of somebody else's, prepared as the README says, in an open app context."""
    app = Flask("small")
    app.config.from_mapping(
        SQLALCHEMY_DATABASE_URI=sqlite_url,
        REDIS_URL=redis_url,
        OPENAI_API_KEY="sk-test",
        OPENAI_BASE_URL=provider.url,
        READ_TIMEOUT=5,
    )
    db.init_app(app)
    init_app(app, db)
    with app.app_context():
        db.create_all()
        yield app
        db.session.remove()
        db.engine.dispose()


@pytest.fixture
def robot(small_app):
    """A robot in the database of the small app that has heard nothing yet."""
    robot = Robot()
    db.session.add(robot)
    db.session.commit()
    Robot.heard.clear()
    return robot


def new_chat(owner):
    chat = Chat()
    owner.chats.append(chat)
    db.session.commit()
    return chat


def test_any_model_that_mixes_it_in_has_chats(robot):
    chat = new_chat(robot)
    assert robot.chats == [chat]
    assert robot.chats_by_recency() == [chat]
    assert robot.chat_or_404(chat.id) is chat
    assert chat.chattable is robot
    assert (chat.chattable_type, chat.chattable_id) == ("Robot", robot.id)


def test_the_chats_of_a_robot_are_not_those_of_the_person_with_its_number(robot):
    ada = sign_up("Ada", "ada@example.com", "correct horse battery")
    assert ada.id == robot.id
    chat = new_chat(robot)
    hers = new_chat(ada)
    db.session.expire_all()
    assert robot.chats == robot.chats_by_recency() == [chat]
    assert ada.chats == ada.chats_by_recency() == [hers]
    assert chat.chattable is robot
    assert hers.chattable is ada


def test_both_hooks_are_called_as_a_reply_grows(robot, provider):
    provider.says("one ").pauses(0.2).says("two ").pauses(0.2).says("three")
    chat = new_chat(robot)
    chat.say("user", "count")
    reply = chat.run("gpt-4o-mini")
    assert Robot.heard[0] == ("create", robot.id, "user", "complete", "count")
    assert Robot.heard[1] == ("create", robot.id, "assistant", "pending", "")
    grown = [content for hook, _, _, _, content in Robot.heard[2:-1] if hook == "update"]
    assert grown == sorted(grown, key=len)
    assert len(set(grown)) > 1
    assert all("one two three".startswith(content) for content in grown)
    assert Robot.heard[-1] == ("update", robot.id, "assistant", "complete", "one two three")
    assert len(Robot.heard) == 3 + len(grown)
    assert reply.content == "one two three"


def test_running_returns_the_reply_as_it_was_stored(robot, provider):
    provider.says("Hello!").uses(8, 2)
    chat = new_chat(robot)
    chat.say("user", "Hi")
    reply = chat.run("gpt-4o")
    db.session.expire_all()
    stored = db.session.get(Message, reply.id)
    assert (stored.status, stored.content, stored.model) == ("complete", "Hello!", "gpt-4o")
    assert (stored.prompt_token_usage, stored.completion_token_usage) == (8, 2)
    assert chat.messages[-1] is stored


def test_a_provider_that_fails_raises_nothing_and_is_told_to_the_hook(robot, provider):
    provider.fails(401)
    chat = new_chat(robot)
    chat.say("user", "Hi")
    reply = chat.run("gpt-4o")
    assert reply.status == "failed"
    assert "API key" in reply.error
    assert Robot.heard[-1][:4] == ("update", robot.id, "assistant", "failed")


def test_a_chat_has_one_running_reply(robot):
    chat = new_chat(robot)
    chat.say("user", "Hi")
    live.redis().set(live.lease_key(chat.begin_reply("gpt-4o").id), 1)
    with pytest.raises(ReplyInProgress):
        chat.run("gpt-4o")
    assert chat.ask("gpt-4o", "And you?", "some id") is None


def test_a_robot_that_goes_takes_its_chats_along(robot):
    chat = new_chat(robot)
    chat.say("user", "Hi")
    db.session.delete(robot)
    db.session.commit()
    assert db.session.query(Chat).count() == 0
    assert db.session.query(Message).count() == 0


def test_a_chat_whose_owner_is_not_here_is_not_taken_for_deleted(robot):
    chat = new_chat(robot)
    db.session.execute(db.update(Chat).values(chattable_type="Ghost"))
    db.session.commit()
    with pytest.raises(LookupError, match="Ghost"):
        Chat.with_owner(chat.id)
    assert Chat.with_owner(chat.id + 1) is None


def test_without_hooks_of_its_own_a_model_is_told_nothing():
    class Quiet(Chattable):
        id = 1

    assert Quiet().on_message_create(None) is None
    assert Quiet().on_message_update(None) is None


# in a process of its own, which nobody monkey-patched


@pytest.fixture
def environment(sqlite_url, redis_url, provider, tmp_path):
    """What `flask` and the README's lines find in their environment."""
    return os.environ | {
        "DATABASE_URL": sqlite_url,
        "REDIS_URL": redis_url,
        "OPENAI_BASE_URL": provider.url,
        "OPENAI_API_KEY": "sk-test",
        "MODELS": "gpt-4o-mini",
        "SECRET_KEY": "a secret for tests only",
        "INSTANCE_PATH": str(tmp_path),
        "PYTHONPATH": str(ROOT),
    }


def run(command, environment, given):
    """Run Python in the project's folder with `given` as standard input; return what it says."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        input=given,
        capture_output=True,
        text=True,
        timeout=patient(20),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


IN_THE_SHELL = """
from models import *
from pages.people import sign_up
db.create_all()
user = sign_up("Ada", "ada@example.com", "correct horse battery")
user.chats.append(Chat())
db.session.commit()
chat = user.chats[0]
message = chat.say("user", "Hi")
print("said:", chat.run("gpt-4o-mini").content)
print("tokens:", chat.messages[-1].prompt_token_usage, chat.messages[-1].completion_token_usage)
print("cost:", chat.cost)
"""


def test_a_chat_runs_from_the_shell(environment, provider):
    provider.says("Hello ", "from ", "here.").uses(1000, 100)
    said = run(["-m", "flask", "--app", "app", "shell"], environment, IN_THE_SHELL)
    assert "Traceback" not in said
    assert "said: Hello from here." in said
    assert "tokens: 1000 100" in said
    assert "cost: 0.00021" in said
    assert provider.wait_for_request().json["messages"] == [{"role": "user", "content": "Hi"}]


IN_A_FRESH_PROCESS = """
from app import create_app
from models import Chat
with create_app().app_context():
    print("owner:", Chat.with_owner(1).chattable.name)
"""


def test_a_process_that_has_done_nothing_yet_finds_a_chat_and_its_owner(environment):
    begin = IN_THE_SHELL.partition("chat =")[0]
    run(["-m", "flask", "--app", "app", "shell"], environment, begin)
    assert "owner: Ada" in run(["-"], environment, IN_A_FRESH_PROCESS)


README = (ROOT / "README.md").read_text()
OWN_MODELS, OWN_LINES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
OWN_APP = f"""
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from chattable import ChatMixin, Chattable, MessageMixin, init_app, live
app = Flask("own", root_path="/")
app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
db = SQLAlchemy(app)
{OWN_MODELS}
app.app_context().push()
db.create_all()
user = User()
db.session.add(user)
{OWN_LINES}
"""


def test_the_readmes_lines_for_your_own_app_run_as_they_stand(environment, provider):
    provider.says("All ", "done.").uses(1000, 100)
    assert "All done. 100 0.0002" in run(["-"], environment, OWN_APP)
    assert provider.wait_for_request().json["model"] == "gpt-5-mini"


def test_the_readmes_line_for_the_shell_runs_as_it_stands(environment, provider):
    line = re.search(r"`(User\.query\S+)`", README)[1]
    begin = IN_THE_SHELL.partition("chat =")[0] + "user.chats[0].say('user', 'Hi')\n"
    given = f"{begin}print('said:', ({line}).content)\n"
    provider.says("Hello.")
    said = run(["-m", "flask", "--app", "app", "shell"], environment, given)
    assert "said: Hello." in said, said
