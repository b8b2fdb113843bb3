"""Index what was said, to be searched"""

import sqlalchemy as sa
from alembic import op

from chattable import indexing

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

MESSAGES, CHATS = sa.table("messages"), sa.table("chats")


def upgrade():
    indexing.install(op.get_bind(), MESSAGES, CHATS)


def downgrade():
    indexing.uninstall(op.get_bind(), MESSAGES, CHATS)
