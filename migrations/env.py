"""Run the migrations against the app's own database."""

import click
from alembic import context
from flask import current_app

migrate = current_app.extensions["migrate"]
database = migrate.db

if context.is_offline_mode():
    url = database.engine.url.render_as_string(hide_password=False)
    context.configure(url=url, target_metadata=database.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    with database.engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=database.metadata,
            **migrate.configure_args,
        )
        with context.begin_transaction():
            context.run_migrations()
        at = ", ".join(context.get_context().get_current_heads()) or "base"
        click.echo(f"The database is at revision {at}.", err=True)
