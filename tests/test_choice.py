"""The choice of models while the provider has not said which it has."""

import threading
import time

import pytest
from playwright.sync_api import expect

import jobs
from chattable import keepers, live, queue
from chattable.provider import UNNAMED, ProviderError
from tests.page import parse
from tests.patience import patient
from tests.test_addresses import NONE_LISTED, NOT_ASKED, enter
from tests.test_browser import Person

HTMX = {"HX-Request": "true"}


@pytest.fixture
def unnamed(make_app):
    """An app of a provider that nobody has asked for its models yet."""
    app = make_app(MODELS="")
    with app.app_context():
        yield app


def picked(answer):
    return [option["value"] for option in parse(answer.text).select("option")]


def test_a_page_that_came_before_the_list_of_models_gets_it_in_the_end(unnamed):
    client = enter(unnamed)
    assert NOT_ASKED in client.get("/models").text
    live.keep_trouble("The provider is away.")
    assert "No models are known. The provider is away." in client.get("/models").text
    live.keep_models(["llama", "qwen"])
    answer = client.get("/models")
    assert picked(answer) == ["llama", "qwen"]
    assert "The provider" not in answer.text


def test_what_could_not_be_asked_hides_no_list_that_was_heard_before(unnamed):
    live.keep_models(["qwen"])
    live.keep_trouble("The provider is away.")
    live.forget_trouble()
    assert live.heard_models() == (["qwen"], None)


def test_a_provider_that_cannot_be_reached_is_told_as_such(make_app, monkeypatch, caplog):
    app = make_app(MODELS="", OPENAI_BASE_URL="http://ada:s3cret@provider.invalid/v1")
    monkeypatch.setattr(keepers, "keep_doing", lambda _what, step, _pause: step())
    with pytest.raises(ProviderError):
        keepers.keep_models(app)
    page = enter(app).get("/chats/new").text
    assert "The provider could not be reached" in page
    assert NONE_LISTED not in page
    assert "the list of models failed" in caplog.text
    assert "at provider.invalid:80: its name is unknown" in caplog.text
    assert "s3cret" not in caplog.text


def test_a_new_worker_forgets_why_the_one_before_knew_no_models(unnamed):
    live.keep_trouble("The provider refused the API key.")
    live.forget_trouble()
    assert live.heard_models() == (None, None)


@pytest.mark.parametrize("models", ["", "mine, other"])
def test_who_wrote_before_the_models_were_known_gets_the_first(make_app, models):
    app = make_app(MODELS=models)
    with app.app_context():
        live.keep_models(["llama", "qwen"])
    sent = {"content": "Hi", "model": UNNAMED}
    assert enter(app).post("/chats", data=sent, headers=HTMX).status_code == 200
    with app.app_context():
        assert [job.args[2] for job in queue.queue().get_jobs()] == ["mine" if models else "llama"]


def test_a_worker_waits_for_the_models_to_be_known(unnamed, monkeypatch):
    monkeypatch.setattr(jobs, "LOOK", 0.01)

    def list_them():
        with unnamed.app_context():
            live.keep_models(["llama", "qwen"])

    threading.Timer(0.2, list_them).start()
    assert jobs.named(UNNAMED) == "llama"
    assert jobs.named("other") == "other"
    live.keep_models([UNNAMED, "a"])
    assert jobs.named(UNNAMED) == UNNAMED


@pytest.mark.parametrize("known", [lambda: live.keep_models([]), lambda: live.keep_trouble("?")])
def test_where_no_model_has_a_name_nobody_waits_for_one(unnamed, known):
    known()
    began = time.monotonic()
    assert jobs.named(UNNAMED) == UNNAMED
    assert time.monotonic() - began < patient(1)


def test_a_refused_draft_brings_the_models_that_there_are(unnamed):
    live.keep_models(["llama", "qwen"])
    client = enter(unnamed)
    answer = client.post("/chats", data={"content": "Hi", "model": "gone"}, headers=HTMX)
    assert answer.status_code == 422
    assert picked(answer) == ["llama", "qwen"]
    answer = client.post("/chats", data={"content": "", "model": "qwen"}, headers=HTMX)
    assert (answer.status_code, picked(answer)) == (422, [])


@pytest.fixture
def lists(provider, monkeypatch):
    """What lets the provider list its models, once it is set."""
    lists, answer = threading.Event(), provider._list_models

    def answers_late(*asked):
        lists.wait(patient(30))
        answer(*asked)

    monkeypatch.setattr(provider, "_list_models", answers_late)
    return lists


def test_a_page_that_is_open_before_the_models_are_known_gets_them(
    browser, make_stack, provider, lists
):
    stack = make_stack(models="")
    context = browser.new_context(base_url=stack.url)
    context.set_default_timeout(1000 * patient(10))
    ada = Person(context.new_page()).is_signed_up(stack.signup())
    ada.page.goto("/chats/new")
    expect(ada.page.get_by_text(NOT_ASKED)).to_be_visible()
    ada.box.fill("Hello")
    lists.set()
    model = ada.page.get_by_label("Model")
    expect(model.locator("option")).to_have_text(sorted(provider.models))
    expect(ada.page.get_by_text(NOT_ASKED)).to_have_count(0)
    expect(model).to_have_value(min(provider.models))
    model.evaluate("select => select.append(new Option('gone', 'gone', true, true))")
    ada.page.get_by_role("button", name="Send", exact=True).click()
    expect(ada.page.get_by_role("alert")).to_contain_text("“gone” is not available here")
    expect(model.locator("option")).to_have_text(sorted(provider.models))
    expect(ada.box).to_have_value("Hello")
    ada.page.get_by_role("button", name="Send", exact=True).click()
    ada.wait_for("complete")
    assert provider.requests[0].json["model"] == min(provider.models)
    assert all("422" in complaint for complaint in ada.complaints)
    context.close()


def test_what_is_sent_before_the_models_are_known_is_answered_by_the_first(
    make_stack, provider, lists
):
    ada = make_stack(models="").signup()
    ada.say(ada.new_chat(), "Hello", model=UNNAMED)
    lists.set()
    assert provider.wait_for_request(timeout=15).json["model"] == min(provider.models)
