"""Whether the current verdict accepts an attempt, kept with it, so that lists are filtered and ordered on one index"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

FILL = """
UPDATE attempts SET passed = (
    SELECT j.value > 0.5 FROM judgements j WHERE j.run = attempts.run AND j.attempt_id = attempts.attempt_id AND j.current
)
"""


def upgrade() -> None:
    """Add the column, fill it from the verdicts that are here, and exchange the indexes."""
    op.add_column("attempts", sa.Column("passed", sa.Boolean(), nullable=True))
    op.execute(FILL)
    op.drop_index("attempts_by_evaluation", "attempts")
    op.drop_index("judgements_by_judge", "judgements")
    op.create_index("attempts_by_verdict", "attempts", ["run", "passed", "purpose", "step"])
    evaluated = sa.text("evaluation_id IS NOT NULL")
    op.create_index(
        "attempts_by_evaluation",
        "attempts",
        ["run", "evaluation_id", "task_id", "position", "passed"],
        sqlite_where=evaluated,
        postgresql_where=evaluated,
    )
    op.create_index("runs_by_model", "runs", ["model", "command"])
    bind = op.get_bind()
    if bind.dialect.name == "sqlite" and bind.scalar(sa.text("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_stat1'")):
        op.execute("PRAGMA analysis_limit=1000")
        op.execute("ANALYZE")  # statistics that know nothing of the new indexes would speak against them
