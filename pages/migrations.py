"""`flask db …`: what changes the database from one version of the app to the next."""

from pathlib import Path

import click
from flask.cli import ScriptInfo
from sqlalchemy.exc import DBAPIError

from models import db
from pages.databases import refuse_closed_database
from pages.services import refuse_closed_redis

FOLDER = Path(__file__).resolve().parent.parent / "migrations"
AS_THEY_ARE = {"ignore_unknown_options": True, "allow_interspersed_args": False}


def init_app(app):
    """Let an app be migrated."""
    app.cli.add_command(migrate)


@click.command("db", context_settings=AS_THEY_ARE, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def migrate(context, arguments):
    """Perform database migrations (Flask-Migrate)."""
    # Here, for nobody else needs Alembic: 11 MB a process.
    from flask_migrate import Migrate

    from chattable.search import include_name

    app = context.ensure_object(ScriptInfo).load_app()
    refuse_closed_redis(app)
    options = {"render_as_batch": True, "include_name": include_name}
    # A % is an interpolation of Alembic's.
    Migrate(app, db, directory=str(FOLDER).replace("%", "%%"), **options)
    try:
        app.cli.commands["db"].main(arguments, prog_name="flask db", obj=context.obj)
    except DBAPIError as error:
        refuse_closed_database(error)
