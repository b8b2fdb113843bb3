"""A provider that says as many words as it is asked for; whoever asks twice hears them twice."""

import re
from itertools import pairwise

from tests import wire
from tests.provider import Provider
from tests.script import Reply
from tests.tab import prose

ORDER = re.compile(r"(\d+) words, (\d+) ms apart")


class Narrator(Provider):
    """Answer "12 words, 50 ms apart" with w0 to w11 at that pace; a queued script goes first.

    One that is `strict` refuses a conversation whose roles do not alternate, or with blanks.
    """

    strict = False

    def script_for(self, request):
        if self.strict and not in_turns(request.json["messages"]):
            refusal = wire.error("Conversation roles must alternate user/assistant")
            return Reply(self.changed).fails(400, refusal, {})
        orders = ORDER.findall(request.prompt)
        if not orders or any(script.matches(request) for script in self.scripts):
            return super().script_for(request)
        count, gap = map(int, orders[-1])
        return narration(Reply(self.changed), count, gap / 1000)


def in_turns(messages):
    """Tell whether roles alternate and everybody says something."""
    roles = [message["role"] for message in messages]
    alternate = all(one != other for one, other in pairwise(roles))
    return alternate and all(message["content"].strip() for message in messages)


def narration(script, count, gap):
    for token in prose(count):
        script.says(token).pauses(gap)
    return script
