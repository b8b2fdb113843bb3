"""The hall between worker and page: render a frame, publish it, catch a page up, fan frames out."""

import functools
import json
import logging
import math
import secrets
import select
import time
from collections import OrderedDict, defaultdict, deque
from contextlib import ExitStack, contextmanager
from weakref import WeakSet

import gevent
from flask import current_app
from gevent.event import AsyncResult, Event
from gevent.lock import RLock
from gevent.monkey import get_original, is_module_patched
from gevent.queue import LifoQueue
from markupsafe import Markup
from redis import BlockingConnectionPool, ConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy.exc import SQLAlchemyError
from wsproto.events import Ping, TextMessage
from wsproto.utilities import LocalProtocolError

from chattable.markdown import Growth

# Seconds. A living worker renews the lease of the reply it writes long before it ends.
LEASE = 6
RENEW = 1
PATIENT_LEASE = 600
# Whoever asked the database so long ago whether a reply is theirs has to ask again.
PASS = 5
RETRY = 1
# While Redis refuses to keep what is new, pages get it from the database, so often.
NUDGE = 5
# What Redis keeps of a running reply, and a turn that waits for its worker, last this long.
LIFETIME = 6 * 3600
# A turn outlasts this only while its reply is running; the database knows that.
TURN = 900
# In each process, besides the relay's: small Redis plans allow twenty in all.
CONNECTIONS = 5
PING = 25
# Pages of a process that catch up at the same time: fewer than it has connections to the database.
CATCHING_UP = 4
# Linux tells at once that the other side has closed.
HUNG_UP = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)
SEND_TIMEOUT = 60
FAREWELL = 1
# A Redis that says nothing for so long is asked whether it lives; then it has as long to answer.
SILENCE = 5
# A socket this far behind is closed; it catches up when it can read again.
BACKLOG_FRAMES = 1_000
BACKLOG_BYTES = 2_000_000
# A key frame is made when this many characters of patches would have to be replayed instead.
KEY_FRAME = 4_000

# WebSocket close codes.
NOT_YOURS = 1008
TRY_AGAIN = 1012

# In the place of a frame's number: not a frame follows, but how long ago (s) one was missed. Who
# has watched for longer has to connect anew.
CATCH_UP = 0

# Where Redis has forgotten a chat, numbers go on beyond any that a page may stand at.
NEXT_NUMBER = """
local function next_number(seq)
  local number = redis.call('INCR', seq)
  if number > 1 then return number end
  local now = redis.call('TIME')
  number = now[1] * 1000 + math.floor(now[2] / 1000)
  redis.call('SET', seq, string.format('%.0f', number))
  return number
end
"""

# Number a frame, keep what a page that comes late needs, publish: all or nothing, so that a
# snapshot never has a gap. Returns 1 if somebody asked the reply to stop, 2 (having done nothing)
# if not what should be kept is: Redis was restarted, or the reply was declared dead. A whole frame
# can do without, given a pass: it was got before the database was asked whose the reply is.
GROW = f"""{NEXT_NUMBER}
local seq, text, key, patches, stop, over, pass = unpack(KEYS)
local install, channel, frame, more, length, lifetime, key_frame, whole, id, given = unpack(ARGV)
local ours = redis.call('GETRANGE', key, 0, #id) == id .. ' '
if given ~= '' then
  ours = redis.call('GET', pass) == given
elseif redis.call('STRLEN', text) ~= tonumber(length) then
  ours = false
end
if not ours or redis.call('EXISTS', over) == 1 then return 2 end
local number = next_number(seq)
if key_frame ~= '' then
  redis.call('SET', key, key_frame, 'EX', lifetime)
  redis.call('SET', text, whole, 'EX', lifetime)
  redis.call('DEL', patches)
  redis.call('EXPIRE', seq, lifetime)
else
  redis.call('APPEND', text, more)
  redis.call('RPUSH', patches, frame)
  redis.call('EXPIRE', patches, lifetime)
end
redis.call('PUBLISH', channel, install .. ' ' .. number .. ' ' .. frame)
return redis.call('EXISTS', stop)
"""

