"""The partials, styles and scripts that any app has from the library."""

import re
from decimal import Decimal
from types import SimpleNamespace

import pytest
from flask import Flask, render_template
from jinja2 import DictLoader
from markupsafe import Markup
from playwright.sync_api import expect

from chattable import templating
from chattable.live import frames
from chattable.live.frames import ending_frame
from models import Chat, db
from tests.page import parse
from tests.test_browser import RICH, Person, somewhere_else

PLAIN_WEB = "gunicorn --worker-class gevent --no-control-socket tests.plain:app"
PLAIN_WORKER = "python -m gevent.monkey --module flask --app tests.plain worker"


@pytest.fixture
def own_app():
    """An app with nothing in it, not even what most set."""
    app = Flask("own", template_folder=None)
    templating.init_app(app)
    with app.test_request_context("/rooms/3?before=12"):
        yield app


def message(**values):
    """Return what templates need of a message, whatever its class is called."""
    usual = {
        "id": 9,
        "role": "assistant",
        "status": "complete",
        "author": "gpt-5-mini",
        "body": Markup("<p>Hello</p>"),
        "usage_estimated": False,
        "prompt_token_usage": 1812,
        "completion_token_usage": 2,
        "input_cost": Decimal("0.00002"),
        "output_cost": None,
    }
    return SimpleNamespace(**usual | values)


def shown(message):
    page = parse(render_template("chattable/_message.html", message=message, body=message.body))
    return page.find("article")


def test_a_mounted_apps_own_addresses_begin_where_it_is(own_app):
    """The same frame for two pages: one of a part of a site, one of the app alone."""
    own_app.jinja_loader = DictLoader(
        {
            "chattable/_actions.html": '{% with show = chattable_root ~ "/turns/{}/show" %}'
            '{% include "chattable/_versions.html" %}{% endwith %}'
        }
    )
    versions = [SimpleNamespace(id=id, following=0, status="complete", many=False) for id in (8, 9)]
    each = message(versions=versions, version=2)
    frame = frames.article_frame(frames.article(each))
    for root in ("/site/room", ""):
        with own_app.test_request_context("/rooms/3", environ_overrides={"SCRIPT_NAME": root}):
            address = f"{root}/turns/8/show"
            assert (
                parse(frames.rooted(frame)).find("button", attrs={"hx-post": True})["hx-post"]
                == address
            )
            assert shown(each).find("button", attrs={"hx-post": True})["hx-post"] == address


@pytest.mark.parametrize(
    "template, kept",
    [
        (
            '<article id="message-9"><i id="message-9-body" class="b">{{ body }}</i>.</article>',
            True,
        ),
        ("<article id='message-9'><i id='message-9-body'>{{ body }}</i>.</article>", False),
        ('<article id="message-9"><i id="message-9-body"> {{ body }}</i>.</article>', False),
    ],
)
def test_an_end_without_the_body_is_sent_where_a_template_writes_it_as_ours(
    own_app, template, kept
):
    own_app.jinja_loader = DictLoader({"chattable/_message.html": template})
    frame = ending_frame(message(), [])
    assert ("<p>Hello</p>" in frame, "<hx-upsert" in frame) == (not kept, not kept)
    if kept:
        assert '<i id="message-9-body" hx-morph-skip-children="5" class="b"></i>.' in frame


def test_the_default_message_says_all_of_it(own_app):
    article = shown(message(note="Cut short.", error="It broke.", reasoning="Let me see"))
    assert (article["id"], article["data-role"], article["data-status"]) == (
        "message-9",
        "assistant",
        "complete",
    )
    assert str(article.find(id="message-9-body").p) == "<p>Hello</p>"
    for words in ("gpt-5-mini", "Cut short.", "It broke.", "Reasoning"):
        assert words in article.get_text()
    assert "1,812 input tokens [$0.00002] / 2 output tokens [price unknown]" in article.get_text()


def test_the_default_message_keeps_what_the_page_looks_for(own_app):
    article = shown(message(role="user", client_id="c1", body="<b>as it is</b>"))
    assert article["data-client-id"] == "c1"
    assert article.find(id="message-9-body").get_text() == "<b>as it is</b>"
    assert article.find(id="message-9-body").find("b") is None
    assert "tokens" not in article.get_text()


def test_a_reply_without_a_word_has_an_empty_body(own_app):
    assert (
        shown(message(status="pending", body=Markup(""))).find(id="message-9-body").contents == []
    )


