"""How a chat is read: the branch looked at, page by page, and what a page has missed of it."""

from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from chattable import live, provider
from chattable.branches import (
    LATEST,
    ROOT,
    Version,
    branch,
    first_of_all,
    first_versions,
    ids,
    last_written,
    leads_to,
    seen,
    tip,
    turnings,
    versions,
)
from chattable.database import db, id_of
from chattable.family import family_of
from chattable.history import asides, filled, latest, tell

# Messages; the second of a page that begins with a certain one, it may ask for more.
PAGE, MOST = 30, 600
COUNTED = 60
# More messages than a chat has.
ALL = LATEST


class Reading:
    """What `ChatMixin` has to be read by."""

    if TYPE_CHECKING:  # the chat's own
        leaf_id: Any
        revision: Any
        branch_revision: Any
        surroundings: Any
        unsent_to: Any

    @property
    def running_reply(self) -> Any | None:
        """The reply that is being written, or None."""
        return db.session.scalar(self._mine().where(self._message.is_running()))

    @property
    def reply_elsewhere(self) -> Any | None:
        """The reply that is being written in a branch which is not looked at, or None."""
        return self.running_reply if self.leaf_id else None

    def find(self, message_id: int) -> Any | None:
        """Return one of my messages, in whatever branch, or None."""
        message = self._message
        return db.session.scalar(self._mine().where(message.id == message_id, seen(message)))

    def path(self, limit: int = ALL) -> list[Any]:
        """Return the conversation as it is looked at, or its last `limit` messages, in order."""
        return list(reversed(self._up(self.leaf_id, limit)))

    def page(
        self,
        before: int | None = None,
        snapshot: live.Snapshot | None = None,
        down_to: int | None = None,
    ) -> tuple[list[Any], int | None]:
        """Return (messages, older): the last `PAGE` of `path`, oldest first, as of this moment.

        `before` is the id of a message to end before; `older` is such an id if there are more. Up
        to `MOST` messages come where the one with the id `down_to` is to be among them.
        """
        snapshot = snapshot or live.snapshot(id_of(self))
        leaf_id = self._before(before) if before else self.leaf_id
        latest = self._up(leaf_id, PAGE, down_to)
        messages = [snapshot.refresh(message) for message in reversed(latest)]
        self.show_versions(messages)
        return messages, messages[0].id if messages and messages[0].parent else None

    def show_versions(self, messages: list[Any]) -> None:
        """Have messages know their `versions`, by a few queries for all of them."""
        if not self.branch_revision:
            return
        parents = {message.id: self.parent_of(message) for message in messages}
        turns = self._turnings()
        found = self._versions({parent for _, parent in turns} & {*parents.values()})
        for message in messages:
            same_place = found.get(parents[message.id], ())
            message.versions = [each for each in same_place if each.role == message.role]
        shown = {message.id for message in messages}
        others = {each.id: each for message in messages for each in message.versions}
        # Of very many versions the latest are told what goes on from them.
        hidden = sorted(others.keys() - shown)[-COUNTED:]
        ids = self._ids(min(hidden)) if hidden else []
        for id in hidden:
            others[id].following = last_written(turns, ids, id)[1]

    def _versions(self, parents):
        """Return {id: [what follows that message]}, first to last."""
        if not parents:
            return {}
        message = self._message
        found: dict[int, list[Version]] = {}
        rows = self._ask(first_of_all(message)) if ROOT in parents else []
        rows += self._ask(first_versions(message), parents=list(parents - {ROOT}))
        rows += self._ask(versions(message), parents=list(parents))
        for parent_id, *version in rows:
            found.setdefault(parent_id, []).append(Version(*version))
        return found

    def catch_up(self, since: int) -> tuple[int, list[str]]:
        """Return (seq, frames) that bring a page loaded at revision `since` up to this moment.

        A page that has missed more than it shows at first, or looks at another branch, is given
        what a fresh load shows.
        """
        snapshot, changed = self._look(since)
        if snapshot.outlived_by(changed):
            # It has ended since: frames that are still to come do not fit the reply as it is now.
            snapshot, changed = self._look(since)
        if len(changed) > PAGE or self.branch_revision > since:
            frames = snapshot.list_frames(self, *self.page(snapshot=snapshot))
        else:
            frames = snapshot.frames(self._looked_at(changed))
            if self.unsent_to and self.revision > since:
                frames.append(live.unsent_frame(self))
        if self.revision > since:
            frames += [*self.surroundings(), live.since_frame(self.revision)]
        return snapshot.seq, frames

    def _look(self, since):
        """Return what Redis has, and then the messages that the database has changed."""
        snapshot = live.Snapshot(id_of(self))
        # What was read of me before may be older.
        db.session.refresh(self)
        return snapshot, self._changed_since(since)

    def _changed_since(self, revision):
        """Return the messages changed since, and the one that is running; no more than enough."""
        message = self._message
        query = self._mine().where(message.revision > revision, seen(message))
        changed = db.session.scalars(query.order_by(message.revision).limit(PAGE + 1)).all()
        reply = self.running_reply
        return sorted({*changed, reply} - {None}, key=lambda message: message.id)

    def _looked_at(self, messages):
        """Leave out what is in other branches; with the rest goes which versions there are."""
        if self.branch_revision and messages:
            path = {message.id for message in self._up(self.leaf_id, 2 * PAGE)}
            messages = [message for message in messages if message.id in path]
            self.show_versions(messages)
        return messages

    def history(self, after: int | None = None, model: str | None = None) -> list[dict[str, str]]:
        """Return what the provider is told: the conversation up to the message `after`.

        That is the one looked at last, if none is given; see `chattable.branches` for others. With
        a `model`, only what it reads of that.
        """
        return self.told(model, after).messages

    def told(
        self, model: str | None, after: int | None = None, question: str | None = None
    ) -> provider.Told:
        """Return what a model is told, see `history`; a `question` that is not saved comes last.

        It costs no more than what is sent: the messages above are not looked at.
        """
        room = provider.room(provider.context_window(model)) if model else ALL
        left = room - provider.size(question) if question else room
        leaf_id, asked = self._start(after), int(question is not None)
        rows = self._ask(latest(self._message), leaf_id=leaf_id, room=left, asked=asked)
        # A chat of which nothing was sent may have no messages yet.
        cut = bool(rows[-1].parent if rows else question and self.revision and self._tip(leaf_id))
        first = self._ask(asides(self._message)) if cut else []
        return tell(rows, first, question, cut).fit(room)

    def carries(self, model: str) -> tuple[int, float]:
        """Return about how many tokens the next message to a model takes along.

        And which share that is of what the model reads.
        """
        room = provider.room(provider.context_window(model))
        start = {"leaf_id": self.leaf_id, "chat_id": id_of(self)}
        size = db.session.scalar(filled(self._message), {**start, "room": room, "asked": 1}) or 0
        return provider.estimate_tokens(size), size / room

    def answer_to(self, message_id: int, beyond: int = 0) -> Any | None:
        """Return the first reply, however it ended, to a message (or `ROOT`), or None.

        So many are left out: those `beyond` which one is asked for.
        """
        found = self._versions({message_id}).get(message_id, ())
        replies = [each.id for each in found if each.role == "assistant"]
        return db.session.get(self._message, replies[beyond]) if replies[beyond:] else None

    def leads_to(self, message_id: int) -> bool:
        """Return whether a message is in the branch that is looked at."""
        return bool(self._ask(leads_to(self._message), leaf_id=self.leaf_id, sought=message_id))

    def _start(self, after):
        return self.leaf_id if after is None else after

    def _tip(self, leaf_id):
        """Return the id of the last message up to `leaf_id`, `ROOT` if there is none."""
        return (
            db.session.scalar(tip(self._message), {"chat_id": id_of(self), "leaf_id": leaf_id})
            or ROOT
        )

    def _before(self, message_id):
        message = self._message
        place = func.coalesce(message.parent_id, message.id - 1)
        found = db.session.scalar(self._mine(place).where(message.id == message_id))
        return message_id - 1 if found is None else found

    def parent_of(self, message: Any) -> int:
        """Return the id of the message before another, `ROOT` if there is none."""
        if message.parent is None:
            message.parent = self._tip(message.follows)
        return message.parent

    def _last_written(self, message_id):
        """Return the id of the last message in the branch through one that was last written in."""
        return last_written(self._turnings(), self._ids(message_id), message_id)[0]

    def _turnings(self):
        return self._ask(turnings(self._message))

    def _ids(self, first):
        return [id for (id,) in self._ask(ids(self._message), first=first)]

    def _up(self, leaf_id, limit, down_to=None):
        start = {"leaf_id": leaf_id, "limit": limit, "sought": down_to or LATEST, "most": MOST}
        rows = self._ask(branch(self._message), **start)
        for message, parent in rows:
            message.parent = parent or ROOT
        return [message for message, _ in rows]

    def _ask(self, query, **values):
        return db.session.execute(query, {"chat_id": id_of(self), **values}).all()

    def _mine(self, what=None):
        message = self._message
        return select(message if what is None else what).where(message.chat_id == id_of(self))

    @property
    def _message(self):
        return family_of(type(self)).message
