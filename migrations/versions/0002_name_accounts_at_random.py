"""Name accounts at random, and never give an id of one to another"""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Chats of a person who was deleted by hand must not come to the next one.
SKIP_IDS_OF_THE_DELETED = """
    INSERT INTO sqlite_sequence (name, seq)
    SELECT 'users', highest FROM (
        SELECT max(id) AS highest FROM (
            SELECT id FROM users
            UNION SELECT chattable_id FROM chats WHERE chattable_type = 'User'
        )
    ) WHERE highest IS NOT NULL
"""


def upgrade():
    op.add_column("users", sa.Column("public_id", sa.String(32)))
    name_everybody(op.get_bind())
    with op.batch_alter_table("users", table_kwargs={"sqlite_autoincrement": True}) as users:
        users.alter_column("public_id", existing_type=sa.String(32), nullable=False)
        users.create_unique_constraint("one_account_per_public_id", ["public_id"])
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DELETE FROM sqlite_sequence WHERE name = 'users'")
        op.execute(SKIP_IDS_OF_THE_DELETED)


def name_everybody(connection):
    users = sa.table("users", sa.column("id"), sa.column("public_id"))
    for id in connection.scalars(sa.select(users.c.id)).all():
        name = {"public_id": secrets.token_urlsafe(16)}
        connection.execute(sa.update(users).where(users.c.id == id).values(name))


def downgrade():
    with op.batch_alter_table("users") as users:
        users.drop_constraint("one_account_per_public_id", type_="unique")
        users.drop_column("public_id")
