"""Keep since when and for how long a model thought, and in how many tokens"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

COLUMNS = {
    "reasoning_token_usage": sa.Integer,
    "thinking_since": lambda: sa.DateTime(True),
    "thought_seconds": sa.Integer,
}


def upgrade():
    for name, kind in COLUMNS.items():
        op.add_column("messages", sa.Column(name, kind()))


def downgrade():
    for name in COLUMNS:
        op.drop_column("messages", name)
