"""Tokens of a shared board: made once, shown once, stored as a hash, limited to submitting, revocable.

A token has 256 random bits, so a plain SHA-256 at rest cannot be guessed back. It may be bound to a signer (only bundles signed with
that key pass) and to a model (only its rows).
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Engine, insert, select, update
from sqlalchemy.exc import IntegrityError

from harness.errors import UsageError
from leaderboard.bundles.keys import parse_public, public_name
from leaderboard.schema import Token

PREFIX = "hbt_"  # recognisable to people and to secret scanners


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a token allows: to submit, as ``name``, bundles of ``signer`` and rows of ``model`` (None: of any)."""

    name: str
    signer: str | None
    model: str | None
    created_at: str
    revoked_at: str | None


def create_token(engine: Engine, name: str, signer: str | None = None, model: str | None = None) -> str:
    """A new token, to be shown once. Raises UsageError if the name is taken or the signer is no key."""
    token = PREFIX + secrets.token_urlsafe(32)
    bound = None if signer is None else public_name(parse_public(signer))
    row = {"name": name, "hash": _hash(token), "signer": bound, "model": model, "created_at": _now(), "revoked_at": None}
    try:
        with engine.begin() as connection:
            connection.execute(insert(Token).values(row))
    except IntegrityError as error:
        raise UsageError(f"there is a token named {name!r} already; choose another name (revoked names stay taken)") from error
    return token


def grants(engine: Engine) -> list[Grant]:
    """All tokens, the oldest first, without what could be used."""
    columns = (Token.name, Token.signer, Token.model, Token.created_at, Token.revoked_at)
    with engine.connect() as connection:
        return [Grant(**row._mapping) for row in connection.execute(select(*columns).order_by(Token.created_at, Token.name))]


def revoke_token(engine: Engine, name: str) -> None:
    """Make a token useless from now on. Raises UsageError if there is none of that name."""
    with engine.begin() as connection:
        if connection.scalar(select(Token.name).where(Token.name == name)) is None:
            raise UsageError(f"there is no token named {name!r}; `harness leaderboard token list` shows them")
        connection.execute(update(Token).where(Token.name == name, Token.revoked_at.is_(None)).values(revoked_at=_now()))


def grant_of(engine: Engine, token: str) -> Grant | None:
    """What ``token`` allows, None if it is unknown or revoked."""
    columns = (Token.name, Token.signer, Token.model, Token.created_at, Token.revoked_at)
    with engine.connect() as connection:
        row = connection.execute(select(*columns).where(Token.hash == _hash(token), Token.revoked_at.is_(None))).first()
    return None if row is None else Grant(**row._mapping)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
