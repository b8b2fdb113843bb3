"""Browsers beside Chromium, by WebDriver: Firefox on its own socket, WebKit by its driver."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

from tests.patience import patient
from tests.services import free_port, wait_until


class Browser:
    """One window of a browser, with a folder of its own; `missing` says what is not installed."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="browser-"))
        self.processes = []

    def start(self, command, env=None, **options):
        """Start a program at home in the folder."""
        env = os.environ | {"HOME": str(self.folder)} | (env or {})
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.processes.append(subprocess.Popen(command, env=env, **quiet, **options))

    def close(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(patient(10))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, script, *arguments):
        """Run the body of a function on the page and return what it returns."""
        return self.command("ExecuteScript", script=script, args=list(arguments))

    def open(self, url):
        self.command("Navigate", url=url)

    def type(self, text):
        """Press the keys of a text, one after the other."""
        keys = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        self.command("PerformActions", actions=[{"type": "key", "id": "keys", "actions": keys}])

    def scroll(self, distance):
        """Turn the wheel over the page, down or up, px."""
        turn = {"type": "scroll", "x": 500, "y": 300, "deltaX": 0, "deltaY": distance}
        turns = [turn | {"duration": 0, "origin": "viewport"}]
        self.command("PerformActions", actions=[{"type": "wheel", "id": "wheel", "actions": turns}])

    def add_cookies(self, cookies):
        for name, value in cookies.items():
            self.command("AddCookie", cookie={"name": name, "value": value, "path": "/"})


class Firefox(Browser):
    """Firefox by Marionette: WebDriver's commands as JSON, with its length before it."""

    program = shutil.which("firefox") or shutil.which("firefox-esr")
    missing = None if program else "no Firefox"

    def __init__(self):
        super().__init__()
        (self.folder / "user.js").write_text('user_pref("marionette.port", 0);')
        options = ["--headless", "--marionette", "--no-remote", "--profile", str(self.folder)]
        self.start([self.program, *options])
        port = self.folder / "MarionetteActivePort"
        wait_until(lambda: port.exists() and port.read_text(), 60, "Firefox")
        self.socket = socket.create_connection(("127.0.0.1", int(port.read_text())))
        self.answers = self.socket.makefile("rb")
        self.sent = 0
        self._read()
        self.command("NewSession")

    def command(self, name, **fields):
        self.sent += 1
        data = json.dumps([0, self.sent, f"WebDriver:{name}", fields]).encode()
        self.socket.sendall(b"%d:%b" % (len(data), data))
        _, _, error, answer = self._read()
        if error:
            raise RuntimeError(f"{name}: {error}")
        return answer.get("value")

    def _read(self):
        size = b""
        while (byte := self.answers.read(1)) != b":":
            size += byte
        return json.loads(self.answers.read(int(size)))

    def close(self):
        self.socket.close()
        super().close()


class WebKit(Browser):
    """WebKitGTK's small browser, by its driver's HTTP, on a screen that nobody sees."""

    PATHS = {
        "Navigate": "url",
        "ExecuteScript": "execute/sync",
        "PerformActions": "actions",
        "AddCookie": "cookie",
    }
    program = next(Path("/usr").glob("lib*/*/webkit2gtk-4.*/MiniBrowser"), None)
    there = program and shutil.which("WebKitWebDriver") and shutil.which("Xvfb")
    missing = None if there else "no WebKitGTK with its driver, or no Xvfb"

    def __init__(self):
        super().__init__()
        self.turned = 0
        port = free_port()
        self.start(["WebKitWebDriver", f"--port={port}"], {"DISPLAY": self._screen()})
        self.url = f"http://127.0.0.1:{port}/session"
        wait_until(lambda: listens(port), 20, "WebKit's driver")
        options = {"binary": str(self.program), "args": ["--automation"]}
        wanted = {"alwaysMatch": {"webkitgtk:browserOptions": options}}
        self.url += "/" + self._ask("", {"capabilities": wanted})["sessionId"]

    def _screen(self):
        read, write = os.pipe()
        self.start(["Xvfb", "-displayfd", str(write), "-nolisten", "tcp"], pass_fds=[write])
        os.close(write)
        with open(read) as number:
            return f":{number.readline().strip()}"

    def command(self, name, **fields):
        return self._ask(f"/{self.PATHS[name]}", fields)

    def scroll(self, distance):
        self.turned += distance  # it turns to where it is told, not so far
        super().scroll(self.turned)

    def _ask(self, path, fields, method="POST"):
        data = json.dumps(fields).encode()
        request = urllib.request.Request(self.url + path, data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=patient(60)) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()) from error

    def close(self):
        with suppress(OSError, RuntimeError):  # else its window would stay
            self._ask("", {}, "DELETE")
        super().close()


def listens(port):
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
