"""What an administrator sees of people: when they came and went, how much, never what they said."""

from sqlalchemy import func, or_, select, type_coerce

from chattable.database import Dollars, now
from models import Chat, Spending, User, db


def list_people(limit, before, words=""):
    """Return (User, chats, spent) of those below an id, the newest first.

    `chats` are how many, `spent` the dollars of this month, `words` a part of the name or e-mail.
    """
    listed = everybody().where(User.id < before).order_by(User.id.desc()).limit(limit)
    return db.session.execute(listed.where(called(words)) if words else listed).all()


def find_person(user_id):
    """Return (User, chats, spent), or None."""
    return db.session.execute(everybody().where(User.id == user_id)).first()


def find_by_email(email):
    """Return the person who has a (normalised) e-mail address, or None."""
    return db.session.scalar(select(User).where(User.email == email))


def everybody():
    mine = Chat.chattable_type == "User", Chat.chattable_id == User.id
    chats = select(func.count()).where(*mine).scalar_subquery()
    month = Spending.user_id == User.id, Spending.month == f"{now():%Y-%m}"
    picodollars = select(Spending.picodollars).where(*month).scalar_subquery()
    spent = type_coerce(func.coalesce(picodollars, 0), Dollars())
    return select(User, chats.label("chats"), spent.label("spent"))


def called(words):
    """Return the condition that a person's name or address has words in it."""
    # A database may fold the case of ASCII alone.
    forms = {words, words.lower(), words.upper(), words.title()}
    columns = User.name, User.email
    return or_(*(each.icontains(form, autoescape=True) for each in columns for form in forms))
