"""Stated confidence of an answer; what a comparability code is made of"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Two columns; `harness leaderboard rebuild` fills them for runs that were read before."""
    op.add_column("attempts", sa.Column("confidence", sa.Double(), nullable=True))
    op.add_column("evaluations", sa.Column("comparability_parts", sa.JSON(), nullable=False, server_default="{}"))