# The same for a frame whose content a late page finds in the database. `id` is that of a reply
# which begins, if it is not over already: then its first word finds its place kept, and its lease
# begins with it.
ANNOUNCE = f"""{NEXT_NUMBER}
local id, over, lease, lease_lifetime = unpack(ARGV, 5)
if id and redis.call('EXISTS', over) == 1 then return 0 end
local number = next_number(KEYS[1])
redis.call('EXPIRE', KEYS[1], ARGV[4])
if #KEYS > 1 then redis.call('DEL', unpack(KEYS, 2)) end
if id then
  redis.call('SET', KEYS[2], '', 'EX', ARGV[4])
  redis.call('SET', KEYS[3], id .. ' ', 'EX', ARGV[4])
  redis.call('SET', lease, 1, 'EX', lease_lifetime)
end
return redis.call('PUBLISH', ARGV[2], ARGV[1] .. ' ' .. number .. ' ' .. ARGV[3])
"""

# A turn changes hands, or ends, only while it is still the holder's.
TAKE_OVER = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""
GIVE_UP = """
return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1])
"""

log = logging.getLogger(__name__)


def init_app(app, find_name):
    """Connect the app to Redis; no command is sent before it is needed.

    `find_name()` asks the database for the name of this install, see `install`.
    """
    url = app.config["REDIS_URL"]
    options = {
        "protocol": 2,
        "socket_connect_timeout": 2,
        "socket_timeout": 10,
        "health_check_interval": 30,
        # Hundreds of replies may want a word with Redis at once: they wait for each other.
        "max_connections": CONNECTIONS,
        "queue_class": LifoQueue,
        "timeout": 10,
    }
    pool = BlockingConnectionPool.from_url(url, **options)
    pool.connection_class = swift(pool.connection_class)
    app.extensions["redis"] = connection = Redis(connection_pool=pool)
    app.extensions["find_name"] = find_name
    app.extensions["relay"] = Relay(url)
    app.extensions["line"] = Line(CATCHING_UP)
    app.extensions["outbox"] = Outbox(connection)
    app.extensions["nudges"] = Nudges(connection)
    app.extensions["leases"] = Leases(app, connection)


def swift(connection_class):
    """Return the class with a quicker look, before each command, whether Redis is still there.

    After a failover the old primary may keep its connections, and refuse every write: then all of
    them are made anew. What was refused is not sent again.

    gevent's poll takes a turn around the hub, behind everybody else, also when it need not wait.
    (Nothing is left over in its buffer: redis-py drops a connection whose answer was not read.)
    """

    class SwiftConnection(connection_class):
        known = WeakSet()

        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.outdated = False
            self.known.add(self)

        def disconnect(self, *args, **options):
            super().disconnect(*args, **options)
            self.outdated = False

        def read_response(self, *args, **options):
            try:
                return super().read_response(*args, **options)
            except ResponseError as error:
                # Up to Redis 6, a script's error has the word inside.
                if isinstance(error, ReadOnlyError) or "READONLY" in str(error):
                    for each in list(self.known):
                        each.outdated = True
                raise

        def can_read(self, timeout=0):
            if self.outdated:
                return True  # the pool takes it for one that was closed
            if timeout or not self._sock:
                return super().can_read(timeout)
            poll = get_original("select", "poll")()
            poll.register(self._sock, select.POLLIN)
            return bool(poll.poll(0))

    return SwiftConnection


def redis():
    """Return the app's Redis connection pool (byte responses, as RQ needs them)."""
    return current_app.extensions["redis"]


# Frames: what a page swaps in. They are built from the same partials the page uses.


def render(template, **context):
    return current_app.jinja_env.get_template(template).render(context)


def article_frame(*articles):
    """Return the frame that replaces or inserts rendered articles, in order of their ids."""
    return f'<hx-upsert hx-target="#messages">{"".join(articles)}</hx-upsert>'


def article(message, body=None):
    """Return the HTML of one message; `body` if it shows something else than `message.body`."""
    body = message.body if body is None else Markup(body)
    return render("messages/_message.html", message=message, body=body)


def removal(message):
    return f'<hx-partial hx-target="#message-{message.id}" hx-swap="delete"></hx-partial>'


def growth_frame(message, patches):
    """Return the frame that applies `patches` to the body of a message.

    It is JSON, the shortest form htmx's socket extension knows: most frames carry few words.
    """
    first, *others = patches
    frame = {"target": spine(message, first.depth), "content": first.html}
    if first.swap != "beforeend":
        frame["swap"] = first.swap
    frame["content"] += "".join(
        f'<hx-partial hx-target="{spine(message, patch.depth)}" hx-swap="{patch.swap}">'
        f"{patch.html}</hx-partial>"
        for patch in others
    )
    return json.dumps(frame, ensure_ascii=False, separators=(",", ":"))


