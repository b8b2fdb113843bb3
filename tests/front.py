"""What stands between a browser and the product: a reverse proxy, as administrators set them up."""

import socket
import threading
from contextlib import suppress
from socketserver import StreamRequestHandler, ThreadingTCPServer

OUTSIDE = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Front(ThreadingTCPServer):
    """Pass requests on to a server on loopback; `outside` has what was asked beside `prefix`.

    `strips` takes the prefix off the path. `headers` are set, one that is None is taken away; in
    them {host} is what the browser has called us, {name} the same without its port.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, to, prefix="", strips=False, headers=None):
        super().__init__(("127.0.0.1", 0), Passing)
        self.to, self.prefix, self.strips = to, prefix, strips
        self.headers, self.outside = headers or {}, []
        threading.Thread(target=self.serve_forever, args=[0.05], daemon=True).start()

    @property
    def port(self):
        return self.server_address[1]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def rewritten(self, method, path, version, headers):
        """Return the head of a request as it is passed on, None if it is for somebody else."""
        if not f"{path.partition('?')[0]}/".startswith(f"{self.prefix}/"):
            self.outside.append(path)
            return None
        path = (path.removeprefix(self.prefix) or "/") if self.strips else path
        host = headers["host"]
        names = {"host": host, "name": host.rpartition(":")[0]}
        set_here = {name: value and value.format(**names) for name, value in self.headers.items()}
        # One request a connection, but for those that become sockets.
        close = {} if "upgrade" in headers else {"connection": "close"}
        headers = {k: v for k, v in (headers | close | set_here).items() if v is not None}
        lines = [f"{method} {path} {version}", *(f"{k}: {v}" for k, v in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def close(self):
        self.shutdown()
        self.server_close()


class Passing(StreamRequestHandler):
    """One request, and its answer or its socket."""

    def handle(self):
        first = self.rfile.readline().decode("latin-1").split()
        if len(first) != 3:
            return  # a browser connects in advance
        lines = iter(lambda: self.rfile.readline().decode("latin-1").strip(), "")
        fields = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in fields}
        head = self.server.rewritten(*first, headers)
        if head is None:
            return self.wfile.write(OUTSIDE)
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.server.to)) as far:
            far.sendall(head + self.rfile.read(int(headers.get("content-length", 0))))
            threading.Thread(target=self.pass_on, args=[far], daemon=True).start()
            while data := far.recv(65536):
                self.wfile.write(data)

    def pass_on(self, far):
        with suppress(OSError, ValueError):
            while data := self.rfile.read1(65536):
                far.sendall(data)
        with suppress(OSError):
            far.shutdown(socket.SHUT_RDWR)
