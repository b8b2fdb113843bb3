"""The load: readers with a WebSocket each, who send a message and note when frames come.

Run it with `python -m bench.load`. It reads one line of JSON, the job: `host`, `cookie`, `csrf`,
`provider` (host:port), `timeout` (seconds), `deflate`, and `readers`, a list of `chat`, `since`,
`prompt` (null: only listen), `kind`, `count`, `key`. It prints "ready" when all sockets are open,
waits for a line, plays, prints "done", then the result as one line of JSON.
"""

import asyncio
import json
import re
import sys
import time
import uuid
from urllib.parse import urlencode

from bench.files import allow_many_files
from bench.reading import figures
from tests import websocket

ENDED = re.compile(
    r'<article[^>]*id="message-(\d+)"(?=[^>]*data-role="assistant")'
    r'[^>]*data-status="(complete|stopped|failed)"'
)
AT_ONCE = 50


class Reader(asyncio.Protocol):
    """One open page: keep each text frame with its moment, answer pings, notice the end."""

    def __init__(self, plan, hello):
        self.plan, self.hello = plan, hello
        loop = asyncio.get_running_loop()
        self.opened, self.ended = loop.create_future(), loop.create_future()
        self.decoder = websocket.Decoder()
        self.frames = []
        self.posted_at = self.ended_at = self.message_id = None
        self.status = "unfinished"

    def connection_made(self, transport):
        self.transport = transport
        transport.write(self.hello)

    def data_received(self, data):
        now = time.monotonic()
        for opcode, payload in self.decoder.feed(data):
            if opcode == websocket.TEXT:
                self._note(now, payload.decode())
            elif opcode == websocket.PING:
                self.transport.write(websocket.encode(websocket.PONG, payload))
        if self.decoder.status and not self.opened.done():
            self.opened.set_result(self.decoder.status)

    def _note(self, now, frame):
        self.frames.append((now, frame))
        # only articles can end a reply; growth, the bulk, is JSON
        if frame[0] != "{" and (found := ENDED.search(frame)):
            self.message_id, self.status = found.groups()
            self.ended_at = now
            if not self.ended.done():
                self.ended.set_result(True)

    def connection_lost(self, error):
        for future in (self.opened, self.ended):
            if not future.done():
                future.set_result(False)


async def main():
    """Open, wait for the word, play, report."""
    job = json.loads(await next_line())
    readers = await open_all(job)
    failed = sum(reader.opened.result() != 101 for reader in readers)
    print("ready", failed, flush=True)
    await next_line()
    senders = [reader for reader in readers if reader.plan["prompt"]]
    await asyncio.gather(*(send(job, reader) for reader in senders))
    if senders:
        await asyncio.wait([reader.ended for reader in senders], timeout=job["timeout"])
    print("done", flush=True)
    print(json.dumps([await report(job, reader) for reader in senders]), flush=True)


async def next_line():
    return await asyncio.to_thread(sys.stdin.readline)


async def open_all(job):
    """Open every reader's socket, `AT_ONCE` handshakes at a time."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def open_one(plan):
        async with gate:
            return await open_reader(job, plan)

    return await asyncio.gather(*map(open_one, job["readers"]))


async def open_reader(job, plan):
    path = f"/chats/{plan['chat']}/updates?since={plan['since']}"
    origin = f"http://{job['host']}"
    hello = websocket.handshake(job["host"], path, job["cookie"], origin, job["deflate"])
    name, port = job["host"].split(":")
    loop = asyncio.get_running_loop()
    _, reader = await loop.create_connection(lambda: Reader(plan, hello), name, int(port))
    await asyncio.wait([reader.opened], timeout=30)
    if not reader.opened.done():
        reader.opened.set_result(False)
    return reader


async def send(job, reader):
    """Post the reader's message; a refusal ends the reader."""
    plan = reader.plan
    fields = {"chat_id": plan["chat"], "content": plan["prompt"], "client_id": str(uuid.uuid4())}
    body = urlencode(fields | {"model": job["model"], "csrf_token": job["csrf"]})
    name, port = job["host"].split(":")
    lines, writer = await asyncio.open_connection(name, int(port))
    reader.posted_at = time.monotonic()
    writer.write(request(job, body).encode())
    status = (await lines.readline()).split()
    writer.close()
    if status[1:2] != [b"204"] and not reader.ended.done():
        reader.status = f"refused with {status}"
        reader.ended.set_result(False)


def request(job, body):
    head = [
        "POST /messages HTTP/1.1",
        f"Host: {job['host']}",
        f"Cookie: {job['cookie']}",
        f"X-CSRFToken: {job['csrf']}",
        "HX-Request: true",
        "Connection: close",
        "Content-Type: application/x-www-form-urlencoded",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join(head) + "\r\n\r\n" + body


async def report(job, reader):
    """Compare what the reader saw with what the provider said."""
    said = await said_by_provider(job["provider"], reader.plan["key"])
    weights = {
        "wire": reader.decoder.wire_bytes,
        "payload": reader.decoder.payload_bytes,
        "frames": len(reader.frames),
        "deflated": reader.decoder.deflated,
    }
    ends = {
        "chat": reader.plan["chat"],
        "message": reader.message_id,
        "status": reader.status,
        "posted_at": reader.posted_at,
        "ended_at": reader.ended_at,
    }
    return weights | ends | figures(reader, said)


async def said_by_provider(host, key):
    name, port = host.split(":")
    lines, writer = await asyncio.open_connection(name, int(port))
    writer.write(f"GET /said/{key} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    head = await lines.readuntil(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head)[1])
    body = await lines.readexactly(length)
    writer.close()
    return json.loads(body)


if __name__ == "__main__":
    allow_many_files()
    asyncio.run(main())
