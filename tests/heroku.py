"""A Heroku-style platform in miniature: it installs what git has, and runs the Procfile's lines."""

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from urllib.parse import urlsplit

import pytest

from tests.front import Front
from tests.gate import Gate, make_certificate
from tests.patience import patient
from tests.stack import PROCFILE, ROOT, Stack

AWAY = re.compile("Failed to fetch|error sending request|dns error|network connectivity|timed out")
# What its router says of a browser.
SAID = {
    "x-forwarded-for": "198.51.100.7",
    "x-forwarded-proto": "https",
    "x-forwarded-port": "443",
    "via": "1.1 heroku-router",
}


class Heroku(Stack):
    """An app that was pushed, behind a router that speaks TLS, its Redis behind TLS, too.

    Both have a certificate that nobody has signed. `address` is the browser's way in, `router.url`
    the same without TLS, for those who speak none.
    """

    def __init__(self, provider_url, database_url, folder):
        super().__init__(provider_url, database_url, env={"REDIS_PREFIX": ""})
        self.home = folder / "app"
        certificate = make_certificate(folder, "localhost")
        self.tls = Gate(urlsplit(self.redis.url).port, certificate).__enter__()
        self.router = Front(0, headers=SAID)
        self.door = Gate(self.router.port, certificate).__enter__()
        self.address = f"https://localhost:{self.door.port}"
        self.env |= {
            "PATH": f"{folder / 'python' / 'bin'}{os.pathsep}{os.defpath}",
            "DATABASE_URL": database_url.replace("postgresql:", "postgres:"),
            "REDIS_URL": f"rediss://:@127.0.0.1:{self.tls.port}",
            "WEB_CONCURRENCY": "2",
            "SENDS_PER_MINUTE": "0",
            "REPLIES_AT_ONCE": "0",
        }
        for ours in "REDIS_PREFIX", "INSTANCE_PATH":
            del self.env[ours]

    def push(self):
        """Install what was committed into a new folder and a new environment; start all of it."""
        self.build()
        assert self._run("release").wait(patient(30)) == 0, self.log("release")
        self.start_worker()
        self.start_web()
        return self

    def build(self):
        commit = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True)
        if commit.returncode:
            pytest.skip("this is no clone of a git repository")
        with tarfile.open(fileobj=io.BytesIO(commit.stdout)) as files:
            files.extractall(self.home, filter="data")
        python = self.home.parent / "python"
        uv("venv", "--python", sys.executable, python)
        quickly = "--python", python, "--no-compile-bytecode"
        uv("pip", "install", *quickly, "-r", "requirements.txt", cwd=self.home)

    def installed(self):
        """Return what is installed, as lines of requirements."""
        return uv("pip", "freeze", "--python", self.home.parent / "python").split("\n")

    def start_web(self, **env):
        """Start a web dyno and have the router use it."""
        web = super().start_web(**env)
        self.router.to = urlsplit(web.url).port
        return web

    def _run(self, process_type, command=None, **env):
        log = (self.folder / f"{process_type}.log").open("a")
        return subprocess.Popen(
            ["bash", "-c", command or PROCFILE[process_type]],
            cwd=self.home,
            env=self.env | {"DYNO": f"{process_type}.1"} | env,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _end(self, process, signal_number):
        """End a dyno as Heroku does, each of its processes at once."""
        os.killpg(process.pid, signal_number)
        return process

    def close(self):
        super().close()
        for each in self.door, self.tls:
            each.__exit__()
        self.router.close()


def uv(*words, cwd=None):
    """Run uv; return what it said. Skips the test where it cannot download."""
    program = os.environ.get("UV") or shutil.which("uv")
    if not program:
        pytest.skip("uv is not on the PATH")
    done = subprocess.run([program, *words], cwd=cwd, capture_output=True, text=True)
    if done.returncode and AWAY.search(done.stderr):
        pytest.skip(f"nothing can be downloaded here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