def test_an_apps_own_partial_goes_first(own_app):
    own_app.jinja_loader = DictLoader({"chattable/_actions.html": "<button>Mine</button>"})
    assert shown(message()).find_all("button")[-1].get_text() == "Mine"


def test_a_chat_in_one_line_shows_the_page_asked_for(own_app):
    asked = []
    chat = SimpleNamespace(revision=5, page=lambda before: asked.append(before) or ([message()], 4))
    page = parse(render_template("chattable/_chat.html", chat=chat))
    assert asked == [12]
    assert page.find(id="messages").find("article")["id"] == "message-9"
    assert page.find(id="older").a["hx-get"] == "?before=4"
    connected = page.find(attrs={"hx-ws:connect": True})
    assert connected["hx-ws:connect"] == "/rooms/3/updates?since=5"


def test_what_a_page_loads_may_be_kept_and_has_another_address_once_it_differs(own_app, tmp_path):
    head = parse(render_template("chattable/_head.html"))
    loaded = [tag.get("src") or tag["href"] for tag in head.select("script, link")]
    assert len(loaded) == 5
    for path in loaded:
        answer = own_app.test_client().get(path)
        assert answer.status_code == 200, path
        assert answer.cache_control.max_age > 10_000_000, path
    digest = templating.digest(templating.STATIC)
    assert all(path.startswith(f"/chattable/static/{digest}/") for path in loaded)
    (tmp_path / "app.js").write_text("1")
    before = templating.digest(tmp_path)
    (tmp_path / "app.js").write_text("2")
    assert templating.digest(tmp_path) != before


@pytest.fixture
def plain(make_stack, browser):
    """Somebody in front of the library's own page, under this app's strict policy."""
    stack = make_stack(webs=0, workers=0)
    stack.start_web(command=PLAIN_WEB)
    stack.start_worker(command=PLAIN_WORKER)
    session = stack.signup()
    context = browser.new_context(base_url=stack.url)
    person = Person(context.new_page()).is_signed_up(session)
    person.stack, person.session, person.chat_id = stack, session, session.new_chat()
    yield person
    context.close()
    assert person.complaints == []


def test_the_librarys_own_page_is_live(plain, provider):
    plain.page.goto(f"/plain/{plain.chat_id}")
    expect(plain.page.get_by_role("log")).to_be_empty()
    script = provider.reply()
    for piece in RICH:
        script.says(*re.findall(r".{1,9}", piece, re.DOTALL)).holds()
    plain.session.say(plain.chat_id, "Tell me <everything>")
    plain.question("Tell me <everything>")
    for number in range(len(RICH)):
        script.wait_for_hold(number + 1)
        if number == 2:
            expect(plain.body).to_contain_text("nested")
            plain.wait_for("streaming")
            plain.page.reload()
        script.release()
    plain.wait_for("complete")
    expect(plain.body).to_contain_text("The end.")
    expect(plain.page.locator("#announcer")).to_have_text("Reply complete")
    assert plain.shown() == plain.fresh()


def test_the_librarys_own_page_shows_what_is_thought(plain, provider):
    script = provider.reply().thinks("Hm. ").holds().thinks("I <see>.").says("Done.")
    plain.page.goto(f"/plain/{plain.chat_id}")
    plain.session.say(plain.chat_id, "Think")
    plain.reply.get_by_text("Thinking…").click()
    expect(plain.reply.locator("details p")).to_contain_text("Hm.")
    script.release()
    plain.wait_for("complete")
    expect(plain.reply.locator("summary")).to_contain_text("Thought for")
    expect(plain.reply.locator("details p")).to_have_text("Hm. I <see>.")
    plain.page.reload()
    plain.reply.get_by_text("Thought for").click()
    expect(plain.reply.locator("details p")).to_have_text("Hm. I <see>.")


def test_the_librarys_own_page_shows_what_was_said_earlier(plain):
    with somewhere_else(plain.stack):
        for number in range(32):
            db.session.get(Chat, plain.chat_id).say("user", f"number {number}")
    plain.page.goto(f"/plain/{plain.chat_id}")
    expect(plain.articles).to_have_count(30)
    plain.page.get_by_role("link", name="Show earlier messages").click()
    expect(plain.articles).to_have_count(32)
    expect(plain.page.get_by_role("link", name="Show earlier messages")).to_have_count(0)
    expect(plain.articles.first).to_contain_text("number 0")
