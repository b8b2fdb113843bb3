"""What a reply costs: a price belongs to a payee, and nobody is paid for a model of one's own."""

from decimal import Decimal
from urllib.parse import urlsplit

import genai_prices
import pytest
from flask import Flask
from genai_prices.types import ModelInfo

from chattable import provider as engine
from chattable.provider.address import is_near
from chattable.provider.prices import LOCAL
from chattable.provider.usage import Usage, read_usage
from models import Chat, User, db
from tests import wire
from tests.page import parse

UNKNOWN = None, None
MILLION = Usage(prompt=10**6, completion=10**6)
OPENROUTER = "https://openrouter.ai/api/v1"
GOOGLE = "https://generativelanguage.googleapis.com/v1beta/openai/"
VERTEX = "https://us-central1-aiplatform.googleapis.com/v1/projects/p/endpoints/openapi"
LAPTOP = "http://127.0.0.1:11434/v1"


def prices(url, model, usage=MILLION, configured=""):
    """Return what a model costs at an address."""
    app = Flask(__name__)
    app.config.update(OPENAI_BASE_URL=url, PRICES=engine.read_prices(configured))
    with app.app_context():
        return engine.costs(model, usage)


def listed(payee, model):
    tokens = genai_prices.Usage(input_tokens=10**6, output_tokens=10**6)
    price = genai_prices.calc_price(tokens, model, provider_id=payee)
    return price.input_price, price.output_price


# who is paid


@pytest.mark.parametrize(
    ("url", "model", "payee", "name"),
    [
        (None, "gpt-5-mini", "openai", "gpt-5-mini"),
        (None, "openai/gpt-5-mini", "openai", "gpt-5-mini"),
        (None, "chatgpt-4o-latest", "openai", "chatgpt-4o-latest"),
        (None, "ft:gpt-4o-mini-2024-07-18:org::id", "openai", "ft:gpt-4o-mini-2024-07-18"),
        ("https://API.OpenAI.com:443/v1/", "gpt-5-mini-2025-08-07", "openai", "gpt-5-mini"),
        (OPENROUTER, "openai/gpt-5-mini", "openrouter", "openai/gpt-5-mini"),
        (OPENROUTER, "openai/gpt-5-mini:online", "openrouter", "openai/gpt-5-mini"),
        (OPENROUTER, "openai/gpt-5-mini:nitro", "openrouter", "openai/gpt-5-mini"),
        (OPENROUTER, "deepseek/deepseek-r1", "openrouter", "deepseek/deepseek-r1"),
        (GOOGLE, "models/gemini-2.5-flash", "google", "gemini-2.5-flash"),
        (GOOGLE, "models/gemini-flash-latest", "google", "gemini-flash-latest"),
        (VERTEX, "google/gemini-2.5-flash", "google", "gemini-2.5-flash"),
        ("https://ada.openai.azure.com/openai/v1/", "gpt-5-mini", "azure", "gpt-5-mini"),
        ("https://api.groq.com/openai/v1", "openai/gpt-oss-120b", "groq", "openai/gpt-oss-120b"),
        ("https://api.deepseek.com", "deepseek-chat", "deepseek", "deepseek-chat"),
        ("https://api.mistral.ai/v1", "mistral-large-latest", "mistral", "mistral-large-latest"),
        ("https://api.x.ai/v1", "grok-4-latest", "x-ai", "grok-4"),
    ],
)
def test_a_price_is_that_of_the_address_and_the_model(url, model, payee, name):
    assert prices(url, model) == listed(payee, name)


def test_the_same_model_has_another_price_elsewhere():
    there = prices(OPENROUTER, "deepseek/deepseek-r1")
    assert there not in (UNKNOWN, prices("https://api.deepseek.com", "deepseek-reasoner"))


def test_what_is_said_to_be_free_costs_nothing():
    assert prices(OPENROUTER, "deepseek/deepseek-r1:free") == (0, 0)


@pytest.mark.parametrize("model", ["gpt-5-mini", "openai/gpt-5-mini", "deepseek-chat"])
@pytest.mark.parametrize("url", ["https://llm.example.com/v1", "http://8.8.8.8/v1"])
def test_nobody_knows_what_a_stranger_takes(url, model):
    assert prices(url, model) == UNKNOWN


def test_a_fine_tuned_model_never_has_the_price_of_what_it_was_made_of():
    assert prices(None, "ft:gpt-4.1-2025-04-14:org::id") == UNKNOWN


# nobody is paid

OURS = (
    "127.0.0.1 localhost [::1] [::ffff:127.0.0.1] 0.0.0.0 10.1.2.3 172.16.0.9 192.168.1.5 "
    "100.64.1.2 169.254.3.4 [fd00::1] [fe80::1%25eth0] ollama host.docker.internal box.local "
    "vllm.ai.svc.cluster.local vllm.ai.svc nas.home.arpa printer.lan localhost."
).split()
NOT_OURS = "8.8.8.8 172.32.0.1 [2606:4700::1111] api.openai.com local.example internal.com".split()