def spine(message, depth):
    """Return the selector of the element at `depth` in the chain of last children of the body."""
    return f"#message-{message.id}-body" + ">:last-child" * depth


# Publishing, from the worker (and wherever else a chat changes).


def broadcast_message(message):
    """Show a message that was created or has ended on every page of its chat."""
    if message.unseen:
        return  # no page has shown it
    frame = removal(message) if message.superseded else article_frame(article(message))
    # Not for a person's message: it may be told again while a reply to it runs.
    forget = reply_keys(message.chat_id) if message.role == "assistant" else []
    if message.retryable:
        forget += [lease_key(message.id), stop_key(message.id)]
        if not message.superseded:
            # The turn ends with the announcement: who sees it may send the next message.
            forget.append(turn_key(message.chat_id))
    # A process may end with its last reply.
    begins = message.role == "assistant" and message.running and message.id
    announce(message.chat_id, frame, forget, wait=message.retryable, begins=begins)


def broadcast_deletion(chat_id):
    """Close every socket of a chat that is no more."""
    announce(chat_id, "", forget=reply_keys(chat_id))


def announce(chat_id, frame, forget=(), wait=False, begins=None):
    """Have a frame sent to every page of a chat, in order, and the keys of what is over forgotten.

    `wait` until it is; else the caller goes on, and what it sends next may go along. `begins` is
    the id of a reply that does.
    """
    keys = [seq_key(chat_id), *forget]
    values = [install(), channel(chat_id), frame, LIFETIME]
    if begins:
        values += [begins, over_key(begins), lease_key(begins), lease_lifetime()]
    sent = current_app.extensions["outbox"].post(ANNOUNCE, keys, values)
    nudges = current_app.extensions["nudges"]
    missed = channel(chat_id), install(), time.monotonic()
    sent.rawlink(functools.partial(make_up_for, nudges, missed))
    # Without monkey patching, nothing is sent while nobody waits.
    if wait or not is_module_patched("socket"):
        sent.wait()
        nudges.wait()


def make_up_for(nudges, missed, sent):
    if sent.exception:
        log.warning("%s: not announced: %s", missed[0], sent.exception)
        nudges.owe(*missed)


class Nudges:
    """What is owed to pages that missed something: a word that has them catch up.

    It is only published, which even a Redis that refuses to keep anything does.
    """

    def __init__(self, connection):
        self._connection = connection
        self._owed = {}
        self._keeper = None

    def owe(self, channel, install, missed_at):
        """Have the pages that watched `channel` at a (monotonic) time connect anew, once told."""
        self._owed[channel] = install, missed_at
        if not self._keeper:
            self._keeper = gevent.spawn(self._pay)

    def wait(self):
        """Wait until all is paid, or for a moment where that cannot be now."""
        if self._keeper:
            self._keeper.join(RETRY)

    def _pay(self):
        while self._owed:
            try:
                for channel, owed in list(self._owed.items()):
                    install, missed_at = owed
                    age = time.monotonic() - missed_at
                    self._connection.publish(channel, f"{install} {CATCH_UP} {age}")
                    if self._owed[channel] == owed:
                        del self._owed[channel]
            except RedisError as error:
                log.warning("pages not told to catch up, Redis is away: %s", error)
                gevent.sleep(RETRY)


class Outbox:
    """Run scripts for many greenlets in one round trip: at a hundred replies, half the CPU."""

    def __init__(self, connection):
        self._connection = connection
        self._waiting = []
        self._sending = False
        self._loaded = {}

    def send(self, script, keys, values):
        """Run a script and return its answer. Raises `RedisError`."""
        return self.post(script, keys, values).get()

    def post(self, script, keys, values):
        """Have a script run, after those that were posted before; return an `AsyncResult`."""
        answer = AsyncResult()
        # Here, for what cannot be encoded to be nobody else's failure.
        values = [value.encode() if isinstance(value, str) else value for value in values]
        self._waiting.append((script, keys, values, answer))
        if not self._sending:
            self._sending = True
            gevent.spawn(self._send_all)
        return answer

    def _send_all(self):
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                for (*_, answer), result in zip(batch, self._results(batch), strict=True):
                    failed = isinstance(result, Exception)
                    answer.set_exception(result) if failed else answer.set(result)
        finally:
            self._sending = False

    def _results(self, batch):
        results = self._run(batch)
        missed = [n for n, result in enumerate(results) if isinstance(result, NoScriptError)]
        if missed:
            self._loaded.clear()  # a restarted Redis has forgotten the scripts
            again = self._run([batch[n] for n in missed])
            for n, result in zip(missed, again, strict=True):
                results[n] = result
        return results

    def _run(self, batch):
        try:
            with self._connection.pipeline(transaction=False) as pipeline:
                for script, keys, values, _ in batch:
                    pipeline.evalsha(self._sha(script), len(keys), *keys, *values)
                return pipeline.execute(raise_on_error=False)
        except Exception as error:  # whoever waits for an answer has to hear of it, whatever it is
            return [error] * len(batch)

    def _sha(self, script):
        if script not in self._loaded:
            self._loaded[script] = self._connection.script_load(script)
        return self._loaded[script]


