"""Keep every version: a message knows its parent, a chat the leaf last looked at"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# What was replaced follows the same message as what has replaced it. Where nothing was, each
# message follows the one before it, and need not say so.
FIND_PARENTS = """
    UPDATE messages SET parent_id = coalesce((
        SELECT before.id FROM messages AS before
        WHERE before.chat_id = messages.chat_id AND before.id < messages.id
            AND NOT before.superseded
        ORDER BY before.id DESC LIMIT 1
    ), 0)
    WHERE chat_id IN (
        SELECT chat_id FROM messages
        WHERE superseded AND coalesce(finish_reason, '') <> 'unseen'
    )
"""
# A page that was made before shows the versions when it comes again.
TELL_PAGES = """
    UPDATE chats SET revision = revision + 1, branch_revision = revision + 1
    WHERE id IN (
        SELECT chat_id FROM messages
        WHERE superseded AND coalesce(finish_reason, '') <> 'unseen'
    )
"""
# The way back: of several versions, the latest is shown, and what went on from it.
HIDE_VERSIONS = """
    WITH RECURSIVE shown (id, chat_id, up_to) AS (
        SELECT id, chat_id, coalesce(parent_id, id - 1) FROM messages WHERE id IN (
            SELECT max(id) FROM messages
            WHERE coalesce(finish_reason, '') <> 'unseen' GROUP BY chat_id
        )
        UNION ALL
        SELECT above.id, above.chat_id, coalesce(above.parent_id, above.id - 1)
        FROM messages AS above JOIN shown ON above.id = (
            SELECT before.id FROM messages AS before
            WHERE before.chat_id = shown.chat_id AND before.id <= shown.up_to
                AND coalesce(before.finish_reason, '') <> 'unseen'
            ORDER BY before.id DESC LIMIT 1
        )
    )
    UPDATE messages SET superseded = true WHERE id NOT IN (SELECT id FROM shown)
"""


def upgrade():
    op.add_column("messages", sa.Column("parent_id", sa.Integer))
    op.add_column("chats", sa.Column("leaf_id", sa.Integer))
    op.add_column(
        "chats", sa.Column("branch_revision", sa.Integer, nullable=False, server_default="0")
    )
    op.execute(FIND_PARENTS)
    op.execute(TELL_PAGES)
    op.create_index("messages_by_parent", "messages", ["chat_id", "parent_id"])
    op.drop_column("messages", "superseded")


def downgrade():
    op.add_column(
        "messages",
        sa.Column("superseded", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    op.execute(HIDE_VERSIONS)
    op.drop_index("messages_by_parent", "messages")
    op.drop_column("messages", "parent_id")
    op.drop_column("chats", "branch_revision")
    op.drop_column("chats", "leaf_id")
