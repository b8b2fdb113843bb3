"""Index messages by revision, for a page to catch up in the longest of chats"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade():
    op.create_index("messages_by_revision", "messages", ["chat_id", "revision"])


def downgrade():
    op.drop_index("messages_by_revision", "messages")
