"""Know log-ins, invitations and spending: sessions end, an administrator invites, budgets hold"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# What was spent this month before months were kept; the first account is the administrator's.
COUNT_THIS_MONTH = """
    INSERT INTO spendings (user_id, month, picodollars)
    SELECT users.id, '{month}', sum(
        coalesce(messages.input_cost, 0) + coalesce(messages.output_cost, 0)
    )
    FROM messages
    JOIN chats ON chats.id = messages.chat_id AND chats.chattable_type = 'User'
    JOIN users ON users.id = chats.chattable_id
    WHERE messages.created_at >= '{month}-01'
    GROUP BY users.id
"""
NAME_THE_ADMINISTRATOR = "UPDATE users SET admin = true WHERE id = (SELECT min(id) FROM users)"


def upgrade():
    op.add_column("users", sa.Column("admin", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column(
        "users", sa.Column("disabled", sa.Boolean, nullable=False, server_default=sa.false())
    )
    op.add_column("users", sa.Column("seen_at", sa.DateTime(timezone=True)))
    op.add_column("users", sa.Column("budget", sa.BigInteger))
    op.create_table(
        "logins",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column(
            "user_id", sa.Integer, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("token", sa.String(43), nullable=False, unique=True),
        sa.Column("agent", sa.String(300), nullable=False),
        sa.Column("address", sa.String(45), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_logins_user_id", "logins", ["user_id"])
    op.create_table(
        "invitations",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("token", sa.String(43), nullable=False, unique=True),
        sa.Column("note", sa.String(200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True)),
        sa.Column("used_by_id", sa.Integer, sa.ForeignKey("users.id", ondelete="SET NULL")),
    )
    op.create_table(
        "identities",
        sa.Column("issuer", sa.String(255), primary_key=True),
        sa.Column("subject", sa.String(255), primary_key=True),
        sa.Column(
            "user_id", sa.Integer, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False
        ),
    )
    op.create_index("ix_identities_user_id", "identities", ["user_id"])
    op.create_table(
        "spendings",
        sa.Column(
            "user_id", sa.Integer, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("month", sa.String(7), primary_key=True),
        sa.Column("picodollars", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "settings",
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("value", sa.String(255), nullable=False),
    )
    op.execute(NAME_THE_ADMINISTRATOR)
    month = op.get_bind().scalar(sa.select(sa.func.current_timestamp()))
    op.execute(COUNT_THIS_MONTH.format(month=str(month)[:7]))


def downgrade():
    for table in ("settings", "spendings", "identities", "invitations", "logins"):
        op.drop_table(table)
    for column in ("budget", "seen_at", "disabled", "admin"):
        op.drop_column("users", column)
