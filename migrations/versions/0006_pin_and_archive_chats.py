"""Pin and archive chats; sum up what one has cost by an index alone"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade():
    for name in ("pinned", "archived"):
        column = sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false())
        op.add_column("chats", column)
        where = {
            "sqlite_where": sa.text(f"{name} = 1"),
            "postgresql_where": sa.text(f"{name} = true"),
        }
        mine = ["chattable_type", "chattable_id", name, "updated_at"]
        op.create_index(f"chats_{name}", "chats", mine, **where)
    op.drop_index("messages_by_chat", "messages")
    with_costs = ["chat_id", "id", "input_cost", "output_cost"]
    op.create_index("messages_by_chat", "messages", with_costs)


def downgrade():
    op.drop_index("messages_by_chat", "messages")
    op.create_index("messages_by_chat", "messages", ["chat_id", "id"])
    for name in ("pinned", "archived"):
        op.drop_index(f"chats_{name}", "chats")
        op.drop_column("chats", name)