class Broadcast:
    """What the pages that watch one running reply have been shown of it.

    `lost` says that Redis has lost what was shown. Whoever writes the reply then gets a pass,
    makes sure that it is still theirs to write, and the next update shows the whole.
    """

    def __init__(self):
        self.stop_requested = False
        self._growth = Growth()
        self._fed = 0
        self._unsent = ""
        self._kept = 0  # bytes
        self._since_key_frame = 0
        self._whole = True
        self._lost = False
        self._pass = ""
        self._retry_at = self._nudge_at = 0.0

    @property
    def lost(self):
        """Whether it is time to show the whole again."""
        return self._lost and time.monotonic() >= self._retry_at

    def get_pass(self, message):
        """Have the next update show the whole; return whether Redis allows it.

        It is for whoever finds the reply still theirs from now on.
        """
        self._retry_at = time.monotonic() + RETRY
        try:
            token = secrets.token_hex(8)
            redis().set(pass_key(message.id), token, ex=PASS)
            self._pass = token
        except RedisError as error:
            self._excuse(message, error)
        return bool(self._pass)

    def drop_pass(self):
        self._pass = ""

    def update(self, message):
        """Bring every page up to `message.content`; raises nothing when Redis is away."""
        more = message.content[self._fed :]
        self._fed = len(message.content)
        patches = self._growth.feed(more)
        self._unsent += more
        if self._lost and not self._pass:
            return
        try:
            self._show(message, patches)
        except RedisError as error:
            self._lose()
            self._excuse(message, error)

    def _show(self, message, patches):
        if self._whole:
            html = self._growth.html
            self._grow(message, article_frame(article(message, html)), html)
        elif patches:
            frame = growth_frame(message, patches)
            self._since_key_frame += len(frame)
            html = self._growth.html if self._key_frame_due(message) else None
            self._grow(message, frame, html)

    def _lose(self):
        self._whole = self._lost = True
        self._pass = ""

    def _key_frame_due(self, message):
        # Rarer as the reply gets longer: in sum they stay linear.
        return self._since_key_frame > max(KEY_FRAME, len(message.content))

    def _excuse(self, message, error):
        log.warning("message %s: not shown: %s", message.id, error)
        # Where Redis is away, the pages' sockets break with it; where it refuses, they hold.
        if isinstance(error, ResponseError) and time.monotonic() >= self._nudge_at:
            self._nudge_at = time.monotonic() + NUDGE
            missed = channel(message.chat_id), install(), time.monotonic()
            current_app.extensions["nudges"].owe(*missed)

    def _grow(self, message, frame, html):
        """Send a frame; with `html` it is a key frame, which a late page begins with."""
        id, whole = message.id, "" if html is None else message.content
        key_frame = "" if html is None else f"{id} {html}"
        keys = [seq_key(message.chat_id), *reply_keys(message.chat_id)]
        keys += [stop_key(id), over_key(id), pass_key(id)]
        values = [install(), channel(message.chat_id), frame, self._unsent, self._kept, LIFETIME]
        values += [key_frame, whole, id, self._pass]
        answer = current_app.extensions["outbox"].send(GROW, keys, values)
        if answer == 2:
            return self._lose()
        self.stop_requested = answer == 1
        self._whole = self._lost = False
        self._pass = ""
        self._kept = (
            self._kept + len(self._unsent.encode()) if html is None else len(whole.encode())
        )
        self._unsent = ""
        self._since_key_frame = 0 if html is not None else self._since_key_frame


# Catching up: first Redis, then the database. The other way round, a reply that ends in between
# would be shown running for ever.


