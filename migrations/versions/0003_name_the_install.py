"""Name the install, to tell it from others on the same Redis"""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade():
    installs = op.create_table(
        "installs",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", sa.String(20), nullable=False),
        sa.CheckConstraint("id = 1", name="one_install"),
    )
    op.bulk_insert(installs, [{"id": 1, "name": secrets.token_hex(5)}])


def downgrade():
    op.drop_table("installs")
