"""Addresses of providers as people write them, and what is said of those that cannot be."""

import socket
import threading
from base64 import b64encode
from contextlib import suppress

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

import chattable
from app import create_app
from chattable import live
from chattable.provider import UNNAMED
from chattable.provider.address import read_address
from models import User, db
from pages.choice import DEFAULT_MODELS
from tests import wire
from tests.asking import KEY, MODEL, Asker
from tests.entered import entered
from tests.page import parse


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Nobody waits before the SDK asks again."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0)
    return monkeypatch


OLLAMA = "http://localhost:11434/v1"
GOOGLE = "https://generativelanguage.googleapis.com/v1beta/openai"
AZURE = "https://me.openai.azure.com/openai"
MEANT = {
    "https://api.openai.com/v1": [
        *("https://api.openai.com", "api.openai.com", "https://api.openai.com/v1//"),
        *("https://api.openai.com/v1/chat/completions", "https://api.openai.com/v1/models/"),
        *("https://api.openai.com/v1/completions", "https://api.openai.com/v1/responses"),
        *('"https://api.openai.com/v1"', " <https://api.openai.com/v1>\n", "‘api.openai.com/v1’"),
        *("HTTPS://API.OPENAI.COM/V1", "HTTPS://Api.OpenAI.com/v1", "http://api.openai.com/v1"),
        *("https://api.openai.com:/v1#fragment", "https://api.openai.com//v1"),
    ],
    OLLAMA: [
        *(
            "http://localhost:11434",
            "http://localhost:11434/",
            "localhost:11434",
            "//localhost:11434",
        ),
        *(
            "localhost:11434/v1/chat/completions",
            "http://LOCALHOST:11434/v1?",
            "http://localhost:11434/#/",
        ),
    ],
    "http://localhost:11434/api": ["localhost:11434/api/chat", "localhost:11434/api/tags"],
    "https://openrouter.ai/api/v1": [
        *("openrouter.ai", "https://openrouter.ai/api", "http://openrouter.ai/api/v1/models"),
    ],
    "https://api.groq.com/openai/v1": ["api.groq.com/openai/v1", "https://api.groq.com"],
    GOOGLE: [
        *(f"{GOOGLE}/", f"{GOOGLE}/chat/completions", "generativelanguage.googleapis.com/v1beta"),
        "https://generativelanguage.googleapis.com/v1beta/models/gemini-3:generateContent",
    ],
    "https://api.anthropic.com/v1": ["api.anthropic.com", "https://api.anthropic.com/v1/messages"],
    f"{AZURE}/v1": ["me.openai.azure.com", f"{AZURE}/", f"{AZURE}/v1/chat/completions"],
    f"{AZURE}/v1?api-version=preview": [f"{AZURE}/v1/?api-version=preview"],
    f"{AZURE}?api-version=2024-10-21": ["https://me.openai.azure.com/?api-version=2024-10-21"],
    f"{AZURE}/deployments/chat?api-version=2024-10-21": [
        f"{AZURE}/deployments/chat/?api-version=2024-10-21",
        f"{AZURE}/deployments/chat/chat/completions?api-version=2024-10-21",
    ],
    "http://192.168.1.5:8000/v1": ["192.168.1.5:8000", "http://192.168.1.5:8000/v1/"],
    "http://[::1]:8080/v1": ["[::1]:8080", "http://[::1]:8080"],
    "http://ollama:11434/v1": ["ollama:11434"],
    "https://models.example:8000/v1": ["models.example:8000"],
    "https://litellm.example/proxy": ["litellm.example/proxy/", "https://litellm.example//proxy"],
    "https://bücher.example/v1": ["bücher.example", "https://BÜCHER.example/v1"],
    "https://models.example/a%20b/%E2%82%AC/v1": ["https://models.example/a%20b/€/v1"],
    "https://ada:s%40@models.example/v1": ["https://ada:s%40@models.example/v1/"],
    "https://huggingface.co/models/x/v1": ["https://huggingface.co/models/x/v1"],
}


