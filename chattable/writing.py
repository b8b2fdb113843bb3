"""How a reply is written: what a provider says goes into the database and onto every page.

A hook of the app's may commit, and every row then be read anew: so what is needed while a reply
streams is kept here, and each hook is shown the whole text again.
"""

import functools
import logging
import math
import time
from datetime import timedelta
from typing import Any

from flask import current_app, g
from redis.exceptions import RedisError
from rq.timeouts import JobTimeoutException
from sqlalchemy import bindparam, func, inspect, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm.attributes import set_committed_value

from chattable import live, provider, tallies
from chattable.database import (
    Dollars,
    commit,
    db,
    id_of,
    now,
    persistent,
    picodollars,
    reason,
    release,
    roll_back,
    transient,
)

RUNNING = ("pending", "streaming")
# Seconds between two checkpoints.
CHECKPOINT = 1.0
# Seconds. A writer that hangs for `LEASE - RENEW + ORPHANED`, over 10, loses its reply.
ORPHANED = 5.2
OUT_OF_TIME = "The reply took too long and was ended. Try again, or ask for less at once."
INTERRUPTED = "The reply was interrupted. What had arrived is kept; try again to get a new one."
EMPTY = "The model gave an empty answer. Try again."
ONLY_THOUGHT = "The model thought, but gave no answer. Try again."

log = logging.getLogger(__name__)


def give_up(message):
    """End a reply that nobody will write."""
    # A hook may have left a transaction that failed.
    roll_back()
    Writing(message).fail(provider.Usage(), "")


