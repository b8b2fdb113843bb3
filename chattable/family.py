"""The classes of one app that belong together: its chats, their messages, their owners."""

from weakref import WeakKeyDictionary

from chattable.database import db


class Family:
    """The chat class, the message class, and {class name: class} of those who own chats."""

    def __init__(self):
        self.chat = self.message = None
        self.owners = {}


# By the registry in which SQLAlchemy keeps an app's models.
families = WeakKeyDictionary()


def family_of(cls):
    """Return the family of a mapped class."""
    return families.setdefault(cls.registry, Family())


def family():
    """Return the family of the app at hand."""
    return family_of(db.Model)