def test_an_address_is_read_as_it_is_meant():
    written = {address: meant for meant, addresses in MEANT.items() for address in addresses}
    assert {address: read_address(address) for address in written} == written
    assert [read_address(meant) for meant in MEANT] == list(MEANT)


WRONG = [
    ("http:/localhost", "has to begin with http:// or https://"),
    ("http//localhost", "has to begin with http:// or https://"),
    ("https:localhost", "has to begin with http:// or https://"),
    ("ftp://secret.example", "has to begin with http:// or https://"),
    ("wss://secret.example", "has to begin with http:// or https://"),
    ("http://localhost:11434 /v1", "has a blank in it"),
    ("http://local\thost", "has a blank in it"),
    ("http://", "has no host"),
    ("http:///v1", "has no host"),
    ("http://.example", "has no host"),
    ("http://secret..example", "has no host"),
    ("http://[::1", "has no host"),
    ("http://{secret}", "has no host"),
    ("http://localhost:secret", "The port in OPENAI_BASE_URL"),
    ("http://localhost:0", "The port in OPENAI_BASE_URL"),
    ("http://localhost:99999", "The port in OPENAI_BASE_URL"),
    ("http://ada:sec#ret@localhost", "The password in OPENAI_BASE_URL"),
    ("http://ada:sec/ret@localhost", "The password in OPENAI_BASE_URL"),
    ("http://ada:1?ret@localhost", "The password in OPENAI_BASE_URL"),
    ("sk-secret", "belongs into OPENAI_API_KEY"),
    ("gsk_secret", "belongs into OPENAI_API_KEY"),
    ("AIza" + "0secret" * 5, "belongs into OPENAI_API_KEY"),
]


@pytest.mark.parametrize(("address", "sentence"), WRONG)
def test_of_a_wrong_address_one_sentence_says_what_is_wrong(tmp_path, caplog, address, sentence):
    settings = {
        "SECRET_KEY": "k",
        "DATABASE_URL": f"sqlite:///{tmp_path}/chattable.db",
        "REDIS_URL": "redis://127.0.0.1:9/0",
        "INSTANCE_PATH": str(tmp_path),
    }
    with pytest.raises(SystemExit) as stopped:
        create_app(settings | {"OPENAI_BASE_URL": address})
    told = str(stopped.value)
    assert "OPENAI_BASE_URL" in told and sentence in told and told.endswith(".")
    assert told.count(". ") == 0
    assert told == Asker(address).ask().error == Asker(address).models()
    assert not {"secret", "sec#ret", "sec/ret", "ada"} & set((told + caplog.text).split())


def test_somebodys_own_app_gets_the_address_that_is_meant(monkeypatch, tmp_path):
    app, own = Flask("own"), SQLAlchemy()
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path}/own.db"
    monkeypatch.setenv("OPENAI_BASE_URL", "localhost:11434")
    own.init_app(app)
    chattable.init_app(app, own)
    assert app.config["OPENAI_BASE_URL"] == OLLAMA


# What is asked there.


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("", "/v1/chat/completions"),
        ("/", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/models/", "/v1/chat/completions"),
        ("/v1?api-version=7&x=a%20b", "/v1/chat/completions?api-version=7&x=a+b"),
        ("/api/v1#top", "/api/v1/chat/completions"),
        ("/v1beta/openai/", "/v1beta/openai/chat/completions"),
        ("/litellm", "/litellm/chat/completions"),
    ],
)
def test_the_api_is_asked_where_it_is(provider, written, path):
    provider.says("Hi")
    assert Asker(f"127.0.0.1:{provider.port}{written}").ask().text == "Hi"
    assert provider.requests[0].path == path


