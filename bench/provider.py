"""A model provider that says known text at a steady pace and knows when it said each token.

Run it with `python -m bench.provider PORT`. The prompt says what is wanted: "400 tokens of prose
at 50/s #17". `GET /said/17` tells when: `asked` and `written`, a list by token, in seconds of
the machine's monotonic clock, which every process here shares.
"""

import asyncio
import json
import re
import sys
import time
from functools import cache

from bench.files import allow_many_files
from bench.text import tokens
from tests import wire

MODEL = "gpt-4o-mini"
PROMPT = re.compile(r"(\d+) tokens of (prose|code) at (\d+)/s #([\w.-]+)")
HEADERS = {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"}
said = {}


async def serve(reader, writer):
    """Answer the requests of one connection."""
    try:
        while True:
            path, body = await read_request(reader)
            if path.endswith("/chat/completions"):
                await complete(writer, json.loads(body))
            else:
                answer(writer, look_up(path))
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # an idle client leaves, and so does the reader of a stopped reply
    finally:
        writer.close()


async def read_request(reader):
    """Read one request: (path, body); raise `IncompleteReadError` at the connection's end."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
    body = await reader.readexactly(int(length[1])) if length else b""
    return head.split(b" ", 2)[1].decode(), body


async def complete(writer, asked):
    """Stream the text that the last message asks for at the pace it asks for."""
    asked_at = time.monotonic()
    prompt = asked["messages"][-1]["content"]
    count, kind, rate, key = PROMPT.search(prompt).groups()
    writer.write(wire.http_head(200, HEADERS))
    reply = Reply(writer, events(kind, int(count)), int(rate))
    # What it takes to make a long text is the provider's own time.
    said[key] = {"asked": asked_at, "written": reply.written}
    if await reply.over:
        writer.write(ending(len(prompt) // 4, int(count)))


class Reply:
    """Write an event every `1 / rate` seconds; `over` tells if the reader stayed to the end.

    Timers call it directly: a task that sleeps between tokens costs twice the CPU.
    """

    def __init__(self, writer, events, rate):
        self.loop = asyncio.get_running_loop()
        self.writer, self.events, self.rate = writer, events, rate
        self.start, self.written = time.monotonic(), []
        self.over = self.loop.create_future()
        self.say()

    def say(self):
        if self.writer.is_closing():
            return self.over.set_result(False)
        self.writer.write(self.events[len(self.written)])
        self.written.append(time.monotonic())
        if len(self.written) == len(self.events):
            return self.over.set_result(True)
        return self.loop.call_at(self.start + len(self.written) / self.rate, self.say)


@cache
def events(kind, count):
    """Return the bytes of each token's event, an HTTP chunk each."""
    deltas = [{"content": token} for token in tokens(kind, count)]
    deltas[0] = {"role": "assistant"} | deltas[0]
    return [wire.http_chunk(wire.event(wire.chunk(MODEL, delta))) for delta in deltas]


def ending(prompt, completion):
    """Return the bytes after the last token: finish reason, usage, the end."""
    usage = wire.last_chunk(MODEL, wire.usage(prompt, completion))
    last = [wire.event(wire.chunk(MODEL, {}, "stop")), wire.event(usage), wire.DONE]
    return b"".join(map(wire.http_chunk, last)) + wire.LAST_HTTP_CHUNK


def look_up(path):
    """Return what a GET asks for: the moments of one reply, else the list of models."""
    found = re.search(r"/said/([\w.-]+)", path)
    return said.get(found[1]) if found else wire.model_list([MODEL])


def answer(writer, data):
    """Write a whole JSON answer."""
    body = json.dumps(data).encode()
    headers = {"content-type": "application/json", "content-length": len(body)}
    writer.write(wire.http_head(200, headers) + body)


async def main(port):
    """Serve until the process is ended."""
    allow_many_files()
    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=1024, limit=2**22)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
