"""The sidebar: a person's chats by day, more of them on demand, and what becomes of them, live.

Days are the reader's: their browser tells how far they are from UTC, in a cookie. Before it has,
days are UTC's. A page that stays open over midnight has its old days until it connects anew.
"""

from datetime import UTC, datetime, timedelta
from functools import cached_property
from urllib.parse import urlencode

from flask import Blueprint, render_template, request
from flask_login import current_user

from chattable import live
from chattable.database import now
from pages.cookies import cookie_name

# Chats; the second when a page is to show again what its reader had scrolled to.
PAGE = 50
MOST = 300
MINUTES = 24 * 60
# What a day is called that is less than so many days ago.
RECENT = (1, "Today"), (2, "Yesterday"), (8, "Previous 7 days"), (31, "Previous 30 days")

routes = Blueprint("sidebar", __name__)


def init_app(app):
    """Give every page a sidebar."""
    app.register_blueprint(routes)
    app.context_processor(lambda: {"sidebar": Sidebar() if current_user.is_authenticated else None})


class Sidebar:
    """What the sidebar of a page shows; read when the page asks for it."""

    @cached_property
    def query(self):
        """What a page names when it follows the list: the frames it has seen, and its today."""
        listed = live.latest_number(current_user.chats_channel)
        return {"listed": str(listed), "day": f"{Clock().today:%Y%m%d}"}

    @property
    def address(self):
        return urlencode(self.query)

    def rows(self, opened=None):
        """Return what `sidebar/_chats.html` takes; `apart` is the open chat if that is not there.

        The query first: what changes while we read is then sent again, never missed.
        """
        assert self.query
        pinned = current_user.chats_by_recency(MOST, archived=False, pinned=True)
        rest = older(limit=min(max(place()[0], PAGE), MOST))
        shown = {chat.id for _, chats in [("", pinned), *rest["days"]] for chat in chats}
        apart = opened and not opened.archived and opened.id not in shown and opened
        return {"pinned": pinned, "apart": apart, "opened": apart and apart.id, **rest}

    @property
    def top(self):
        """How far (px) it was scrolled on the page before."""
        return place()[1]


def place():
    """Return what the cookie says that the reader saw: so many chats, so many px from the top."""
    rows, _, top = request.cookies.get(cookie_name("sidebar"), "").partition("-")
    return [int(part) if part.isdecimal() and len(part) < 7 else 0 for part in (rows, top)]


@routes.get("/sidebar")
def show_older():
    """Give the chats that come after those that a page shows already."""
    after = read_cursor(request.args.get("after", ""))
    opened = request.args.get("open", type=int)
    return render_template("sidebar/_older.html", opened=opened, **older(after, opened))


def older(after=None, opened=None, limit=PAGE):
    """Return chats that are neither pinned nor archived, as `days`, and what to ask for `more`."""
    chats, more = page_of(limit, after, archived=False, pinned=False)
    shown = [chat for chat in chats if chat.id != opened]
    return {"days": by_day(shown, after), "more": more}


def page_of(limit, after=None, **only):
    """Return (chats, more): so many after a place, and the cursor to go on with, or None."""
    chats = current_user.chats_by_recency(limit + 1, after, **only)
    return chats[:limit], cursor(chats[limit - 1]) if len(chats) > limit else None


def cursor(chat):
    """Return the place of a chat in a list by recency, as a word in an address."""
    return f"{int(chat.updated_at.timestamp() * 10**6)}-{chat.id}"


def read_cursor(word):
    """Return (updated_at, id), None if that is no cursor."""
    moment, _, chat_id = word.partition("-")
    if not (moment.isdecimal() and chat_id.isdecimal() and len(moment) < 18 and len(chat_id) < 10):
        return None
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(moment)), int(chat_id)


class Clock:
    """The reader's clock, and what they call a day."""

    def __init__(self):
        try:
            minutes = int(request.cookies.get("zone", ""))
        except ValueError:
            minutes = 0
        self._ahead = timedelta(minutes=minutes if abs(minutes) < MINUTES else 0)
        self.today = self._date(now())

    def day_of(self, moment):
        there = self._date(moment)
        age = (self.today - there).days
        for days, name in RECENT:
            if age < days:
                return name
        return f"{there:%B}" if there.year == self.today.year else f"{there:%B %Y}"

    def _date(self, moment):
        return (moment + self._ahead).date()


def by_day(chats, after=None):
    """Return [(day, chats)], "" for the day of the place that they come after."""
    clock, days = Clock(), list[tuple[str, list]]()
    last = clock.day_of(after[0]) if after else None
    for chat in chats:
        day = clock.day_of(chat.updated_at)
        if not days or day != last:
            days.append(("" if day == last else day, []))
        days[-1][1].append(chat)
        last = day
    return days


def show_put(chat):
    """Show on every page of its owner's where a chat is now: pinned, archived or neither."""
    if chat.archived:
        return current_user.show_gone(chat.id)
    live.announce_on(current_user.chats_channel, whole())


def whole():
    """Return the frame with which a page shows the list anew."""
    return live.render("sidebar/_list.html", **Sidebar().rows())


def catch_up():
    """Return (frames, query): the list anew, if a page has missed any of it, and its query then."""
    query = Sidebar().query
    if "listed" not in request.args or all(request.args.get(name) == query[name] for name in query):
        return [], query
    return [whole(), live.listed_frame(query["listed"])], query
