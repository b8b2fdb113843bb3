"""Faults that come from outside: what a provider says, what is sent again."""

from bench.scene import Sent, at_once

LINE = " " * 2_000


def blank_line(scene):
    """Have one reply say a long blank line beside six others."""
    tabs = scene.open(7)
    scene.provider.reply(when="blanks").says("| a |\n|---|\n", LINE, "word")
    scene.send_all(tabs[:6], count=100)
    scene.wait_for_words("w9", tabs[:6])
    scene.send(tabs[6], content="say blanks")
    scene.settle(40)
    scene.expect_all_complete()


def roles_alternate(scene):
    """Let replies fail, be empty and be blank, with a provider that wants roles to alternate."""
    scene.provider.strict = True
    tabs = scene.open(3)
    scene.provider.fails(400, when="Message 0:")
    scene.provider.says("", when="Message 1:")
    scene.provider.says(" \n ", when="Message 2:")
    scene.insist([scene.send(tab) for tab in tabs])
    scene.settle(20)
    for tab in tabs:
        scene.insist([scene.send(tab)])
    scene.settle(20)
    rows = scene.books.rows()
    last = [max(row for row in rows if row.chat_id == tab.chat_id) for tab in tabs]
    failed = sum(row.status != "complete" for row in last)
    scene.expect(not failed, f"{failed} of 3 chats are poisoned")


def sent_again_late(scene):
    """Send a message again when Redis has forgotten that it was ever claimed."""
    messages = scene.send_all(scene.open(4))
    scene.settle(30)
    with scene.stack.redis.client() as client:
        for pattern in ("*claim:*", "rq:job:*", "rq:results:*"):
            for key in client.scan_iter(pattern):
                client.delete(key)
    at_once(Sent.post, messages)
    scene.watch(5)
    asked = len(scene.provider.requests)
    scene.expect(asked == len(messages), f"asked {asked} times for {len(messages)} messages")


def twenty_fold(scene):
    """Send each message 20 times at once, then press Retry 20 times at once."""
    tabs = scene.open(3)
    messages = [scene.write(tab) for tab in tabs]
    at_once(Sent.post, messages * 20)
    scene.insist(messages)
    scene.settle(30)
    for tab in tabs:
        at_once(lambda _, tab=tab: tab.person.retry(tab.reply_id), range(20))
    scene.watch(2)
    scene.settle(30)
    asked = len(scene.provider.requests)
    scene.expect(asked == 2 * len(tabs), f"asked {asked} times, 6 expected")
