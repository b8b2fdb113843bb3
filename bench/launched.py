"""The product as `chattable` starts it, with its own Redis: to be killed as a whole."""

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import psutil

from tests.services import free_port, wait_until
from tests.session import Session

COMMAND = Path(sys.executable).with_name("chattable")


class Launched:
    """One launcher in a folder of its own; what `Stack` is to the deployed product."""

    workers = ()

    def __init__(self, provider_url, database_url=None):
        self.folder = Path(tempfile.mkdtemp(prefix="launched-"))
        self.instance = self.folder / "instance"
        self.database_url = database_url or f"sqlite:///{self.folder / 'chattable.db'}"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if os.getenv(name)}
        self.env = inherited | {
            "RATELIMIT_ENABLED": "0",
            "INSTANCE_PATH": str(self.instance),
            "PORT": str(self.port),
            "DATABASE_URL": self.database_url,
            "OPENAI_API_KEY": "sk-test",
            "OPENAI_BASE_URL": provider_url,
            "MODELS": "gpt-4o-mini",
        }

    def start(self, *_):
        """Start it; wait until it answers."""
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [COMMAND], cwd=self.folder, env=self.env, stdout=log, stderr=log
            )
        wait_until(self._is_up, 30, "the launcher")
        return self

    def _is_up(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"the launcher ended:\n{self.last_words()}")
        with suppress(OSError), urlopen(f"{self.url}/up", timeout=5) as answer:
            return answer.status == 200

    def signup(self):
        """Return a new visitor who has just signed up."""
        return Session(self.url).signup("Ada Lovelace", "ada@example.com")

    def kill(self):
        """Kill the launcher and nobody else."""
        self.process.kill()
        self.process.wait()

    def left(self):
        """Return the living processes that it has started."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process):
        with suppress(psutil.Error):
            # Redis writes its title over its environment
            started = process.environ().get("INSTANCE_PATH") == str(self.instance)
            ours = started or f"{self.instance}/" in " ".join(process.cmdline())
            return ours and process.status() != psutil.STATUS_ZOMBIE
        return False

    def last_words(self):
        """Return the end of what it has logged."""
        return (self.folder / "log").read_text(errors="replace")[-3000:]

    def close(self):
        """End everything that was started."""
        self.kill()
        for process in self.left():
            with suppress(psutil.Error):
                process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
