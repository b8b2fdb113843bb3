"""The classes of one app that belong together: its chats, their messages, their owners.

The mixins tell of each class as soon as it is there: SQLAlchemy configures mappers at first use,
and what is not known yet must not be taken for what does not exist.
"""

from weakref import WeakKeyDictionary

from sqlalchemy import ForeignKeyConstraint

from chattable import indexing
from chattable.database import db


class Family:
    """The chat class, the message class, and {class name: class} of those who own chats."""

    def __init__(self):
        self.owners = {}
        self._chat = self._message = None

    @property
    def chat(self):
        return self._chat or missing("ChatMixin")

    @property
    def message(self):
        return self._message or missing("MessageMixin")

    def add_chat(self, cls):
        self._chat = the_only(cls, self._chat, "ChatMixin")
        self._marry()

    def add_message(self, cls):
        self._message = the_only(cls, self._message, "MessageMixin")
        self._marry()

    def _marry(self):
        """Have messages refer to chats and be found, whichever of the two classes came first."""
        if self._chat and self._message:
            ours, theirs = self._message.__table__.c.chat_id, self._chat.__table__.c.id
            reference = ForeignKeyConstraint([ours], [theirs], ondelete="CASCADE")
            self._message.__table__.append_constraint(reference)
            indexing.keep_with(self._message.__table__, self._chat.__table__)


# By the registry in which SQLAlchemy keeps an app's models.
families: WeakKeyDictionary = WeakKeyDictionary()


def family_of(cls):
    """Return the family of a mapped class."""
    return families.setdefault(cls.registry, Family())


def family():
    """Return the family of the app at hand."""
    return family_of(db.Model)


def the_only(cls, known, mixin):
    if known:
        raise TypeError(f"{cls.__name__}: {known.__name__} mixes in {mixin} already; one may.")
    return cls


def missing(mixin):
    raise LookupError(f"no model mixes in {mixin} yet; import the module that holds yours")