@pytest.mark.parametrize(
    ("written", "served", "astray"),
    [
        ("", "", ["/v1/chat/completions"]),
        ("/v1", "", ["/v1/chat/completions"]),
        ("/litellm/", "/litellm/v1", ["/litellm/chat/completions"]),
        ("/litellm/v1", "/litellm", ["/litellm/v1/chat/completions"]),
        ("/api/chat", "/v1", ["/api/chat/completions", "/api/v1/chat/completions"]),
    ],
)
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, "404 page not found"),
        (404, {"detail": "Not Found"}),
        (404, wire.error("Unknown request URL: POST /chat/completions", code="unknown_url")),
        (404, "<html><h1>This model of a page is not found</h1></html>"),
        (405, {"detail": "Method Not Allowed"}),
    ],
)
def test_where_nothing_is_the_api_is_looked_for_beside_it(
    provider, written, served, astray, status, body
):
    provider.serves_only_at(served, status, body)
    asker = Asker(f"http://127.0.0.1:{provider.port}{written}?key=7")
    assert asker.ask().error is None
    assert provider.astray == [f"{path}?key=7" for path in astray]
    assert asker.ask().error is None
    assert asker.models() == sorted(provider.models)
    assert len(provider.astray) == len(astray)
    assert provider.requests[1].path == f"{served}/chat/completions?key=7"


def test_the_list_of_models_is_looked_for_there_too(provider):
    provider.serves_only_at("/litellm/v1")
    assert Asker(f"http://127.0.0.1:{provider.port}/litellm").models() == sorted(provider.models)


def test_what_is_wrong_where_the_api_is_is_told_of_that(provider):
    provider.serves_only_at("/litellm/v1")
    provider.fails(400, wire.error("maximum context length"))
    asker = Asker(f"http://127.0.0.1:{provider.port}/litellm")
    assert "too long for the model" in asker.ask().error
    assert asker.ask().error is None
    assert asker.ask().error is None
    assert len(provider.astray) == 2


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, wire.error("no key")),
        (403, "<html>Forbidden</html>"),
        (500, wire.error("?")),
        (200, "<!DOCTYPE html>Welcome"),
        (200, ""),
    ],
)
def test_one_stray_404_moves_no_address(provider, status, body):
    provider.fails(404, "404 page not found")
    provider.fails(status, body, headers={"x-should-retry": "false"})
    asker = Asker(provider.url)
    assert "nothing at this address" in asker.ask().error
    assert asker.ask().error is None
    asked = [request.path for request in provider.requests]
    assert asked == [f"{path}/chat/completions" for path in ("/v1", "", "/v1")]


def test_who_was_found_elsewhere_and_is_gone_is_asked_where_it_should_be(provider):
    asker = Asker(f"http://127.0.0.1:{provider.port}")
    for path in ("", "/v1", ""):
        provider.serves_only_at(path)
        assert [asker.ask().error for _ in range(2)] == [None, None]
        assert len(provider.astray) == 1


def test_a_list_that_is_elsewhere_moves_no_address(provider):
    provider.serves_only_at("")
    asker = Asker(provider.url)
    assert asker.models() == sorted(provider.models)
    provider.forget()
    assert asker.ask().error is None
    assert provider.requests[0].path == "/v1/chat/completions"


def test_a_page_beside_the_address_is_no_list_of_models(provider, monkeypatch):
    def answer(connection, request):
        at_v1 = request.path.startswith("/v1")
        page = b"" if at_v1 else b"<html>app</html>"
        head = wire.http_head(404 if at_v1 else 200, {"content-length": len(page)})
        connection.send(head + page)

    monkeypatch.setattr(provider, "_list_models", answer)
    asker = Asker(provider.url)
    assert "no list of models at this address" in asker.models()
    assert asker.ask().error is None
    assert provider.requests[0].path == "/v1/chat/completions"


def test_a_name_and_a_password_are_sent_where_there_is_no_key(provider):
    address = f"http://ada:s%40cret@127.0.0.1:{provider.port}/v1"
    for key in (None, KEY):
        provider.says("Hi")
        assert Asker(address, OPENAI_API_KEY=key).ask().text == "Hi"
    basic = f"Basic {b64encode(b'ada:s@cret').decode()}"
    sent = [request.headers["authorization"] for request in provider.requests]
    assert sent == [basic, f"Bearer {KEY}"]


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("/openai?api-version=2024-10-21", f"/openai/deployments/{MODEL}"),
        ("/openai/deployments/mine?api-version=2024-10-21", "/openai/deployments/mine"),
    ],
)
def test_azures_older_api_is_asked_as_it_wants_to_be(provider, written, path):
    provider.says("Hi")
    asker = Asker(f"http://127.0.0.1:{provider.port}{written}")
    assert asker.ask().text == "Hi"
    [asked] = provider.requests
    assert asked.path == f"{path}/chat/completions?api-version=2024-10-21"
    assert asked.headers["api-key"] == KEY
    assert "authorization" not in asked.headers
    if "mine" in path:
        assert asker.models() == ["mine"]