class Writing:
    """One reply while it is written, or ended for a writer that is gone."""

    def __init__(self, message):
        self.message, self.id, self.model = message, id_of(message), message.model
        self.begun = message.created_at
        self.chat = message.chat
        self.owner = self.chat.hooks
        self.told: provider.Told | None = None
        self.completion: Any = None
        self.text = ""
        self.thought = Thought()

    def receive(self, completion):
        """See `MessageMixin.receive`."""
        self._show_on(live.Broadcast())
        # A hook that commits had the rows read anew, which took a connection.
        release()
        with live.lease(self.id, completion.stop):
            outcome = {"status": "failed", "error": INTERRUPTED}
            try:
                self._stream(completion)
                outcome = self._outcome(completion)
            except provider.ProviderError as error:
                outcome = {"status": "failed", "error": str(error)}
            except JobTimeoutException:
                outcome = {"status": "failed", "error": OUT_OF_TIME}
                raise
            finally:
                self._finish(completion, **outcome)

    def make_way(self):
        """End the reply if its writer was killed: no lease is seen for so long."""
        try:
            if self._unleased():
                self.interrupt()
        except RedisError:
            # Nobody can tell whether it is written; but no job lasts longer.
            if now() - self.begun > timedelta(seconds=current_app.config["JOB_TIMEOUT"]):
                self.fail(provider.Usage(), self.message.content)

    def _unleased(self):
        roll_back()
        end = time.monotonic() + ORPHANED
        while time.monotonic() < end:
            if live.leased([self.id]):
                return False
            time.sleep(live.RENEW / 2)
        return True

    def interrupt(self):
        """Declare the reply dead; what its writer had saved is kept."""
        chat_id = id_of(self.chat)
        live.silence(self.id)
        # Redis may know a second more than the last checkpoint.
        live.snapshot(chat_id).refresh(self.message)
        content, thoughts = self.message.content, self.message.reasoning or ""
        asked_for = self.chat.history(self.message.follows, self.model)
        if self.fail(provider.estimate_usage(asked_for, content + thoughts), content):
            live.end_turn(chat_id)

    def call_off(self):
        end = {"_finished_at": now(), "status": "stopped", "error": None}
        return persistent(self.settle)(provider.Usage(), content="", **end)

    def fail(self, usage, content):
        end = {"_finished_at": now(), "status": "failed", "error": INTERRUPTED}
        return persistent(self.settle)(usage, content=content, **end)

    def _show_on(self, broadcast):
        self.broadcast = self.message.broadcast = broadcast

    def _outcome(self, completion):
        if completion.stopped and live.ending():
            return {"status": "failed", "error": INTERRUPTED}
        if completion.stopped:
            return {"status": "stopped"}
        if not self.text.strip():
            return {"status": "failed", "error": ONLY_THOUGHT if completion.thought else EMPTY}
        return {"status": "complete"}

    def _stream(self, completion):
        saved = Checkpoint(self.message)
        for more in completion:
            lost = self.broadcast.lost
            if lost and not self._still_mine(saved):
                return completion.stop()
            if completion.takes_back():
                self._start_over(saved)
            self.text += more
            turned = self.thought.follow(completion, more)
            if turned:
                # First: who comes later has it from the database.
                saved.keep_thoughts(self.thought)
            if more or lost or turned:
                self._tell()
            if saved.due:
                self.owner.on_growing(id_of(self.chat), completion, self.text)
            if self.broadcast.stop_requested or not saved.keep_up(self.text, self.thought):
                completion.stop()

    def _tell(self):
        """Call the hook; what it may have left open is saved."""
        self.message.show(self.text)
        self.thought.show_on(self.message)
        try:
            self.owner.on_message_update(self.message)
            release()
        except SQLAlchemyError as error:
            if not transient(error):
                raise
            # It is told again, of all that there is, with the next words.
            log.warning("message %s: not told: %s", self.id, reason(error))
            roll_back()

    def _still_mine(self, saved):
        """Return whether the reply is still written here; then pages may be shown the whole."""
        try:
            return not self.broadcast.get_pass(self.message) or saved.still_ours()
        except SQLAlchemyError as error:
            if not transient(error):
                raise
            log.warning("message %s: nobody knows whose it is: %s", self.id, reason(error))
            self.broadcast.drop_pass()
            return True

    def _start_over(self, saved):
        """Show and save from the beginning: what was taken for the reply was a thought."""
        self.text = ""
        self.thought.start_over()
        set_committed_value(self.message, "content", "")
        saved.start_over()
        self._show_on(live.Broadcast())

    def _finish(self, completion, status, error=None):
        """Save how the reply ended, unless it was already declared dead, and tell the hook."""
        # A hook may have left a transaction that failed.
        roll_back()
        # What was interrupted may be billed.
        refused = error and not (self.text or completion.stopped)
        self.told, self.completion = completion.told, completion
        persistent(self.settle)(
            completion.settle_usage(self.text, refused),
            _finished_at=now(),
            content=self.text,
            status=status,
            error=error,
            reasoning=completion.reasoning or None,
            _thinking_since=self.thought.since,
            thought_seconds=self.thought.end(),
            note=completion.note,
            finish_reason=completion.finish_reason,
        )

    def settle(self, usage, **values):
        """End with what the reply used and cost; return whether it was still running."""
        input_cost, output_cost = provider.costs(self.model, usage)
        ended = self._end(
            prompt_token_usage=usage.prompt,
            completion_token_usage=usage.completion,
            cached_token_usage=usage.cached,
            reasoning_token_usage=usage.reasoning,
            usage_estimated=usage.estimated,
            input_picodollars=picodollars(input_cost),
            output_picodollars=picodollars(output_cost),
            **values,
        )
        if ended:
            tallies.note_reply(self.message, self.begun, self.completion)
            self.owner.on_message_update(self.message)
            release()
        self.owner.on_settled(id_of(self.chat))
        return ended

    def _end(self, **values):
        unsent = self._unsent()
        values["revision"] = self.chat.next_revision(**unsent)
        if values["revision"] is None:
            roll_back()
            # What was paid for a chat that is gone was paid.
            self.owner.on_spent(paid(values))
            commit()
            return self._note_end({}, gone=True)
        bound = {f"new_{name}": value for name, value in values.items()}
        end = ending(inspect(self.message).mapper, *values)
        result: Any = db.session.execute(end, {**bound, "message_id": self.id})
        ended = result.rowcount
        if ended:
            self.owner.on_spent(paid(values))
            self.message.moves_window = bool(unsent)
            for name, value in unsent.items():
                set_committed_value(self.chat, name, value)
            worthless = values["status"] == "failed" or not values["content"].strip()
            self.chat.settle_on(self.message, worthless)
        commit()
        gone = not (ended or self._ended_at(values["_finished_at"]))
        return self._note_end(values, gone)

    def _unsent(self):
        """Return what of the chat the model was not told, as columns of the chat's."""
        told, chat = self.told, self.chat
        if told and told.cut:
            above = told.begins or chat.parent_of(self.message)
            return {"unsent_above": above, "unsent_to": self.model}
        return {"unsent_above": None} if told and chat.unsent_above else {}

    def _note_end(self, values, gone):
        """Have the message show its end; return whether it was ours to end."""
        # It was declared dead, or deleted with its chat.
        g.chat_in_doubt = gone
        for name, value in ({"status": "failed", "error": INTERRUPTED} if gone else values).items():
            set_committed_value(self.message, name, value)
        self.chat.outdate()
        return not gone

    def _ended_at(self, moment):
        """Return whether a commit whose answer was lost has saved this end."""
        message = type(self.message)
        mine = message.id == self.id, message.finished_at == moment
        ended = db.session.scalar(select(message.id).where(*mine))
        commit()
        return ended


def paid(values):
    """Return what the end of a reply says that it has cost, in dollars."""
    costs = values["input_picodollars"], values["output_picodollars"]
    return Dollars().process_result_value(sum(filter(None, costs)), None)


@functools.cache
def ending(mapper, *names):
    """Return the statement that ends a running reply, built once: each reply needs it."""
    values: dict = {mapper.columns[name]: bindparam(f"new_{name}") for name in names}
    return update(mapper.local_table).where(*running(mapper.local_table)).values(values)


