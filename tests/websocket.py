"""The client's side of WebSocket without I/O, with permessage-deflate (RFC 6455, 7692)."""

import base64
import os
import struct
import zlib

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
DEFLATE_OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
# What a server says when it has nothing else to say.
ALIVE = (TEXT, b"{}")
DEFLATE_TAIL = b"\x00\x00\xff\xff"


def handshake(host, path, cookie="", origin=None, deflate=True):
    """Return the bytes that ask for an upgrade, as a browser sends them."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
    ]
    lines += [f"Origin: {origin}"] if origin else []
    lines += [f"Cookie: {cookie}"] if cookie else []
    lines += [DEFLATE_OFFER] if deflate else []
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Decoder:
    """Turn received bytes into messages; count what the wire and the payload weigh.

    `status` is the HTTP status of the answer to the handshake (101 when it succeeded),
    `wire_bytes` all bytes after the handshake, `payload_bytes` the inflated messages, `beats` how
    often it has said that it lives, which is nobody else's business.
    """

    def __init__(self):
        self.status = None
        self.deflated = False
        self.wire_bytes = self.payload_bytes = self.beats = 0
        self._buffer = bytearray()
        self._message = bytearray()
        self._opcode = None
        self._compressed = False
        self._inflate = None

    def feed(self, data):
        """Return the messages that `data` completes: (opcode, payload bytes) each."""
        self._buffer += data
        if self.status is None:
            if not self._read_head():
                return []
        else:
            self.wire_bytes += len(data)
        messages = list(self._messages()) if self.status == 101 else []
        self.beats += messages.count(ALIVE)
        return [message for message in messages if message != ALIVE]

    def _read_head(self):
        head, found, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        if found:
            self.status = int(head.split(b" ", 2)[1])
            self.deflated = b"permessage-deflate" in head.lower()
            self._no_takeover = b"server_no_context_takeover" in head.lower()
            self._buffer = bytearray(rest)
            self.wire_bytes += len(rest)
        return found

    def _messages(self):
        while (frame := self._frame()) is not None:
            first, payload = frame
            opcode = first & 15
            if opcode >= CLOSE:
                yield opcode, payload
                continue
            if opcode != CONTINUATION:
                self._opcode, self._compressed = opcode, bool(first & 0x40)
            self._message += payload
            if first & 0x80:
                yield self._opcode, self._finish()

    def _finish(self):
        message, self._message = bytes(self._message), bytearray()
        if self._compressed:
            if self._inflate is None or self._no_takeover:
                self._inflate = zlib.decompressobj(-15)
            message = self._inflate.decompress(message + DEFLATE_TAIL)
        self.payload_bytes += len(message)
        return message

    def _frame(self):
        """Take one frame off the buffer: (first byte, payload); None until it is complete."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        start, length = 2, buffer[1] & 127
        if length > 125:
            start, kind = (4, "!H") if length == 126 else (10, "!Q")
            if len(buffer) < start:
                return None
            (length,) = struct.unpack_from(kind, buffer, 2)
        if len(buffer) < start + length:
            return None
        payload = bytes(buffer[start : start + length])
        first = buffer[0]
        del buffer[: start + length]
        return first, payload


def encode(opcode, payload=b""):
    """Return one masked frame, as clients must send them; `payload` is under 126 bytes."""
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + masked