class Snapshot:
    """The running reply of a chat as Redis has it, and the number of the frame it stands at.

    Raises `RedisError` when Redis is away.
    """

    seq, message_id, text = 0, 0, ""

    def __init__(self, chat_id):
        with redis().pipeline(transaction=True) as pipeline:
            text, key, patches = reply_keys(chat_id)
            pipeline.mget(seq_key(chat_id), text, key)
            pipeline.lrange(patches, 0, -1)
            (seq, text, key), patches = pipeline.execute()
        self.seq = int(seq or 0)
        message_id, _, html = (key or b"0 ").decode().partition(" ")
        self.message_id, self._html = int(message_id), html
        self.text = (text or b"").decode()
        self._patches = [patch.decode() for patch in patches]

    def frames(self, messages):
        """Return the frames that bring a page up to `messages` and the reply's latest word."""
        kept = [self._article(message) for message in messages if not message.superseded]
        gone = [removal(each) for each in messages if each.superseded and not each.unseen]
        shown = [article_frame(*kept)] if kept else []
        return ["".join(gone)] * bool(gone) + shown + self._news(messages)

    def list_frames(self, chat, messages, older):
        """Return the frames after which a page shows `messages` alone, as a fresh load does."""
        articles = [Markup(self._article(message)) for message in messages]
        frame = render("chats/_list.html", chat=chat, articles=articles, older=older)
        return [frame, *self._news(messages)]

    def _news(self, messages):
        return self._patches * any(self._knows_more(message) for message in messages)

    def _article(self, message):
        if self._knows_more(message):
            return article(self.refresh(message), self._html)
        return article(message)

    def _knows_more(self, message):
        """Return whether Redis is told each word of a message, sooner than the database."""
        if not (message.running and message.id == self.message_id):
            return False
        if len(self.text) >= len(message.content):
            return True
        # The database was asked later. Behind it at another look, Redis takes no words for now.
        latest = Snapshot(message.chat_id)
        return latest.message_id == message.id and len(latest.text) >= len(message.content)

    def refresh(self, message):
        """Bring a message from the database up to what was streamed since its last checkpoint."""
        if message.running and message.id == self.message_id:
            message.catch_up(self.text)
        return message


def snapshot(chat_id):
    """Return the `Snapshot` of a chat, an empty one while Redis is away."""
    try:
        return Snapshot(chat_id)
    except RedisError:
        return object.__new__(Snapshot)


# Keys and channels. Channels know no database numbers: another install on the same Redis hears
# them all. So each name begins with ours, and each word that is published, too.


def install():
    """Return the random name of this install, asked of the database once in a process.

    Raises `SQLAlchemyError` when that is not there.
    """
    extensions = current_app.extensions
    if "install" not in extensions:
        extensions["install"] = extensions["find_name"]()
    return extensions["install"]


def prefix():
    """Return what every key and channel of ours begins with."""
    return current_app.config["REDIS_PREFIX"] or f"chattable:{install()}"


def own(name, data):
    """Return what the install called `name` has published as `data`, None if it was another."""
    head, _, words = data.partition(b" ")
    return words.decode() if head == name.encode() else None


def channel(chat_id):
    return f"{prefix()}:chat:{chat_id}"


def seq_key(chat_id):
    return f"{channel(chat_id)}:seq"


def reply_keys(chat_id):
    """Return where Redis keeps the reply of a chat that is being written: there is at most one."""
    return [f"{channel(chat_id)}:{part}" for part in ("text", "key", "patches")]


def turn_key(chat_id):
    return f"{channel(chat_id)}:turn"


def lease_key(message_id):
    return f"{prefix()}:message:{message_id}:lease"


def stop_key(message_id):
    return f"{prefix()}:message:{message_id}:stop"


def over_key(message_id):
    return f"{prefix()}:message:{message_id}:over"


def pass_key(message_id):
    return f"{prefix()}:message:{message_id}:pass"


def claim_key(token):
    return f"{prefix()}:claim:{token}"


def stops_channel():
    return f"{prefix()}:stops"


def models_key():
    return f"{prefix()}:models"


# Leases, turns, stops.


