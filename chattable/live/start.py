"""The start: an app gets its connections to Redis and what stands on them."""

from chattable.live.connection import connect
from chattable.live.outbox import Nudges, Outbox, see_off
from chattable.live.relay import Relay
from chattable.live.seats import Seats
from chattable.live.socket import CATCHING_UP, Line
from chattable.live.turns import Leases


def init_app(app, find_name, on_watch):
    """Connect the app to Redis; no command is sent before it is needed.

    `find_name()` asks the database for the name of this install, see `install`; `on_watch(app)`
    is called whenever a page begins to watch a chat.
    """
    url = app.config["REDIS_URL"]
    app.extensions["chattable_redis"] = connection = connect(url)
    app.extensions["chattable_scripts"] = {}
    app.extensions["chattable_find_name"] = find_name
    app.extensions["chattable_on_watch"] = on_watch
    app.extensions["chattable_relay"] = Relay(url, connection.connection_pool.connection_class)
    app.extensions["chattable_sockets"] = set()
    app.extensions["chattable_line"] = Line(CATCHING_UP)
    app.extensions["chattable_seats"] = Seats(connection)
    app.extensions["chattable_outbox"] = Outbox(connection)
    app.extensions["chattable_nudges"] = Nudges(connection)
    app.extensions["chattable_leases"] = Leases(app, connection)
    app.teardown_appcontext(see_off)
