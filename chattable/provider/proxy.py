"""The proxy between us and a provider: whether there is one, and how it lets us through.

The environment names it, as it does for curl: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, and
`NO_PROXY` for whom there is none. Only `transport` comes in here.
"""

import ipaddress
import os
import re
import socket
from base64 import b64encode
from fnmatch import fnmatchcase
from http.client import HTTPException, HTTPResponse
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from chattable.provider.address import ip_address, is_this_machine
from chattable.provider.errors import ProviderError

WITH_PORT = re.compile(r"(\[[^]]+\]|[^:]+):(\d+)")


def proxy_for(url):
    """Return the `Proxy` on the way to an address (httpx2.URL), or None. Raises `ProviderError`."""
    host = url.host.lower().rstrip(".")
    proxies = getproxies()
    scheme = next((name for name in (url.scheme, "all") if proxies.get(name)), None)
    if not scheme or is_this_machine(host) or is_spared(url, host, proxies.get("no", "")):
        return None
    # This may ask for a name, which is of no use without a proxy.
    if is_here(host):
        return None
    variable = f"{scheme}_proxy"
    return Proxy(variable if os.environ.get(variable) else variable.upper(), proxies[scheme])


def is_here(host):
    """Return whether a host is this machine by a name of its own, or beside it on its cable."""
    if address := ip_address(host):
        return address.is_link_local
    return host in (socket.gethostname().lower(), socket.getfqdn().lower()) or leads_here(host)


def leads_here(host):
    """Return whether a name, as in /etc/hosts, leads to this machine alone."""
    try:
        found = {str(address[0]) for *_, address in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return all(map(is_this_machine, found))


def is_spared(url, host, spared):
    """Return whether `NO_PROXY` has a host: a name or its end, an address, a network, any port."""
    names = {host, url.raw_host.decode().lower().rstrip(".")}
    port = url.port or (443 if url.scheme == "https" else 80)
    entries = re.split(r"[\s,;]+", spared.strip("\"' ").lower())
    return any(fits(entry, names, port) for entry in entries) or proxy_bypass(host)


def fits(entry, names, port):
    entry = entry.rpartition("://")[2]
    if with_port := WITH_PORT.fullmatch(entry):
        entry = with_port[1]
        if int(with_port[2]) != port:
            return False
    entry = re.sub(r"[][]", "", entry)
    try:
        network = ipaddress.ip_network(entry, strict=False)
        return any((address := ip_address(name)) and address in network for name in names)
    except ValueError:
        end = entry.removeprefix("*").strip(".")
    if not end:
        return entry == "*"
    return any(
        name == end or name.endswith(f".{end}") or fnmatchcase(name, entry) for name in names
    )


class Proxy:
    """A proxy as a `variable` of the environment has it; its password is never told to anybody."""

    def __init__(self, variable, address):
        self.variable = variable
        address = address.strip("\"' \r\n\t")
        try:
            parts = urlsplit(address if "//" in address else f"//{address}", "http")
            self.host, self.port = parts.hostname or "", parts.port or 80
        except ValueError:
            self.host = ""
        # What comes after a sign that no password may have as it is would be taken for a path.
        if (
            not re.fullmatch(r"[^\s\x00-\x20]+", self.host)
            or "@" in address.rpartition(parts.netloc)[2]
        ):
            raise ProviderError(
                f"{variable} is not the address of a proxy, such as http://name:password@host:3128"
                " (in a password, %40 stands for @ and %23 for #)."
            )
        self._refuse_unspoken(parts.scheme)
        name = parts.username
        self.credentials = {} if name is None else authorization(name, parts.password or "")

    def _refuse_unspoken(self, scheme):
        if scheme == "https":
            raise ProviderError(
                f"{self.variable} begins with https://, but a proxy is not spoken to over TLS here."
                " Try http:// there."
            )
        if scheme != "http":
            raise ProviderError(
                f"{self.variable} begins with {scheme}://, which is not spoken here. Name a proxy"
                " that begins with http://."
            )

    def connect(self, timeout):
        """Return a socket that leads to the proxy. Raises `httpx2.ProxyError`."""
        try:
            sock = socket.create_connection((self.host, self.port), timeout)
        except (OSError, ValueError) as error:  # no name is the latter
            raise self._failure("could not be reached") from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def reach(self, host, port, timeout):
        """Return a socket that leads through the proxy to a host.

        Raises `ProviderError` where to ask again would not help, else `httpx2.ProxyError`.
        """
        sock = self.connect(timeout)
        try:
            self.check(self._ask(sock, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"))
        except (OSError, HTTPException) as error:
            sock.close()
            raise self._failure("opened no way to the provider") from error
        except Exception:
            sock.close()
            raise
        return sock

    def _ask(self, sock, address):
        """Return the status (int) with which a proxy answers to CONNECT."""
        lines = [f"CONNECT {address} HTTP/1.1", f"Host: {address}"]
        lines += [f"{name}: {value}" for name, value in self.credentials.items()]
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = HTTPResponse(sock, method="CONNECT")
        try:
            answer.begin()
        finally:
            answer.close()
        return answer.status

    def check(self, status):
        """Raise what a proxy's own answer (a status) means, unless it lets us through."""
        if 200 <= status < 300:
            return
        if status == 407:
            raise ProviderError(
                f"The proxy that {self.variable} names asks for a name and a password, or refuses"
                " those it has there: http://name:password@host:3128."
            )
        if status < 500:
            raise ProviderError(
                f"The proxy that {self.variable} names does not let this server through to the"
                f" provider (error {status})."
            )
        raise self._failure(f"could not reach the provider (error {status})")

    def _failure(self, what):
        return httpx2.ProxyError(f"The proxy that {self.variable} names {what}. Try again.")


def authorization(name, password):
    encoded = b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
    return {"Proxy-Authorization": f"Basic {encoded}"}
