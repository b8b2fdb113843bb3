"""What whoever runs this server asks it: is it well?"""

from flask import Blueprint
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from chattable import live
from models import db

routes = Blueprint("health", __name__)


def init_app(app):
    """Let an app be asked."""
    app.register_blueprint(routes)


@routes.get("/up")
def up():
    """Say whether the app can reach its database and its Redis, and Redis takes what is new."""
    try:
        db.session.execute(text("SELECT 1"))
        live.check_writing()
    except (SQLAlchemyError, RedisError):
        return "down\n", 503, {"Content-Type": "text/plain"}
    return "up\n", 200, {"Content-Type": "text/plain"}