# A 404 is about an address, or about a model.

ADDRESS = [
    (404, "404 page not found"),
    (404, "<html>No such model of page</html>"),
    (404, {"detail": "Not Found"}),
    (404, {"error": "not found"}),
    (404, ""),
    (404, wire.error("Invalid URL (POST /chat/completions)")),
    (404, wire.error("Unknown request URL: POST /models/chat/completions", code="unknown_url")),
    (404, {"error": {"code": "404", "message": "Resource not found"}}),
    (404, {"type": "error", "error": {"type": "not_found_error", "message": "Not Found"}}),
    (404, {"message": "no Route matched with those values"}),
    (404, {"message": "Cannot POST /models/chat/completions", "statusCode": 404}),
    (405, {"detail": "Method Not Allowed"}),
    (200, {"error": "Unexpected endpoint or method. (POST /chat/completions)"}),
]
UNKNOWN = [
    (404, wire.error("The model `x` does not exist", code="model_not_found")),
    (404, wire.error(f'model "{MODEL}" not found, try pulling it first')),
    (404, {"error": f"{MODEL} not found"}),
    (404, {"object": "error", "message": "The model `x` does not exist.", "code": 404}),
    (404, {"error": {"code": "DeploymentNotFound", "message": "The API deployment is not there"}}),
    (404, {"type": "error", "error": {"type": "not_found_error", "message": f"model: {MODEL}"}}),
    (404, wire.error(f"No endpoints found for {MODEL}.", code=404)),
    (404, wire.error("models/x is not found for API version v1main", code=404)),
    (404, {"code": "Some requested entity was not found", "error": "The model x does not exist"}),
    (404, wire.error("Requested entity was not found.", code=404)),
    (404, {"detail": "Function abc: Not found for account"}),
    (404, wire.error("Engine not found")),
    (404, {"detail": "No provider for it"}),
    (404, {"detail": f"No {MODEL}"}),
    (404, wire.error("Not found the model x or Permission denied", "resource_not_found_error")),
    (400, {"error": {"code": "1211", "message": "模型不存在，请检查模型代码。"}}),
    (400, {"code": 20012, "message": "Model does not exist. Please check it carefully."}),
    (400, {"error": {"code": "unknown_model", "message": "Unknown model: x"}}),
    (400, wire.error("Invalid model 'x'.")),
]


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        *((status, body, "has nothing at this address") for status, body in ADDRESS),
        *((status, body, f"does not know the model “{MODEL}”") for status, body in UNKNOWN),
    ],
)
def test_an_address_with_nothing_at_it_is_no_unknown_model(provider, status, body, sentence):
    provider.fails(status, body, times=2)
    assert sentence in Asker(provider.url).ask().error
    assert len(provider.requests) == (2 if "address" in sentence and status != 200 else 1)


@pytest.mark.parametrize(
    ("model", "words", "known"),
    [
        ("found", "Not found", False),
        ("found", "found: not found", True),
        ("not", "Not Found", False),
        ("o1", "Nothing to see in 2o1", False),
        ("route", "That router knows nothing", False),
        ("qwen", "Nobody serves qwen", True),
        ("qwen", "Nobody serves qwen-max", False),
        ("meta/llama", "Nobody serves meta/llama.", True),
    ],
)
def test_a_models_name_is_a_word_of_its_own(provider, model, words, known):
    provider.fails(404, wire.error(words), times=2)
    told = Asker(provider.url).ask(model=model).error
    assert ("does not know the model" in told, "nothing at this address" in told) == (
        known,
        not known,
    )


