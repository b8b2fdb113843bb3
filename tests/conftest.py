"""Fixtures: the provider's double, real services, the app, the deployed stack, a browser."""

import shutil
import signal
from contextlib import closing

import pytest
from jinja2 import FileSystemBytecodeCache
from rq import SimpleWorker

from tests.entered import entered
from tests.patience import patient
from tests.provider import Provider
from tests.services import Missing, Postgres, Redis
from tests.stack import PREFIX, Stack
from tests.tab import Tab

pytest.register_assert_rewrite("tests.growing")  # so that its checks show what differs
# A file stays in one process, with the costly parts its tests share: the longest begins first.
LONGEST = (
    "recovery outages absence worker deploy browser composer branching serve markdown_cost own_app "
    "alive scroll axe browsers looks installs search streaming thinking accounts chats"
).split()

CHROMIUMS = "chromium-headless-shell", "chromium", "chromium-browser"


def pytest_collection_modifyitems(items):
    """Put the files that take longest first; xdist deals them out in this order."""
    places = {f"tests.test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.module.__name__, len(places)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Let a failing test say what the processes of its stacks have logged."""
    report = yield
    for stack in stacks_of(item) if report.failed else ():
        report.sections.append((f"last words of {stack.folder.name}", stack.last_words()))
    return report


def stacks_of(item):
    """Return the stacks that a test has from its fixtures, whoever of them holds it."""
    values = [*item.funcargs.values(), *getattr(item, "stacks", [])]
    holders = [getattr(value, "stack", None) for value in values]
    return {value for value in [*values, *holders] if isinstance(value, Stack)}


@pytest.fixture(scope="session")
def provider_server():
    with closing(Provider()) as server:
        yield server


@pytest.fixture
def provider(provider_server):
    """The model provider, with no script queued and nothing recorded."""
    provider_server.forget()
    yield provider_server
    provider_server.forget()


@pytest.fixture(scope="session")
def redis_server():
    with closing(Redis()) as server:
        yield server


@pytest.fixture
def redis_url(redis_server):
    """An empty Redis database; no process of the `stack` uses it."""
    with redis_server.client() as client:
        client.flushall()
    return redis_server.url


@pytest.fixture(scope="session")
def postgres_server():
    try:
        server = Postgres()
    except Missing as reason:
        pytest.skip(str(reason))
    with closing(server):
        yield server


@pytest.fixture
def postgres_url(postgres_server):
    """An empty PostgreSQL database of this test's own."""
    return postgres_server.database()


@pytest.fixture
def sqlite_url(tmp_path):
    """An SQLite file of this test's own, not made yet."""
    return f"sqlite:///{tmp_path / 'chattable.db'}"


@pytest.fixture(scope="session")
def compiled_templates(tmp_path_factory):
    """Keep compiled templates from one app to the next."""
    return FileSystemBytecodeCache(tmp_path_factory.mktemp("templates"))


@pytest.fixture
def make_app(sqlite_url, redis_url, provider, tmp_path, compiled_templates):
    """Make the Flask app with an empty schema; keyword arguments override its configuration."""
    from app import create_app
    from models import db
    from pages.policy import MARKS

    defaults = {
        **dict.fromkeys(MARKS, ""),  # the tests may run on a platform themselves
        "TESTING": True,
        "DATABASE_URL": sqlite_url,
        "REDIS_URL": redis_url,
        "REDIS_PREFIX": PREFIX,
        "OPENAI_BASE_URL": provider.url,
        "OPENAI_API_KEY": "sk-test",
        "MODELS": "gpt-4o-mini,gpt-4o",
        "SECRET_KEY": "a secret for tests only",
        "INSTANCE_PATH": str(tmp_path),
        "WTF_CSRF_ENABLED": False,
    }
    made = []

    def make(**config):
        app = create_app(defaults | config)
        app.jinja_env.bytecode_cache = compiled_templates
        with app.app_context():
            db.create_all()
        made.append(app)
        return app

    yield make
    for app in made:
        with app.app_context():
            db.session.remove()
            db.engine.dispose()


@pytest.fixture
def app(make_app):
    """The Flask app on SQLite, CSRF off; nothing takes its jobs unless `run_jobs` does."""
    return make_app()


@pytest.fixture
def run_jobs(app):
    """Do what is queued, in this process, with RQ's own worker; returns when nothing is left."""
    from chattable.queue import queue

    def run():
        kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        with app.app_context():
            books = queue()
            SimpleWorker([books], connection=books.connection).work(
                burst=True, logging_level="ERROR"
            )
        for number, handler in kept.items():
            signal.signal(number, handler)

    return run


@pytest.fixture
def client(app):
    """A visitor who is not logged in: Flask's test client."""
    return app.test_client()


@pytest.fixture
def sign_up(app):
    """Sign a visitor up: `sign_up(name, email)` returns a logged-in test client."""

    def sign(name="Ada Lovelace", email="ada@example.com", person=None):
        person = person or app.test_client()
        form = {"name": name, "email": email, "password": "correct horse battery"}
        answer = person.post("/signup", data=form)
        assert answer.status_code in (302, 303), answer.text
        return person

    return sign


@pytest.fixture
def let_in(app):
    """Log a new person in without the slow hashing of a password: `let_in(name, email)`."""
    from models import User, db

    def enter(name="Ada Lovelace", email="ada@example.com"):
        with app.app_context():
            user = User(name=name, email=email, password_hash="none")
            db.session.add(user)
            db.session.commit()
            return entered(app, user)

    return enter


@pytest.fixture
def user(app, client, sign_up):
    """The person who is logged in on `client`: Ada Lovelace, as a row of the open app context."""
    from models import User, db

    sign_up(person=client)
    with app.app_context():
        yield db.session.scalars(db.select(User).filter_by(email="ada@example.com")).one()


@pytest.fixture(scope="session")
def shared_stack(provider_server):
    with closing(Stack(provider_server.url)) as stack:
        yield stack.start()


@pytest.fixture
def stack(shared_stack, provider):
    """The deployed product, shared by tests: make your own person, kill nothing."""
    return shared_stack


@pytest.fixture
def make_stack(provider, request):
    """Make a deployed product of the test's own, to kill parts of: `make_stack(webs=2)`.

    `database_url`, `models` and `env` go to `Stack`, `webs` and `workers` to its `start()`.
    """
    request.node.stacks = made = []

    def make(webs=1, workers=1, **options):
        made.append(Stack(provider.url, **options))
        return made[-1].start(webs, workers)

    yield make
    for stack in made:
        stack.close()


@pytest.fixture
def ada(stack):
    """Ada: a person of the test's own."""
    return stack.signup()


@pytest.fixture
def tab(ada):
    """A tab of Ada's with an empty chat."""
    return Tab(ada, ada.new_chat())


@pytest.fixture(scope="session")
def browser():
    """Chromium: the system's if there is one, else Playwright's own.

    Of the system's, the one without windows: a tab takes a third of the CPU in it.
    """
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=1000 * patient(10))
    with sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, CHROMIUMS)), None)
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, stack):
    """A tab of a browser nobody has used, whose addresses are relative to the stack's web."""
    context = browser.new_context(base_url=stack.url)
    context.set_default_timeout(1000 * patient(10))
    yield context.new_page()
    context.close()
