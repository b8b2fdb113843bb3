"""The dialects of a provider's stream: its bytes, its events, and the text they carry."""

import json

import jiter

# Bytes of a line, or of a body that is not streamed: a whole reply and what its model thought.
LONGEST_LINE = 2**24


class TooLong(Exception):
    """Raised for a line that is longer than any reply."""


class EventReader:
    """Bytes of a server-sent event stream in, decoded JSON objects out.

    Lines may be split anywhere, end in LF, CRLF or CR, and lack the space after "data:". A body
    that was not streamed at all is one event.
    """

    DONE = object()
    NO_JSON = object()

    def __init__(self):
        self.understood = self.garbled = self.page = False
        self._whole = None
        self._rest = []
        self._data = []
        # Bytes of the two.
        self._held = self._pending = 0
        self._name = b""
        self._after_cr = False

    def feed(self, chunk):
        """Return the events that `chunk` completes, in order."""
        if self._whole is None:
            # No line of an event stream begins like JSON, whatever the headers say.
            chunk = chunk.lstrip(b"\xef\xbb\xbf \t\r\n")
            self._whole = chunk.startswith((b"{", b"[")) if chunk else None
            self.page = chunk.startswith(b"<")
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._after_cr = chunk.endswith(b"\r")
        if self._whole or not (b"\n" in chunk or b"\r" in chunk):
            self._rest.append(chunk)
            self._held += len(chunk)
            self._check_length()
            return []
        lines = b"".join([*self._rest, chunk]).splitlines()
        self._rest = [] if chunk.endswith((b"\n", b"\r")) else [lines.pop()]
        self._held = sum(map(len, self._rest))
        return [event for line in lines if (event := self._line(line)) is not None]

    def _check_length(self):
        if self._held + self._pending > LONGEST_LINE:
            self._rest, self._data = [], []
            raise TooLong

    def close(self):
        """Return what the end of the stream completes."""
        rest, self._rest = b"".join(self._rest).strip(), []
        if self._whole:
            return self._whole_body(rest)
        garbled = self.garbled
        events = (self._line(rest), self._line(b""))
        self.garbled = garbled  # what is cut off is not
        return [event for event in events if event is not None]

    def _whole_body(self, body):
        try:
            found = decode(body)
        except ValueError:
            return []
        event = found[0] if isinstance(found, list) and found else found
        self.understood = isinstance(event, dict)
        if not self.understood:
            return []
        return [
            event if event.get("choices") else {"error": event.get("error") or event},
            self.DONE,
        ]

    def _line(self, line):
        if line.startswith(b"data:"):
            return self._datum(line[5:].strip())
        if not line:
            return self._blank() if self._data or self._name else None
        if line.startswith(b"event:"):
            self._name = line[6:].strip()
        # Anything else is a comment, an id, or a page that is no event stream.
        return None

    def _datum(self, data):
        if data == b"[DONE]":
            self.understood = True
            return self.DONE
        event = self._event(data)
        if isinstance(event, dict) and not self._data:
            return event
        # Among the lines of one event this may be a fragment that happens to be JSON; if it is
        # not, what was pending is lost.
        if fields(event).keys() & {"choices", "error"}:
            self._data, self._pending, self.garbled = [], 0, True
            return event
        self._data.append(data)
        self._pending += len(data)
        self._check_length()
        return None

    def _blank(self):
        data, self._data, self._pending = b"\n".join(self._data).strip(), [], 0
        event = self._event(data) if data else None
        self._name = b""
        self.garbled = self.garbled or event is self.NO_JSON
        return event if isinstance(event, dict) else None

    def _event(self, data):
        """Return what `data` says: a dict, or another JSON value, or `NO_JSON`."""
        failed = self._name == b"error"
        try:
            event = decode(data)
        except ValueError:
            if not failed:
                return self.NO_JSON
            event = {"message": data.decode(errors="replace")}
        event = event[0] if isinstance(event, list) and event else event
        self.understood = self.understood or isinstance(event, dict)
        return {"error": event} if failed and "error" not in fields(event) else event


def read_events(data):
    """Return the events of a stream's beginning, or of a body that was not streamed."""
    reader = EventReader()
    return [*reader.feed(data), *reader.close()]


def decode(data):
    """Return what JSON bytes say. Raises ValueError."""
    try:
        return jiter.from_json(data)
    except ValueError:
        # Half a surrogate pair, which Python takes and the faster reader does not.
        try:
            return json.loads(data)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


class TextJoiner:
    """Join text whose emoji may be cut in two: JSON escapes halves of a surrogate pair apart."""

    def __init__(self):
        self._half = ""

    def feed(self, text):
        """Return `text` as valid Unicode without NULs (no database takes them)."""
        if not text:
            return ""
        text, self._half = self._half + text, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return whole_characters(text)

    def close(self):
        """Return what is left: a half whose other half never came."""
        half, self._half = self._half, ""
        return whole_characters(half)


def whole_characters(text):
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\0", "")


def fields(value):
    """Return a JSON object's fields; none if it is anything else."""
    return value if isinstance(value, dict) else {}


def first_choice(event):
    choices = event.get("choices")
    return fields(choices[0]) if choices and isinstance(choices, list) else {}


def plain(content):
    """Return the text of a delta: a string, a list of parts, or nothing."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part if isinstance(part, str) else fields(part).get("text") for part in content)
        return "".join(part for part in parts if isinstance(part, str))
    return ""


def reasoning(delta):
    """Return what a delta says of the model's thoughts, in whichever of the fields there are.

    OpenRouter may tell the same in two; Mistral has parts for it in the content.
    """
    told = plain(delta.get("reasoning_content") or delta.get("reasoning"))
    return (
        told
        or plain(delta.get("reasoning_details"))
        or parts(delta.get("reasoning_details"), "summary")
        or parts(delta.get("content"), "thinking")
    )


def parts(content, name):
    """Return the text of one field of all parts of a list."""
    found = content if isinstance(content, list) else ()
    return "".join(plain(fields(part).get(name)) for part in found)