class Leases:
    """The replies written in this process: each holds a lease, one without it counts as dead."""

    def __init__(self, app, connection):
        self._app = app
        self._connection = connection
        self._stops = {}
        self._keeper = None

    @contextmanager
    def hold(self, message_id, stop):
        """Hold the lease of a reply; `stop` is called when somebody asks for its end."""
        self._stops[message_id] = stop
        # For all of them, or many replies would want many connections at the same moment.
        self._keeper = self._keeper or gevent.spawn(self._keep)
        try:
            yield
        finally:
            del self._stops[message_id]

    @property
    def running(self):
        """Whether any reply is written here."""
        return bool(self._stops)

    def stop(self, message_id=None):
        """Stop one reply that is written here, or all of them."""
        for id, stop in list(self._stops.items()):
            if message_id in (None, id):
                stop()

    def _keep(self):
        while self._stops:
            try:
                with self._app.app_context():
                    self._renew(list(self._stops))
            except (RedisError, SQLAlchemyError) as error:
                log.warning("leases not renewed, Redis is away: %s", error)
            gevent.sleep(RENEW)

    def _renew(self, message_ids):
        """Say that they live; stop what was to stop while nobody heard (Redis was restarted)."""
        lifetime = lease_lifetime()
        with self._connection.pipeline(transaction=False) as pipeline:
            for id in message_ids:
                pipeline.set(lease_key(id), 1, ex=lifetime)
            pipeline.mget([stop_key(id) for id in message_ids])
            *_, told = pipeline.execute()
        for id, stop in zip(message_ids, told, strict=True):
            if stop:
                self.stop(id)


def lease_lifetime():
    # Without monkey patching, a greenlet does not run while another one waits.
    return LEASE if is_module_patched("socket") else PATIENT_LEASE


def lease(message_id, stop):
    """Return the context in which a reply is written; `stop` ends it from outside."""
    return current_app.extensions["leases"].hold(message_id, stop)


def leased(message_ids):
    """Return the set of those replies that somebody is writing.

    Raises `RedisError`, also where Redis answers but refuses writes: no lease can be renewed then.
    """
    if not message_ids:
        return set()
    check_writing()
    values = redis().mget([lease_key(id) for id in message_ids])
    return {id for id, value in zip(message_ids, values, strict=True) if value}


def silence(message_id):
    """Let no page hear a reply's writer any more: it is declared dead. Raises `RedisError`."""
    redis().set(over_key(message_id), 1, ex=LIFETIME)


def take_turn(chat_id, token):
    """Take the chat's next turn, one at a time, first come.

    Return "taken", "held" if it was before, None if somebody else has it.
    """
    with redis().pipeline(transaction=False) as pipeline:
        pipeline.set(turn_key(chat_id), token, nx=True, ex=TURN)
        pipeline.get(turn_key(chat_id))
        taken, holder = pipeline.execute()
    if holder != token.encode():
        return None
    return "taken" if taken else "held"


def turn_holder(chat_id):
    """Return (token, age): who has the turn ("" for nobody) and since when (seconds)."""
    with redis().pipeline(transaction=False) as pipeline:
        pipeline.get(turn_key(chat_id))
        pipeline.pttl(turn_key(chat_id))
        holder, left = pipeline.execute()
    return (holder or b"").decode(), TURN - left / 1000


def take_over_turn(chat_id, token, holder):
    """Take the turn from a holder that is no more; return whether it still had it."""
    return bool(redis().eval(TAKE_OVER, 1, turn_key(chat_id), holder, token, TURN))


def claim(token):
    """Return whether nobody has claimed `token` before."""
    return bool(redis().set(claim_key(token), 1, nx=True, ex=LIFETIME))


def end_turn(chat_id, token=None):
    """Give the turn back (whoever's it is, without `token`)."""
    try:
        if token is None:
            redis().delete(turn_key(chat_id))
        else:
            redis().eval(GIVE_UP, 1, turn_key(chat_id), token)
    except RedisError as error:
        log.warning("chat %s: turn not ended, Redis is away: %s", chat_id, error)


def request_stop(message_id):
    """Ask whoever writes a reply to stop. The key is for one that has not started yet."""
    word = f"{install()} {message_id}"
    try:
        redis().set(stop_key(message_id), 1, ex=LIFETIME)
    except ResponseError:
        # Redis refuses to keep it: the workers that listen are told all the same.
        if not redis().publish(stops_channel(), word):
            raise
    else:
        redis().publish(stops_channel(), word)


def check_writing():
    """Raise `RedisError` unless Redis is there and keeps what it is told."""
    redis().set(f"{prefix()}:written", 1, ex=LIFETIME)


# The relay: one subscription per web process, fanned out to its sockets.


