"""Know what is not sent any more: a chat knows where its model's window begins"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade():
    op.add_column("chats", sa.Column("unsent_above", sa.Integer))
    op.add_column("chats", sa.Column("unsent_to", sa.String(200)))


def downgrade():
    op.drop_column("chats", "unsent_to")
    op.drop_column("chats", "unsent_above")