def test_a_provider_that_has_moved_is_told_as_such(provider):
    provider.fails(301, "<html>Moved</html>", {"location": "https://models.example/v1"})
    assert "begin with https://" in Asker(provider.url).ask().error


def test_a_provider_that_speaks_no_tls_is_told_as_such():
    def answer(connected):
        connected.recv(1)
        connected.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    def serve():
        with suppress(OSError):
            while True:
                answer(listener.accept()[0])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        told = Asker(f"https://127.0.0.1:{listener.getsockname()[1]}/v1").ask().error
    assert "begin with http://" in told


@pytest.mark.parametrize(
    "body",
    [
        "<h1>400 Bad Request</h1>The plain HTTP request was sent to HTTPS port",
        "Client sent an HTTP request to an HTTPS server.\n",
    ],
)
def test_a_provider_that_speaks_nothing_but_tls_is_told_as_such(provider, body):
    provider.fails(400, body)
    assert "begin with https://" in Asker(provider.url).ask().error


def test_a_page_is_no_provider(provider):
    provider.sends_raw([b"<!DOCTYPE html><html>", b"Welcome</html>"])
    assert "answers with a web page" in Asker(provider.url).ask().error


# Where a provider lists no models.


@pytest.fixture
def offered(make_app):
    """What a new chat's page offers where the provider is at an address: (models, the page)."""

    def look(address, listed=None, at=None, models=""):
        app = make_app(OPENAI_BASE_URL=address, MODELS=models)
        if listed is not None:
            with app.app_context():
                app.config["OPENAI_BASE_URL"] = at or address
                live.keep_models(listed)
                app.config["OPENAI_BASE_URL"] = address
        page = parse(enter(app).get("/chats/new").text)
        return [option["value"] for option in page.select("#model option")], page.get_text()

    return look


def enter(app):
    with app.app_context():
        user = User(name="Ada", email="ada@example.com", password_hash="none")
        db.session.add(user)
        db.session.commit()
        return entered(app, user)


NONE_LISTED = "The provider has listed no models. Set MODELS"
NOT_ASKED = "Asking the provider for its models…"


@pytest.mark.parametrize(("listed", "told"), [(None, NOT_ASKED), ([], NONE_LISTED)])
def test_of_another_provider_that_lists_none_no_model_of_openais_is_offered(offered, listed, told):
    names, page = offered("http://localhost:11434/v1", listed)
    assert names == [UNNAMED]
    assert [said for said in (NOT_ASKED, NONE_LISTED) if said in page] == [told]


def test_what_another_provider_listed_before_is_not_offered(offered):
    names, page = offered("http://localhost:11434/v1", ["gpt-4o"], at="https://api.openai.com/v1")
    assert names == [UNNAMED]
    assert NOT_ASKED in page


@pytest.mark.parametrize(
    ("address", "listed", "models", "names"),
    [
        ("", None, "", DEFAULT_MODELS),
        ("https://api.openai.com", [], "", DEFAULT_MODELS),
        ("http://localhost:11434/v1", ["qwen"], "", ["qwen"]),
        ("http://localhost:11434/v1", ["default"], "", ["default"]),
        ("http://localhost:11434/v1", [], "mine, other", ["mine", "other"]),
    ],
)
def test_other_models_are_offered_as_before(offered, address, listed, models, names):
    found, page = offered(address, listed, models=models)
    assert found == names
    assert NONE_LISTED not in page


def test_a_server_of_a_single_model_answers_without_its_name(make_app, provider):
    client = enter(make_app(MODELS=""))
    assert client.post("/chats", data={"content": "Hi", "model": "default"}).status_code == 303
    refused = client.post("/chats", data={"content": "Hi", "model": "gpt-5-mini"})
    assert refused.status_code == 422


@pytest.mark.parametrize(("status", "body"), [(400, wire.error("?")), (404, UNKNOWN[0][1])])
def test_who_wants_a_models_name_is_told_of_the_setting(provider, status, body):
    provider.fails(status, body, times=2)
    assert "set MODELS" in Asker(provider.url).ask(model="default").error