class Relay:
    """Hand each frame of a chat to every socket that watches it."""

    def __init__(self, url):
        self._url = url
        self._pool = self._connection = self._install = None
        self._connecting = RLock()
        self._watchers = defaultdict(set)
        self._subscribed = {}
        self._last = {}
        self._tidy_at = 0.0

    @contextmanager
    def watch(self, name):
        """Subscribe to a channel; once this has given a `Watcher`, no frame is missed."""
        watcher = Watcher()
        self._watchers[name].add(watcher)
        try:
            self._subscribe(name)
            yield watcher
        finally:
            self._watchers[name].discard(watcher)

    def _subscribe(self, name):
        with self._connecting:
            if self._connection is None:
                self._connect()
        if name not in self._subscribed:
            self._subscribed[name] = Event()
            self._send("SUBSCRIBE", name)
        answered = self._subscribed.get(name)
        if not (answered and answered.wait(SILENCE)):
            raise TimeoutError(f"no answer to SUBSCRIBE {name}")

    def _connect(self):
        self._install = install()
        # A bare connection: redis-py's PubSub would reconnect in silence, and frames be missed.
        # A break must close the sockets instead. One greenlet reads it, any may write.
        # The pool closes its connections when it is collected: it is kept.
        self._pool = ConnectionPool.from_url(self._url, protocol=2, socket_connect_timeout=2)
        connection = self._pool.make_connection()
        connection.connect()
        # One subscription that always holds: PING has another answer where there is none.
        connection.send_command("SUBSCRIBE", stops_channel(), check_health=False)
        self._connection = connection
        gevent.spawn(self._listen, connection)

    def _send(self, *command):
        connection = self._connection
        if connection is None:
            raise RedisConnectionError("the relay has no connection")
        connection.send_command(*command, check_health=False)

    def _listen(self, connection):
        try:
            while True:
                self._receive(*self._read(connection))
                if time.monotonic() > self._tidy_at:
                    self._unsubscribe_idle()
        except (RedisError, OSError) as error:
            log.warning("the relay lost Redis: %s", error)
        finally:
            self._break(connection)

    def _read(self, connection):
        try:
            return connection.read_response(timeout=SILENCE, disconnect_on_error=False)
        except RedisTimeoutError:
            connection.send_command("PING", check_health=False)
            return connection.read_response(timeout=SILENCE)

    def _break(self, connection):
        """Close every socket: each reconnects, and catches up, by itself."""
        self._connection = None
        self._subscribed.clear()
        self._last.clear()
        for name in list(self._watchers):
            self._close(name, TRY_AGAIN)
        connection.disconnect()

    def _receive(self, kind, name, data=None):
        name = name.decode()
        if kind == b"subscribe" and name in self._subscribed:
            self._subscribed[name].set()
        elif kind == b"message" and name in self._subscribed:
            words = own(self._install, data)
            if words is not None:
                number, _, frame = words.partition(" ")
                self._fan_out(name, int(number), frame)

    def _fan_out(self, name, seq, frame):
        if seq == CATCH_UP:
            return self._close(name, TRY_AGAIN, time.monotonic() - float(frame))
        last, self._last[name] = self._last.get(name), seq
        if last is not None and seq != last + 1:
            self._close(name, TRY_AGAIN)  # Redis has lost frames, or its memory
        elif not frame:
            self._close(name, NOT_YOURS)
        for watcher in self._watchers[name]:
            watcher.offer(seq, frame)

    def _close(self, name, code, before=math.inf):
        for watcher in self._watchers[name]:
            if watcher.since <= before:
                watcher.close(code)

    def _unsubscribe_idle(self):
        # Lazily: a page that reloads comes back at once.
        self._tidy_at = time.monotonic() + SILENCE
        idle = [name for name in self._subscribed if not self._watchers[name]]
        for name in idle:
            del self._subscribed[name], self._watchers[name]
            self._last.pop(name, None)
        if idle:
            self._send("UNSUBSCRIBE", *idle)


class Watcher:
    """The frames one socket has yet to send: bounded, so that a slow reader costs no memory."""

    def __init__(self):
        self.code = None
        self.since = time.monotonic()
        self._frames = deque()
        self._bytes = 0
        self._news = Event()

    def offer(self, seq, frame):
        """Queue a frame; too many of them close the socket, which then catches up."""
        if self.code:
            return
        self._frames.append((seq, frame))
        self._bytes += len(frame)
        if len(self._frames) > BACKLOG_FRAMES or self._bytes > BACKLOG_BYTES:
            self.close(TRY_AGAIN)
        self._news.set()

    def close(self, code):
        """Have the socket closed with `code`, whatever is still queued."""
        self.code = self.code or code
        self._frames.clear()
        self._news.set()

    def next(self, timeout):
        """Return the next (seq, frame), or None after `timeout` seconds or when it is closed."""
        if not self._frames and not self.code:
            self._news.clear()
            self._news.wait(timeout)
        if not self._frames:
            return None
        seq, frame = self._frames.popleft()
        self._bytes -= len(frame)
        return seq, frame