@functools.cache
def growing(table):
    """Return the statement that adds `more` to a running reply of which so much is `saved`."""
    content = table.c.content
    # A commit whose answer was lost must not append twice.
    as_known = func.length(content) == bindparam("saved")
    grown = {"content": content + bindparam("more"), "status": "streaming"}
    return update(table).where(*running(table), as_known).values(grown)


@functools.cache
def thinking(table):
    """Return the statement that adds `more` to the thoughts of a running reply, as `growing`."""
    thoughts = func.coalesce(table.c.reasoning, "")
    as_known = func.length(thoughts) == bindparam("saved")
    grown = {
        "reasoning": thoughts + bindparam("more"),
        "thinking_since": bindparam("since"),
        "thought_seconds": bindparam("seconds"),
    }
    return update(table).where(*running(table), as_known).values(grown)


def running(table):
    return table.c.id == bindparam("message_id"), table.c.status.in_(RUNNING)


class Thought:
    """What the model thinks before it speaks: since when, and for how many seconds it did."""

    def __init__(self):
        self.since = self.seconds = self._spoke_at = None
        self._completion: Any = None

    @property
    def text(self):
        return self._completion.reasoning

    def follow(self, completion, said):
        """Take note of a step of the reply; return whether it began to think, or to speak."""
        before, self._completion = (self.since, self.seconds), completion
        if completion.thought and not self.since:
            self.since = self._spoke_at or now()
        if said.strip():
            self._spoke_at = self._spoke_at or now()
            self.end()
        return before != (self.since, self.seconds)

    def start_over(self):
        """Take what was said for a thought."""
        self.seconds = None

    def end(self):
        """Think no more; return the seconds, None if there was no thought."""
        if self.since and self.seconds is None:
            self.seconds = max(1, math.ceil((now() - self.since).total_seconds()))
        return self.seconds

    def show_on(self, message):
        if self.since:
            set_committed_value(message, "_thinking_since", self.since)
            set_committed_value(message, "thought_seconds", self.seconds)


class Checkpoint:
    """Save a growing reply about once a second, by appending: SQL is linear, too."""

    def __init__(self, message):
        self._id, table = id_of(message), message.__table__
        # One statement is its own transaction: one round trip instead of three.
        engine = db.session.get_bind(mapper=type(message).__mapper__).engine
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._table = table
        self._saved = self._thought = 0
        self._state = None
        self._due = time.monotonic() + CHECKPOINT

    @property
    def due(self):
        """Whether it is time to save what is new."""
        return time.monotonic() >= self._due

    def keep_up(self, content, thought):
        """Save what is new if it is time to; return False if the reply is no longer ours."""
        if not self.due or not (thought.since or len(content) > self._saved):
            return True
        self._due = time.monotonic() + CHECKPOINT
        return self.keep_thoughts(thought) and self._try(self._save, content)

    def keep_thoughts(self, thought):
        """Save what is new of them; return False if the reply is no longer ours."""
        return not thought.since or self._try(self._save_thoughts, thought)

    def _try(self, save, what):
        try:
            return save(what) or self.still_ours()
        except SQLAlchemyError as error:
            if not transient(error):
                raise
            # Nothing is lost: the next checkpoint saves this one's share as well.
            log.warning("message %s: not saved, trying again: %s", self._id, reason(error))
            return True

    def _save_thoughts(self, thought):
        text, state = thought.text, (thought.since, thought.seconds)
        if (len(text), state) == (self._thought, self._state):
            return True
        values = {"more": text[self._thought :], "since": thought.since, "seconds": thought.seconds}
        if saved := self._execute(thinking(self._table), saved=self._thought, **values):
            self._thought, self._state = len(text), state
        return saved

    def _save(self, content):
        more = content[self._saved :]
        if not more:
            return True
        if saved := self._execute(growing(self._table), saved=self._saved, more=more):
            self._saved = len(content)
        return saved

    def start_over(self):
        self._saved = 0
        try:
            self._execute(update(self._table).where(*running(self._table)).values(content=""))
        except SQLAlchemyError as error:
            if not transient(error):
                raise
            # The end of the reply will be saved whole.
            log.warning("message %s: thought not taken back: %s", self._id, reason(error))

    def _execute(self, statement, **values):
        with self._engine.connect() as connection:
            done = connection.execute(statement, {"message_id": self._id, **values})
            return done.rowcount == 1

    def still_ours(self):
        """Return whether the reply has not been declared dead or deleted."""
        lengths = [func.length(self._table.c[name]) for name in ("content", "reasoning")]
        query = select(*lengths).where(*running(self._table))
        with self._engine.connect() as connection:
            row = connection.execute(query, {"message_id": self._id}).one_or_none()
        self._saved, self._thought = ((length or 0) for length in row or (0, 0))
        return row is not None
