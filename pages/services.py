"""Database and Redis before anything begins: refused where they will never let us in."""

from sqlalchemy.exc import SQLAlchemyError

from chattable import live
from chattable.unreachable import why_no_database, why_no_redis
from pages.values import refuse


def refuse_closed_services(app):
    """Exit if the database or the Redis of an app will never do; one that is away may come back."""
    refuse_closed_redis(app)
    try:
        with app.app_context():
            live.install()
    except SQLAlchemyError as error:
        if sentence := why_no_database(error):
            refuse(sentence)


def refuse_closed_redis(app):
    if sentence := why_no_redis(app):
        refuse(sentence)