@pytest.mark.parametrize("host", OURS)
def test_a_model_of_ones_own_has_no_price(host):
    url = f"http://{host}:8000/v1"
    assert is_near(urlsplit(url).hostname)
    for model in ("deepseek-r1:7b", "deepseek-reasoner", "mistral-nemo", "openai/gpt-oss-20b"):
        assert prices(url, model) == LOCAL


@pytest.mark.parametrize("host", NOT_OURS)
def test_what_others_may_run_is_not_ones_own(host):
    assert not is_near(urlsplit(f"https://{host}/v1").hostname)


@pytest.mark.parametrize("model", ["gpt-5-mini", "openai/gpt-5-mini"])
def test_a_gateway_in_ones_own_network_passes_on_what_nobody_else_can_run(model):
    assert prices("http://litellm:4000/v1", model) == listed("openai", "gpt-5-mini")


# what the provider says


@pytest.mark.parametrize(
    ("said", "cost"),
    [
        ({"cost": 0, "cost_details": {"upstream_inference_cost": 0.036}}, "0.036"),
        (
            {"cost": 0.001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.03}},
            ".031",
        ),
        (
            {"cost": 0.03, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.03}},
            ".03",
        ),
        ({"cost": 0, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.03}}, "0"),
        ({"cost": 0, "cost_details": {"upstream_inference_cost": "NaN"}}, "0"),
        ({"cost": 0.02, "cost_details": [1]}, "0.02"),
        ({"cost": {"request_cost": 0.005, "total_cost": 0.006}}, "0.006"),
        ({"cost": 0, "is_byok": None, "cost_details": {"upstream_inference_cost": 0.03}}, "0.03"),
        ({"cost": "0.0123456789012345678901234567890123456789"}, "0.012345678901"),
        ({"estimated_cost": "0.0002"}, "0.0002"),
        ({"cost": None, "estimated_cost": "0.0002"}, "0.0002"),
        ({"cost": 0.02, "currency": "usd"}, "0.02"),
        ({"cost": 0.02, "currency": "CNY"}, None),
        ({"cost": 0.02, "cost_details": {"currency": "EUR"}}, None),
        ({"cost": -0.02}, None),
    ],
)
def test_a_cost_that_the_provider_tells_is_believed(said, cost):
    usage = read_usage(wire.usage(1000, 100) | said, Usage())
    paid = prices(OPENROUTER, "openai/gpt-5-mini", usage)
    assert sum(paid) == Decimal(cost or "0.00045")


@pytest.mark.parametrize("told", [Decimal(0), Decimal("0.01")])
def test_what_a_server_of_ones_own_says_that_it_took_is_believed(told):
    usage = Usage(prompt=10, completion=10, cost=told)
    assert sum(prices(LAPTOP, "mistral-nemo", usage)) == told


def test_a_cost_of_many_digits_is_the_sum_of_its_parts():
    reported = wire.usage(7, 11, cost="12345.0123456789012345678901234567890123456789")
    usage = read_usage(reported, Usage())
    into, out = prices(OPENROUTER, "openai/gpt-5-mini", usage)
    assert into + out == usage.cost


def test_a_cost_that_grows_is_what_it_has_grown_to():
    usage = read_usage(wire.usage(1000, 10, cost=0.01), Usage())
    usage = read_usage(wire.usage(1000, 100, cost=0.03), usage)
    assert read_usage(wire.usage(1000, 100), usage).cost == Decimal("0.03")


def test_tokens_that_only_the_total_has_were_thought_and_are_paid():
    usage = read_usage(wire.usage(100, 20) | {"total_tokens": 420}, Usage())
    assert (usage.completion, usage.reasoning) == (320, 300)


def test_the_model_that_answered_has_a_price_where_the_one_asked_has_none(app, provider):
    with app.app_context():
        chat = a_chat()
        last = wire.last_chunk("gpt-4o-mini-2024-07-18", wire.usage(1000, 100))
        provider.sends_raw(
            [wire.event(wire.chunk("", {"content": "Hi"})), wire.event(last), wire.DONE]
        )
        message = chat.run("our-deployment")
        assert (message.model, message.input_cost) == ("our-deployment", Decimal("0.00015"))


def a_chat():
    user = User(name="Ada", email="ada@example.com", password_hash="none")
    db.session.add(user)
    db.session.commit()
    user.chats.append(Chat())
    db.session.commit()
    return user.chats[0]


# what is configured


