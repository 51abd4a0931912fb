"""Verdicts of each run counted by judge and by pair of judges; endings and cut answers counted with each evaluation"""

from collections import Counter, defaultdict

import sqlalchemy as sa
from alembic import op

from leaderboard.outcomes import outcome

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
    """Create what is new and fill it from the rows that are here: runs whose logs have gone keep their counts too."""
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

    for name in ("outcomes", "truncated"):
        op.add_column("evaluations", sa.Column(name, sa.JSON(), nullable=False, server_default="{}"))
    _count_endings()


def _count_endings() -> None:
    connection, json = op.get_bind(), sa.column("tags", sa.JSON())
    a, j = (_table(name) for name in ("attempts", "judgements"))
    tasks, evaluations = (
        sa.table("tasks", sa.column("key"), json),
        sa.table("evaluations", *map(sa.column, ("run", "evaluation_id", "finished"))),
    )
    judged = (j.c.run == a.c.run) & (j.c.attempt_id == a.c.attempt_id) & (j.c.current == sa.true())
    whole = (a.c.run, a.c.evaluation_id)
    joined = a.outerjoin(j, judged)
    ends: defaultdict[tuple[int, str], Counter[str]] = defaultdict(Counter)
    kinds = (*whole, a.c.status, j.c.status, j.c.value)
    query = sa.select(*kinds, sa.func.count()).select_from(joined).where(a.c.evaluation_id.is_not(None)).group_by(*kinds)
    for run, evaluation, status, verdict, value, count in connection.execute(query):
        ends[run, evaluation][outcome(status, verdict, value)] += count
    cut: defaultdict[tuple[int, str], Counter[str]] = defaultdict(Counter)
    wanted = (a.c.status == "truncated", a.c.evaluation_id.is_not(None), j.c.status == "judged")
    for run, evaluation, tags in connection.execute(
        sa.select(*whole, json).select_from(joined.join(tasks, tasks.c.key == a.c.task)).where(*wanted)
    ):
        cut[run, evaluation].update(["", *(f"{name}={value}" for name, value in tags.items())])
    target = sa.table(
        "evaluations", sa.column("run"), sa.column("evaluation_id"), *(sa.column(n, sa.JSON()) for n in ("outcomes", "truncated"))
    )
    for run, evaluation in connection.execute(
        sa.select(evaluations.c.run, evaluations.c.evaluation_id).where(evaluations.c.finished == sa.true())
    ).all():
        last = sa.select(sa.func.max(a.c.position)).where(a.c.run == run, a.c.evaluation_id == evaluation)
        attempts = 1 + (connection.scalar(last) or 0) if (run, evaluation) in cut else 1
        parts = {part: count / attempts for part, count in sorted(cut[run, evaluation].items())}
        mine = (target.c.run == run) & (target.c.evaluation_id == evaluation)
        values = {"outcomes": dict(sorted(ends[run, evaluation].items())), "truncated": parts}
        connection.execute(sa.update(target).where(mine).values(values))


def _table(name: str) -> sa.TableClause:
    names = ("run", "attempt_id", "evaluation_id", "task", "position", "status", "value")
    return sa.table(name, *map(sa.column, names), sa.column("current", sa.Boolean()))


def _number_of(condition: str) -> str:
    return f"SUM(CASE WHEN {condition} THEN 1 ELSE 0 END)"