class Line:
    """Let a few at a time come in, in the order they came; who leaves meanwhile costs nothing."""

    def __init__(self, places):
        self._free = places
        self._waiting = OrderedDict()

    @contextmanager
    def place(self, leaving):
        """Wait for a place; give False if the event `leaving` was set before there was one."""
        entered = self._enter(leaving)
        try:
            yield entered
        finally:
            if entered:
                self._leave()

    def _enter(self, leaving):
        if self._free:
            self._free -= 1
            return True
        turn = Event()
        self._waiting[turn] = True
        gevent.wait([turn, leaving], count=1)
        return self._waiting.pop(turn, False) is False

    def _leave(self):
        if self._waiting:
            self._waiting.popitem(last=False)[0].set()
        else:
            self._free += 1


def serve(socket, chat_id, admits, catch_up):
    """Relay a chat to one socket until either side ends.

    `admits()` says whether this page may watch it, `catch_up()` returns (seq, frames): the page's
    present state and the number it stands at.
    """
    code = NOT_YOURS
    try:
        with ExitStack() as stay:
            if welcome := let_in(socket, chat_id, admits, catch_up, stay):
                watcher, seq, frames = welcome
                for frame in frames:
                    send(socket, TextMessage(frame))
                follow(socket, watcher, seq)
                code = watcher.code or TRY_AGAIN
    except LocalProtocolError:
        log.debug("chat %s: the socket was closed from outside", chat_id)
    except (RedisError, SQLAlchemyError, OSError) as error:
        code = TRY_AGAIN
        log.warning("chat %s: socket closed: %s", chat_id, error)
    except Exception:
        # An upgraded socket must not be answered in HTTP, whatever the bug is.
        code = TRY_AGAIN
        log.exception("chat %s: socket closed", chat_id)
    finally:
        # To a reader that is stuck, not even this can be said.
        with gevent.Timeout(FAREWELL, False):
            if socket.connected:
                socket.close(code)


def let_in(socket, chat_id, admits, catch_up, stay):
    """Return the (watcher, seq, frames) of a page, or None if it has left or may not come.

    It goes on watching until `stay`, an `ExitStack`, ends.
    """
    with current_app.extensions["line"].place(socket.event) as entered:
        if not entered or gone(socket) or not admits() or gone(socket):
            return None
        # Subscribe before reading, or a frame can fall between the two.
        watcher = stay.enter_context(current_app.extensions["relay"].watch(channel(chat_id)))
        # The page has left, or has spoken: no page of ours does.
        socket.event.rawlink(lambda _: watcher.close(NOT_YOURS))
        return None if gone(socket) else (watcher, *catch_up())


def gone(socket):
    """Return whether a page has left, though nobody may have read so yet, or has spoken."""
    if socket.event.is_set() or not socket.connected:
        return True
    poll = get_original("select", "poll")()
    poll.register(socket.sock, HUNG_UP)
    return bool(poll.poll(0))


def follow(socket, watcher, seq):
    while socket.connected and not watcher.code:
        news = watcher.next(PING)
        if news and news[0] > seq:
            send(socket, TextMessage(news[1]))
        elif not news and not watcher.code:
            if not socket.pong_received:
                return  # it has vanished without a word
            socket.pong_received = False
            send(socket, Ping())
            rest(socket)


def rest(socket):
    """Free the compressor of a quiet socket, a quarter of a megabyte; the next frame makes one.

    Any message may begin a new stream (RFC 7692, 7.2.1); the browser's side does not notice.
    """
    for extension in getattr(getattr(socket.ws.connection, "_proto", None), "extensions", ()):
        extension._compressor = None


def send(socket, event):
    """Send one WebSocket event whole; a reader that takes nothing for a minute is cut off.

    `socket.send` may write a part of a large frame only, and its own pings would come from
    another greenlet, maybe in the middle of a frame; so both are done here.
    """
    with gevent.Timeout(SEND_TIMEOUT, TimeoutError("the reader is stuck")):
        socket.sock.sendall(socket.ws.send(event))


# The provider's models, as a worker last heard them.


def keep_models(names):
    redis().set(models_key(), json.dumps(names))


def known_models():
    """Return the list a worker fetched, or [] if none has yet or Redis is away."""
    try:
        return json.loads(redis().get(models_key()) or "[]")
    except RedisError:
        return []