@pytest.mark.parametrize(
    ("named", "url", "model", "expected"),
    [
        ("house=0.25/2", LAPTOP, "house", (Decimal("0.25"), Decimal(2))),
        ("house=0.25/2", LAPTOP, "other", LOCAL),
        ("mistral:7b=0/0.1, house=1/2", LAPTOP, "mistral:7b", (0, Decimal("0.1"))),
        ("house=0.25/2", OPENROUTER, "me/house:nitro", (Decimal("0.25"), Decimal(2))),
        ("openai", "https://llm.example.com/v1", "gpt-5-mini", listed("openai", "gpt-5-mini")),
        ("openai", "https://llm.example.com/v1", "house", UNKNOWN),
        ("openrouter", "http://litellm:4000", "openai/gpt-5", listed("openrouter", "openai/gpt-5")),
        ("litellm", "https://llm.example.com/v1", "azure/gpt-4o", listed("azure", "gpt-4o")),
        ("local", "https://ollama.example.com/v1", "gpt-5-mini", LOCAL),
    ],
)
def test_prices_can_be_configured(named, url, model, expected):
    assert prices(url, model, configured=named) == expected


def test_a_configured_price_wins_over_what_the_provider_tells():
    usage = Usage(prompt=10**6, completion=0, cost=Decimal(0))
    assert prices(LAPTOP, "house", usage, "house=0.25/2") == (Decimal("0.25"), 0)


@pytest.mark.parametrize(
    "wrong",
    ["house=", "house=1", "house=a/b", "house=-1/2", "nobody", "h=1/1e9", "h=1_0/2", "h=\u0661/2"],
)
def test_a_wrong_price_is_refused_by_name(make_app, wrong):
    with pytest.raises(SystemExit, match=r"^PRICES must be .*\.$"):
        make_app(PRICES=wrong)


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ("one=1/2;two=1/2", "no semicolon"),
        ("openai;anthropic", "no semicolon"),
        ("=1/2", "without the name"),
        ("one=1/2, one=3/4", "a model twice"),
        ("openai,anthropic", "a list twice"),
    ],
)
def test_each_mistake_in_the_prices_has_a_sentence_of_its_own(make_app, wrong, fault):
    with pytest.raises(SystemExit, match=rf"^PRICES.*{fault}.*\.$"):
        make_app(PRICES=wrong)


def test_what_was_paid_stays_when_prices_change(make_app, provider):
    app = make_app(PRICES="house=1/2")
    with app.app_context():
        chat = a_chat()
        provider.says("Hi").uses(1000, 500)
        chat.run("house")
        app.config["PRICES"] = {"house": (Decimal(10), Decimal(20))}
        db.session.expire_all()
        assert chat.messages[0].input_cost == Decimal("0.001")
        assert chat.cost == Decimal("0.002")


def test_the_composer_says_the_price_that_is_taken(make_app, provider):
    app = make_app(PRICES="house=10/20", CONTEXT_WINDOW="house=4000,other=4000")
    with app.app_context():
        chat = a_chat()
        for model in ("house", "other"):
            chat.say("user", "word " * 1000)
            provider.says("Hi").uses(3000, 1)
            chat.run(model)
        told = chat.next_send("house")
        assert told["cost"] == told["tokens"] * Decimal(10) / 10**6
        assert chat.next_send("other")["cost"] is None


# what is shown, and counted


@pytest.fixture
def replied(app, user, provider):
    """Make Ada's chat with a reply of each of these models; return how its page shows it."""

    def ask(*models):
        chat = Chat()
        user.chats.append(chat)
        db.session.commit()
        for model in models:
            provider.says("Hi").uses(1000, 100)
            chat.run(model)
        return chat

    return ask


def test_a_reply_of_ones_own_model_is_local_and_counts_as_nothing(client, replied):
    chat = replied("deepseek-r1:7b")
    page = parse(client.get(f"/chats/{chat.id}").text)
    receipt = page.select_one(".message__usage").get_text()
    assert receipt == "1,000 input tokens / 100 output tokens [local]"
    assert "nobody is paid" in page.select_one(".message__receipt").get_text()
    assert "unknown" not in page.select_one("#messages").get_text()
    assert page.select_one(".chat__cost").get_text() == ""
    assert chat.cost is None


def test_what_was_paid_is_counted_beside_it(client, replied):
    chat = replied("deepseek-r1:7b", "gpt-4o-mini")
    page = parse(client.get(f"/chats/{chat.id}").text)
    assert page.select_one(".chat__cost").get_text() == "$0.0002"
    assert chat.cost == chat.messages[-1].input_cost + chat.messages[-1].output_cost


def test_a_price_is_looked_up_once_a_reply(replied, provider, monkeypatch):
    asked = []
    calculate = ModelInfo.calc_price
    monkeypatch.setattr(
        ModelInfo, "calc_price", lambda *words, **more: asked.append(1) or calculate(*words, **more)
    )
    provider.says(*["word "] * 300).uses(1000, 300, at="every")
    replied("gpt-4o-mini")
    assert len(asked) == 1
