"""The proxies before us: what they say of the browser, and from whom it is believed."""

import re
from ipaddress import ip_address
from itertools import takewhile

from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import Map

from pages.settings import PATH

FIXES = {
    f"x_{name}": f"HTTP_X_FORWARDED_{name.upper()}"
    for name in ("for", "proto", "host", "port", "prefix")
}
PORT = re.compile(r"^\[(.*)\](:\d+)?$|^([^:]*):\d+$")


def init_app(app):
    """Have an app believe TRUSTED_PROXIES: a number of them, or the networks they are in."""
    if app.config["TRUSTED_PROXIES"]:
        trusted, urls = app.config["TRUSTED_PROXIES"], app.url_map
        app.wsgi_app = BehindProxies(app.wsgi_app, trusted, urls)


class BehindProxies:
    """Take the browser's address and scheme, and our host, port and path, from trusted proxies."""

    def __init__(self, app, trusted, urls=None):
        self.app, self.trusted, self.urls = app, trusted, urls or Map()

    def __call__(self, environ, start_response):
        # A stray quote would make one value of many.
        for name in environ.keys() & FIXES.values():
            environ[name] = environ[name].replace('"', "")
        before = environ.get("HTTP_X_FORWARDED_FOR", "").split(",")
        environ["HTTP_X_FORWARDED_FOR"] = ",".join(without_port(each) for each in before)
        hops = self.hops(environ)
        prefixes = environ.get("HTTP_X_FORWARDED_PREFIX", "").split(",")
        if not all(PATH.fullmatch(each.strip().removesuffix("/")) for each in prefixes):
            environ.pop("HTTP_X_FORWARDED_PREFIX", None)
        # A proxy adds to what the one before it says, or says it anew.
        said = {fix: environ.get(name, "").count(",") + 1 for fix, name in FIXES.items()}
        fixes = {fix: min(hops, count) for fix, count in said.items()}
        return ProxyFix(self.without_path, **fixes)(environ, start_response)

    def without_path(self, environ, start_response):
        """Take off the path that a proxy has named and left there, unless it is one of ours."""
        root, path = environ["SCRIPT_NAME"].rstrip("/"), environ["PATH_INFO"]
        left = root and f"{path}/".startswith(f"{root}/")
        if left and not self.urls.bind("").test(path, environ["REQUEST_METHOD"]):
            environ["PATH_INFO"] = path.removeprefix(root)
        return self.app(environ, start_response)

    def hops(self, environ):
        """Return how many proxies in a row are trusted, the nearest first."""
        if isinstance(self.trusted, int):
            return self.trusted
        # Whoever comes by a socket file is on this machine.
        peer = environ.get("REMOTE_ADDR") or "127.0.0.1"
        before = environ.get("HTTP_X_FORWARDED_FOR", "").split(",")
        return len([*takewhile(self.trusts, [peer, *reversed(before)])])

    def trusts(self, address):
        try:
            known = ip_address(address.strip())
        except ValueError:
            return False
        known = getattr(known, "ipv4_mapped", None) or known
        return any(known in network for network in self.trusted)


def without_port(address):
    """Return an address as the browser's next connection will have it, too."""
    return PORT.sub(r"\1\3", address.strip())
