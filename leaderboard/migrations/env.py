"""Alembic's entry point: migrate over the connection that ``leaderboard.database.upgrade`` holds, inside its transaction."""

from alembic import context

from leaderboard.schema import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True)
context.run_migrations()
