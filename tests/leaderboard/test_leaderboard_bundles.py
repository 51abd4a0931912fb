"""Bundles: the numbers come again from the records, any changed byte is found, and a forger is named."""

import json
import random
import zlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from leaderboard_logs import Recipe, build, start

from harness.cli.main import cli, run_command
from harness.errors import DataError
from harness.events import Kind, Recorder
from leaderboard.bundles.container import pack, unpack
from leaderboard.bundles.keys import new_secret, public_name, unseal
from leaderboard.bundles.verify import verify, verify_file
from leaderboard.bundles.write import write_bundle

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NAME = public_name(SIGNER.public_key())
SECRET = bytes(reversed(range(32)))


@pytest.fixture(scope="module")
def bundle_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    run_dir = build(folder / "runs", Recipe(model="tiny", method="actguide", steps=2, groups=3, questions=6))
    with Recorder(run_dir, writer="regrade") as log:
        log.record(
            Kind.JUDGEMENT, {"attempt_id": "none", "judge": "llm", "value": None, "status": "outage", "layer": "", "detail": "\ud83d half"}
        )
    write_bundle(run_dir, folder / "result.bundle", SIGNER, SECRET)
    return folder / "result.bundle"


def test_a_bundle_verifies_and_shows_what_the_board_shows(bundle_file: Path) -> None:
    report = verify_file(bundle_file, SECRET, [NAME])
    assert report.problems == () and report.trusted is True and report.signer == NAME
    (whole,) = (row for row in report.claims["scores"] if not row["part"])
    assert whole["n"] == 6 and whole["method"] == "Wilson" and whole["low"] < whole["score"] < whole["high"]
    assert report.claims["totals"]["attempts"] == 6 + 2 * 2 * 4 == report.transcripts


def test_without_the_key_no_question_answer_or_turn_can_be_read(bundle_file: Path) -> None:
    bundle = unpack(bundle_file.read_bytes())
    assert verify(bundle).transcripts is None and verify(bundle).problems == ()
    for words in (b"Which capital", b"Alder", b"Let me look", b"<think>", b"Plan:"):
        assert words not in bundle_file.read_bytes()
        assert words not in bundle.events or words == b"Alder"  # a judge's words on an open question may quote an answer
    opened = zlib.decompress(unseal(SECRET, bundle.transcripts, bundle.run_id.encode()))
    assert b"Let me look" in opened
    with pytest.raises(DataError, match="does not open the transcripts"):
        unseal(new_secret(), bundle.transcripts, bundle.run_id.encode())


def test_words_of_a_judge_on_a_gated_question_are_sealed(tmp_path: Path) -> None:
    with Recorder(tmp_path / "runs" / "gated") as log:
        start(log, Recipe(model="tiny", method="base", name="gated"))
        attempt = {
            "attempt_id": "a",
            "task_id": "t",
            "question": "q",
            "web": "w",
            "gold": None,
            "tags": {},
            "purpose": "eval",
            "blob": None,
        }
        log.record(Kind.ATTEMPT, attempt | {"status": "answered", "turns": [], "usage": {}, "answer": "x"})
        verdict = {"attempt_id": "a", "judge": "llm", "value": 1.0, "status": "judged", "layer": "llm", "detail": "the secret is Zanzibar"}
        log.record(Kind.JUDGEMENT, verdict)
    write_bundle(tmp_path / "runs" / "gated", tmp_path / "b", SIGNER, SECRET)
    assert b"Zanzibar" not in unpack((tmp_path / "b").read_bytes()).events
    assert verify_file(tmp_path / "b", SECRET).problems == ()


