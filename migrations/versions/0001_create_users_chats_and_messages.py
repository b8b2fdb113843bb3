"""Create users, chats and messages"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

RUNNING = sa.text("status IN ('pending', 'streaming')")


def upgrade():
    op.create_table(
        "users",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("email", sa.String(254), nullable=False, unique=True),
        sa.Column("password_hash", sa.String(255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "chats",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("chattable_type", sa.String(80), nullable=False),
        sa.Column("chattable_id", sa.Integer, nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "chats_by_recency", "chats", ["chattable_type", "chattable_id", "updated_at"]
    )
    op.create_table(
        "messages",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column(
            "chat_id", sa.Integer, sa.ForeignKey("chats.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("reasoning", sa.Text),
        sa.Column("model", sa.String(200)),
        sa.Column("client_id", sa.String(36)),
        sa.Column("error", sa.Text),
        sa.Column("note", sa.Text),
        sa.Column("finish_reason", sa.String(40)),
        sa.Column("prompt_token_usage", sa.Integer),
        sa.Column("completion_token_usage", sa.Integer),
        sa.Column("cached_token_usage", sa.Integer),
        sa.Column("usage_estimated", sa.Boolean, nullable=False),
        # Picodollars: exact, and a sum of them, too.
        sa.Column("input_cost", sa.BigInteger),
        sa.Column("output_cost", sa.BigInteger),
        sa.Column("superseded", sa.Boolean, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("role IN ('user', 'assistant', 'system')", name="known_role"),
        sa.UniqueConstraint("chat_id", "client_id", name="one_message_per_client_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("messages_by_chat", "messages", ["chat_id", "id"])
    op.create_index(
        "one_running_reply",
        "messages",
        ["chat_id"],
        unique=True,
        sqlite_where=RUNNING,
        postgresql_where=RUNNING,
    )


def downgrade():
    op.drop_table("messages")
    op.drop_table("chats")
    op.drop_table("users")
