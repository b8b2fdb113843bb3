"""What may stand between the product and a provider: TLS, or a proxy that is asked to CONNECT."""

import asyncio
import ssl
import subprocess
import threading
from contextlib import suppress


class Gate:
    """Pass bytes on to a port of this machine, in a thread of its own; a context.

    With a `certificate` (a file) it speaks TLS. As a `proxy` it takes any address for that port,
    and `asked` holds the heads of the requests; with `says` it answers to them, and that is all.
    """

    def __init__(self, behind, certificate=None, proxy=False, says=b""):
        self.behind, self.proxy, self.says = behind, proxy, says
        self.asked = []
        self._tls = certificate and ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        if certificate:
            self._tls.load_cert_chain(certificate)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        serving = asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        server = asyncio.run_coroutine_threadsafe(serving, self._loop).result()
        self.port = server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self):
        # What is left to the collector of garbage ends in the middle of anything else.
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for each in left:
            each.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _serve(self, reader, writer):
        if self.proxy:
            self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(self.says or b"HTTP/1.1 200 Connection established\r\n\r\n")
            if self.says:
                return writer.close()
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self.behind)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))


async def pump(reader, writer):
    """Pass on what comes from one side until it ends."""
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


def make_certificate(folder, name):
    """Write a certificate for `name` and its key into a file that is also its authority's."""
    path = folder / f"{name}.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    words = ["-keyout", path, "-out", "-", "-subj", f"/CN={name}"]
    words += ["-addext", f"subjectAltName=DNS:{name}"]
    made = subprocess.run([*command.split(), *words], capture_output=True, check=True)
    with path.open("ab") as file:
        file.write(made.stdout)
    return path
