"""docs/own-app.md exactly as it is printed: typed into an empty folder, and then it chats."""

import os
import re
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.page import Page
from tests.patience import patient
from tests.services import free_port, wait_until
from tests.session import Session, Socket

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = (ROOT / "docs" / "own-app.md").read_text()
BLOCK = re.compile(r"(?:`([\w/.]+)`:\n\n)?```(\w+)\n(.*?)```", re.DOTALL)
# Each with the file that the line above it names, if it does.
BLOCKS = BLOCK.findall(DOCUMENT)


class OwnApp:
    """A folder with a virtual environment of its own, beside a clone of this repository."""

    def __init__(self, folder, environment):
        (folder / "chattable").symlink_to(ROOT)
        self.folder, self.environment = folder / "app", environment
        self.environment |= {"VIRTUAL_ENV": str(self.folder / ".venv"), "PYTHONPATH": ""}
        # Each of a dozen commands would compile all that it imports.
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self.environment["PATH"] = f"{self.folder / '.venv' / 'bin'}:{os.environ['PATH']}"
        self.folder.mkdir()
        for name, _, text in BLOCKS:
            if name:
                self.write(name, text)

    def write(self, name, text):
        """Type a block into a file, below what is there."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        with path.open("a") as file:
            file.write(text)

    def run(self, command, given="", **environment):
        """Run a command to its end; return what it said."""
        done = subprocess.run(
            # There is no pip in an environment of uv's.
            re.sub("^pip ", "uv pip ", command),
            shell=True,
            cwd=self.folder,
            env=self.environment | environment,
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=patient(60),
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}"
        return done.stdout

    @contextmanager
    def running(self, command):
        """Run a command until the block ends."""
        with (
            (self.folder / "log").open("a") as log,
            subprocess.Popen(
                command.split(),
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                # It asks its children to end, too.
                start_new_session=True,
            ) as process,
        ):
            try:
                yield
            finally:
                os.killpg(process.pid, signal.SIGTERM)

    @property
    def log(self):
        return (self.folder / "log").read_text()


@pytest.fixture(scope="module")
def own_app(tmp_path_factory, provider_server, redis_server):
    """What one has who has typed and run all that the page says, up to the first message."""
    app = OwnApp(
        tmp_path_factory.mktemp("own"),
        os.environ
        | {
            "OPENAI_API_KEY": "sk-test",
            "OPENAI_BASE_URL": provider_server.url,
            "REDIS_URL": redis_server.url,
            "RQ_REDIS_URL": redis_server.url,
            "UV_CONSTRAINT": str(constraints(tmp_path_factory.mktemp("constraints"))),
        },
    )
    app.run("uv venv --quiet .venv")
    for command in commands():
        if command not in ("rq worker", "flask run"):  # they run until somebody ends them
            app.run(command)
    return app


def constraints(folder):
    """Have the very versions installed that this project is tested with: they are at hand."""
    path = folder / "constraints.txt"
    export = "uv export --quiet --frozen --no-hashes --all-extras --all-groups --no-emit-project"
    subprocess.run([*export.split(), "--output-file", path], cwd=ROOT, check=True)
    return path


def commands():
    """Return the commands that are printed, line by line."""
    return [line for _, kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]


def test_a_live_chat_in_ones_own_app_takes_less_than_70_lines():
    typed = [line for *_, text in BLOCKS for line in text.splitlines() if line.strip()]
    assert len(typed) < 70


def test_the_printed_migration_leaves_nothing_to_change(own_app):
    assert "No new upgrade operations" in own_app.run("flask db check")


def test_the_printed_migration_runs_on_postgresql_as_it_is(own_app, postgres_url):
    own_app.run("pip install psycopg[binary]")
    url = {"DATABASE_URL": postgres_url.replace("postgresql:", "postgresql+psycopg:")}
    own_app.run("flask db upgrade", **url)
    assert "No new upgrade operations" in own_app.run("flask db check", **url)


def shell_lines():
    """Return what the page has one type into `flask shell`."""
    return next(text for name, kind, text in BLOCKS if kind == "python" and not name)


def test_the_printed_lines_chat_in_the_shell_and_on_a_live_page(own_app, provider):
    provider.says("Hello ", "to ", "you!").uses(1000, 100)
    port = free_port()
    own_app.environment["FLASK_RUN_PORT"] = str(port)
    with own_app.running("rq worker"), own_app.running("flask run"):
        assert "Hello to you! 100 0.0002" in own_app.run("flask shell", shell_lines())
        person = Session(f"http://127.0.0.1:{port}")
        wait_until(lambda: answers(person), 20, "flask run")
        assert '<a href="/chats/1">' in person.post("/").text
        html = person.get("/chats/1").text
        page, since = Page(html), re.search(r"/updates\?since=(\d+)", html)[1]
        assert page.text(2) == "Hello to you!"
        socket = Socket(person.host, f"/chats/1/updates?since={since}", "")
        provider.says("One ", hold=True).says("two.").uses(2000, 200)
        form = re.search(r'hx-post="([^"]+)"', html)[1]
        assert person.post(form, content="count").status == 204
        socket.wait_for("One")
        provider.release()
        socket.wait_for("two")
        socket.wait_for_status(4, "complete")
        for frame in socket.frames:
            page.apply(frame)
        assert page.html == Page(person.get("/chats/1").text).html
        assert page.text(4) == "One two."
        assert "200 output tokens" in page.html
    assert "Traceback" not in own_app.log


def answers(person):
    try:
        return person.get("/").status == 200
    except OSError:
        return False
