"""The board as one HTML file that needs nothing else: style inside, no script, no link, a policy that allows neither."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from leaderboard.standings import Board
from leaderboard.web.board import shown_page
from leaderboard.web.pages.board import BoardPage
from leaderboard.web.query import BoardQuery
from leaderboard.web.templating import environment


def board_file(board: Board, made: str) -> str:
    """The file's text; ``made`` says when and from what, in words."""
    page: BoardPage = shown_page(board, BoardQuery(reported=False), measurements=(), tags={})
    style = (files("leaderboard.web") / "static" / "style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return environment().get_template("export.html").render(page=page, style=style, digest=digest, made=made)
