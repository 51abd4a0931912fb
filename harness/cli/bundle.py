"""Results that travel: ``harness leaderboard bundle | submit | token | key`` and ``harness verify``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.config import home
from harness.errors import UsageError

if TYPE_CHECKING:
    from leaderboard.bundles.verify import Report

TOKEN_VARIABLE = "HARNESS_BOARD_TOKEN"


@click.command()
@click.argument("run")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="File to write, e.g. result.bundle.")
@click.option("--key", "key_file", type=click.Path(path_type=Path), help="Key file of the transcripts (default: a new one, OUT.key).")
def bundle(run: str, out: Path, key_file: Path | None) -> None:
    """Write RUN (its id or folder) as one signed file: records in the clear, transcripts sealed."""
    from leaderboard.bundles.keys import new_secret, public_name, read_secret, signing_key, write_secret
    from leaderboard.bundles.write import write_bundle

    folder = home() / "runs" / run if (home() / "runs" / run).is_dir() else Path(run)
    secret = new_secret() if key_file is None else read_secret(key_file)
    signer = signing_key(home())
    kept = out.with_name(out.name + ".key")
    if key_file is None:
        write_secret(kept, secret)
    written = write_bundle(folder, out, signer, secret)
    click.echo(f"{out}: run {written.run_id}, {written.events} events, {written.scores} score rows, {written.sealed} records sealed.")
    click.echo(f"Signed by {public_name(signer.public_key())}")
    click.echo(f"Transcripts open with {key_file or kept}: give it only to those who may read them.")


@click.command(short_help="Check a result bundle offline: signature, hashes, and every number made again.")
@click.argument("bundle_file", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.option("--key", "key_file", type=click.Path(path_type=Path), help="Key file of the transcripts: compares them too.")
@click.option("--trust", multiple=True, metavar="PUBKEY", help="Public key of a signer whom you trust; may be repeated.")
def verify(bundle_file: Path, key_file: Path | None, trust: tuple[str, ...]) -> None:
    """Make every number of BUNDLE again from its records and name what differs. Exit code 1 if anything does."""
    from leaderboard.bundles.keys import read_secret
    from leaderboard.bundles.verify import verify_file

    report = verify_file(bundle_file, None if key_file is None else read_secret(key_file), trust)
    for line in _words(report):
        click.echo(line)
    if report.problems:
        sys.exit(1)


def _words(report: Report) -> list[str]:
    if report.problems:
        return [f"DIFFERS: {problem}" for problem in report.problems]
    lines = [f"run {report.run_id}: {report.events} events; the signature and all hashes fit; every number follows from the records:"]
    for row in report.claims["scores"]:
        if not row["part"]:
            bounds = "" if row["low"] is None else f" [{row['low']:.4f}, {row['high']:.4f}]"
            place = f"{row['benchmark']} {row['split']} step {row['step']}"
            lines.append(f"  {place}: {row['metric']} {row['score']:.4f}{bounds} n={row['n']} coverage {row['coverage']:.0%}")
    sealed = "not opened (no --key)" if report.transcripts is None else f"{report.transcripts} opened; they are those of the records"
    trusted = "whom you trust" if report.trusted else "known to you by nothing else: name a key you trust with --trust"
    return [*lines, f"transcripts: {sealed}", f"signed by {report.signer}, {trusted}"]


@click.command()
@click.argument("url")
@click.argument("bundle_file", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.option("--token-file", type=click.Path(path_type=Path), help=f"File that holds the token (default: ${TOKEN_VARIABLE}).")
def submit(url: str, bundle_file: Path, token_file: Path | None) -> None:
    """Send BUNDLE to the shared board at URL; run it again after an interruption, it goes on."""
    from leaderboard.submit import submit as send

    if token_file is not None and not token_file.is_file():
        raise UsageError(f"no such token file: {token_file}")
    token = os.environ.get(TOKEN_VARIABLE, "") if token_file is None else token_file.read_text(encoding="ascii").strip()
    if not token:
        raise UsageError(f"a token is needed: set {TOKEN_VARIABLE} or give --token-file; the board's operator makes one")
    done = send(url, bundle_file, token)
    click.echo(f"{'Already there' if done.was_there else 'Accepted'}: {done.address} ({done.sent:,} bytes sent)")


@click.command()
def key() -> None:
    """Print the public key that signs this machine's bundles (made on first use)."""
    from leaderboard.bundles.keys import public_name, signing_key

    click.echo(public_name(signing_key(home()).public_key()))


@click.group()
def token() -> None:
    """Who may submit to this board."""


@token.command()
@click.argument("name")
@click.option("--signer", metavar="PUBKEY", help="Take only bundles that this key signed.")
@click.option("--model", help="Take only rows of this model.")
def create(name: str, signer: str | None, model: str | None) -> None:
    """Make a token and print it, this once; only its hash is kept."""
    from leaderboard.database import database_url, open_database
    from leaderboard.tokens import create_token

    click.echo(create_token(open_database(database_url(home())), name, signer, model))


@token.command(name="list")
def list_() -> None:
    """List tokens by name, with what they are limited to."""
    from leaderboard.database import database_url, open_database
    from leaderboard.tokens import grants

    for grant in grants(open_database(database_url(home()))):
        limits = [f"signer {grant.signer}" if grant.signer else "", f"model {grant.model}" if grant.model else ""]
        state = f"revoked {grant.revoked_at}" if grant.revoked_at else "valid"
        click.echo("  ".join([grant.name, state, f"made {grant.created_at}", *(limit for limit in limits if limit)]))


@token.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Make a token useless from now on."""
    from leaderboard.database import database_url, open_database
    from leaderboard.tokens import revoke_token

    revoke_token(open_database(database_url(home())), name)
    click.echo(f"{name} is revoked.")
