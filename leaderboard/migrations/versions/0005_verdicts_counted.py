"""Verdicts of each run counted by judge, and by pair of judges"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

COUNT = "INSERT INTO judge_tallies SELECT run, judge, {}, {}, {} FROM judgements GROUP BY run, judge"
COUNT_PAIRS = """
INSERT INTO judge_pairs SELECT o.run, o.judge, n.judge, {}, {}, {}, {}
FROM judgements o JOIN judgements n ON n.run = o.run AND n.attempt_id = o.attempt_id AND n.judge != o.judge
WHERE NOT o.current AND (n.current OR o.judge < n.judge) AND o.value IS NOT NULL AND n.value IS NOT NULL
GROUP BY o.run, o.judge, n.judge
"""


def upgrade() -> None:
    """Create the tables and fill them from the verdicts that are here: runs whose logs have gone keep their counts too."""
    op.create_table(
        "judge_tallies",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("judge", sa.String(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("accepted", "refused", "undecided")),
        sa.ForeignKeyConstraint(["run"], ["runs.key"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run", "judge"),
    )
    op.create_table(
        "judge_pairs",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("a", sa.String(), nullable=False),
        sa.Column("b", sa.String(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("both_right", "both_wrong", "only_a", "only_b")),
        sa.ForeignKeyConstraint(["run"], ["runs.key"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run", "a", "b"),
    )
    op.execute(COUNT.format(*map(_number_of, ("value > 0.5", "value <= 0.5", "value IS NULL"))))
    right, wrong = "{}.value > 0.5", "{}.value <= 0.5"
    cells = ((right, right), (wrong, wrong), (right, wrong), (wrong, right))
    op.execute(COUNT_PAIRS.format(*(_number_of(f"{a.format('o')} AND {b.format('n')}") for a, b in cells)))


def _number_of(condition: str) -> str:
    return f"SUM(CASE WHEN {condition} THEN 1 ELSE 0 END)"