def test_every_changed_byte_is_found(bundle_file: Path) -> None:
    content, rng = bundle_file.read_bytes(), random.Random(0)
    places = [*range(64), *rng.sample(range(len(content)), 150), *range(len(content) - 64, len(content))]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << rng.randrange(8)
        assert is_refused(bytes(changed)), place
    for other in (content[:10], content[: len(content) // 2], content[:-1], content + b"\0", b"\0" + content):
        assert is_refused(other)


def is_refused(content: bytes) -> bool:
    """Whether a bundle is unreadable, in words, or has problems."""
    try:
        return bool(unpack(content).problems)
    except DataError as error:
        return "bundle" in str(error)


def forged(bundle_file: Path, old: bytes, new: bytes, claims: bool = False) -> bytes:
    """The bundle with ``old`` replaced in its events (or claims), signed again by somebody else."""
    bundle = unpack(bundle_file.read_bytes())
    manifest = {k: v for k, v in bundle.manifest.items() if k not in ("signer", "sha256", "version")}
    events = bundle.events
    if claims:
        manifest = json.loads(json.dumps(manifest).replace(old.decode(), new.decode()))
    else:
        assert events.count(old)
        events = events.replace(old, new, 1)
    return pack(manifest, events, bundle.transcripts, Ed25519PrivateKey.generate())


def test_a_claim_that_the_records_do_not_give_is_named(bundle_file: Path) -> None:
    bundle = unpack(bundle_file.read_bytes())
    score = next(row["score"] for row in bundle.manifest["claims"]["scores"] if not row["part"])
    report = verify(unpack(forged(bundle_file, f'"score": {score}'.encode(), b'"score": 0.99', claims=True)))
    assert f"scores[miniweb test pass@1].score: claimed 0.99, the records give {score}" in report.problems


def test_a_flipped_verdict_is_found_by_the_number_and_by_the_event(bundle_file: Path) -> None:
    report = verify(unpack(forged(bundle_file, b'"value":0.0,"status":"judged"', b'"value":1.0,"status":"judged"')))
    assert any("this judgement event was changed after it was recorded" in p for p in report.problems)


def test_a_moved_attempt_is_found_with_the_key(bundle_file: Path) -> None:
    content = forged(bundle_file, b'"index":1', b'"index":7')
    assert any("what it shows is not what its transcript says" in p for p in verify(unpack(content), SECRET).problems)


def test_a_bundle_of_another_signer_is_not_trusted(bundle_file: Path) -> None:
    content = forged(bundle_file, b'"seq":0', b'"seq":0')
    assert verify(unpack(content)).problems == ()  # whole, but who made it?
    (problem,) = verify(unpack(content), trust=[NAME]).problems
    assert "none of the keys that you trust" in problem


def test_what_is_no_bundle_is_said_in_words(tmp_path: Path) -> None:
    for content in (b"", b"hello", b"PK\x05\x06" + bytes(18)):
        with pytest.raises(DataError, match="bundle"):
            unpack(content)
    with pytest.raises(DataError, match="cannot read"):
        verify_file(tmp_path / "nothing")
    bomb = pack({"run_id": "r"}, bytes(3_000_000), b"", SIGNER)
    with pytest.raises(DataError, match="at most 1000000"):
        unpack(bomb, most=1_000_000)


def test_the_command_line_bundles_and_verifies(harness_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(harness_home / "runs", Recipe(model="tiny", method="base", questions=4))
    out = harness_home / "b.bundle"
    assert run_command(cli, ["leaderboard", "bundle", "tiny-base-s0", "--out", str(out)]) == 0
    assert (harness_home / "signing.key").stat().st_mode & 0o077 == 0 and (harness_home / "b.bundle.key").stat().st_mode & 0o077 == 0
    assert run_command(cli, ["leaderboard", "key"]) == 0
    key = capsys.readouterr().out.split()[-1]
    assert run_command(cli, ["verify", str(out), "--key", f"{out}.key", "--trust", key]) == 0
    assert "every number follows from the records" in capsys.readouterr().out
    content = bytearray(out.read_bytes())
    content[-1] ^= 1
    out.write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        run_command(cli, ["verify", str(out), "--trust", key])
    assert ended.value.code == 1 and "DIFFERS: the signature is not that of" in capsys.readouterr().out
    assert run_command(cli, ["verify", str(out), "--trust", "nonsense"]) != 0
    assert "is no public key" in capsys.readouterr().err
