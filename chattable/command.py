"""The command line that any app with chats gets: `flask worker`."""

import click
from flask.cli import with_appcontext
from flask.globals import app_ctx


@click.command("worker")
@click.argument("queues", nargs=-1)
@with_appcontext
def worker(queues):
    """Write replies, many at once, and do your app's own jobs: an RQ worker.

    It takes jobs of QUEUES, the first ones first; without any, those that chattable has enqueued.
    Start it as `python -m gevent.monkey --module flask --app … worker`.
    """
    # Here, for nobody else needs gevent.
    from chattable.worker import work

    work(app_ctx.app, queues)


def init_app(app):
    """Give an app the command, unless it has one of that name."""
    app.cli.commands.setdefault(worker.name, worker)
