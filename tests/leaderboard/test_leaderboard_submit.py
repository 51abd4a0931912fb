"""Submitting to a shared board: over the real client and the real application, whole, broken off, twice, and by those who may not."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from leaderboard_logs import Recipe, build
from sqlalchemy import Engine, text
from starlette.applications import Starlette
from starlette.testclient import TestClient
from test_leaderboard_bundles import NAME, SECRET, SIGNER

from harness.cli.main import cli, run_command
from harness.errors import HarnessError, UsageError
from leaderboard import submit as sending
from leaderboard.bundles.container import digest, pack, unpack
from leaderboard.bundles.write import write_bundle
from leaderboard.database import default_url, open_database
from leaderboard.ingest import rebuild
from leaderboard.store import Store
from leaderboard.submissions import Inbox
from leaderboard.tokens import create_token, grants, revoke_token
from leaderboard.web.app import Site, create_app
from leaderboard.web.submissions import RateLimit, Submissions
from leaderboard.words import HIDDEN

BOARD = "http://127.0.0.1"


class Way(httpx.BaseTransport):
    """From the real client to the real application, without a socket in between."""

    def __init__(self, client: TestClient) -> None:
        self.client = client

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        headers = {name: value for name, value in request.headers.items() if name in ("authorization", "upload-offset", "upload-length")}
        answer = self.client.request(request.method, request.url.path, headers=headers, content=request.read())
        return httpx.Response(answer.status_code, headers=dict(answer.headers), content=answer.content)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    run_dir = build(tmp_path / "mine" / "runs", Recipe(model="tiny", method="base", questions=6))
    write_bundle(run_dir, tmp_path / "result.bundle", SIGNER, SECRET)
    return tmp_path / "result.bundle"


@pytest.fixture
def board(tmp_path: Path) -> Iterator[tuple[Engine, httpx.BaseTransport]]:
    """A shared board of its own, and the way to it."""
    engine = open_database(default_url(tmp_path / "board"))
    site = Site(engine=engine, runs_dir=tmp_path / "board" / "runs", inbox=Inbox(engine=engine, home=tmp_path / "board"))
    with TestClient(create_app(site), base_url=BOARD) as client:
        yield engine, Way(client)


class Flaky(httpx.BaseTransport):
    """The way to a board on which some requests get lost."""

    def __init__(self, way: httpx.BaseTransport, lost: set[int]) -> None:
        self.way, self.lost, self.requests = way, lost, 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        if self.requests in self.lost:
            raise httpx.ConnectError("the line went dead", request=request)
        return self.way.handle_request(request)


def test_a_submitted_run_stands_on_the_board_with_its_numbers(
    bundle: Path, board: tuple[Engine, httpx.BaseTransport], tmp_path: Path
) -> None:
    engine, way = board
    done = sending.submit(BOARD, bundle, create_token(engine, "alice", signer=NAME), transport=way)
    assert done.address == f"{BOARD}/runs/tiny-base-s0" and done.sent == bundle.stat().st_size and not done.was_there
    (claimed,) = (row for row in unpack(bundle.read_bytes()).manifest["claims"]["scores"] if not row["part"])
    (shown,) = (row for row in Store(engine).scores() if not row["part"])
    assert shown["score"] == claimed["score"] and shown["run"] == "tiny-base-s0"
    pages = TestClient(create_app(Site(engine=engine)), base_url=BOARD)
    listed = pages.get("/runs/tiny-base-s0/samples").text
    assert "1 to 6 of 6" in listed and HIDDEN in listed and "Which capital" not in listed
    assert f"as a bundle signed by <code>{NAME}</code>" in pages.get("/runs/tiny-base-s0").text
    rebuild(engine, tmp_path / "board" / "runs")
    assert f"signed by <code>{NAME}</code>" in TestClient(create_app(Site(engine=engine)), base_url=BOARD).get("/runs/tiny-base-s0").text
    assert [row["score"] for row in Store(engine).scores() if not row["part"]] == [claimed["score"]] and grants(engine)


def test_submitting_twice_changes_nothing(bundle: Path, board: tuple[Engine, httpx.BaseTransport]) -> None:
    engine, way = board
    token = create_token(engine, "alice")
    sending.submit(BOARD, bundle, token, transport=way)
    again = sending.submit(BOARD, bundle, token, transport=way)
    assert again.was_there and again.sent == 0 and len(Store(engine).runs()) == 1


def test_a_broken_transfer_goes_on_where_it_stopped(
    bundle: Path, board: tuple[Engine, httpx.BaseTransport], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, way = board
    token = create_token(engine, "alice")
    monkeypatch.setattr(sending, "PART_BYTES", 1000)
    with pytest.raises(HarnessError, match="Run the same command again"):
        sending.submit(BOARD, bundle, token, transport=Flaky(way, set(range(3, 100))), pause=lambda s: None)
    pauses: list[float] = []
    done = sending.submit(BOARD, bundle, token, transport=Flaky(way, {3, 6}), pause=pauses.append)
    assert done.sent == bundle.stat().st_size - 1000 and pauses == [1.0, 1.0]


def test_tokens_are_hashed_revocable_and_bound(bundle: Path, board: tuple[Engine, httpx.BaseTransport], tmp_path: Path) -> None:
    engine, way = board
    token = create_token(engine, "alice")
    with engine.connect() as connection:
        stored = repr(connection.execute(text("SELECT * FROM tokens")).all())
    assert token not in stored and token.removeprefix("hbt_") not in stored
    with pytest.raises(UsageError, match="already"):
        create_token(engine, "alice")
    other = create_token(engine, "bob", signer="ed25519:" + Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex())
    large = create_token(engine, "carol", model="qwen3-8b")
    for bad, why in ((other, "signed by"), (large, "rows of the model 'qwen3-8b'"), ("hbt_wrong", "token of this board is needed")):
        with pytest.raises(HarnessError, match=why):
            sending.submit(BOARD, bundle, bad, transport=way)
    revoke_token(engine, "alice")
    with pytest.raises(HarnessError, match="token of this board is needed"):
        sending.submit(BOARD, bundle, token, transport=way)
    with pytest.raises(UsageError, match="no token named"):
        revoke_token(engine, "dave")
    assert Store(engine).runs() == [] and not (tmp_path / "board" / "runs").exists()


def test_what_does_not_hold_is_refused_and_leaves_nothing(bundle: Path, board: tuple[Engine, httpx.BaseTransport], tmp_path: Path) -> None:
    engine, way = board
    token, whole = create_token(engine, "alice"), unpack(bundle.read_bytes())
    manifest = {k: v for k, v in whole.manifest.items() if k not in ("signer", "sha256", "version")}
    lie = json.loads(json.dumps(manifest))
    lie["claims"]["scores"][0]["score"] = 1.0
    odd = whole.events.replace(b'"kind":"evaluation"', b'"kind":"judgement"')
    deep = b'{"v":1,"seq":0,"time":"","id":"x","kind":"run","writer":"main","data":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"
    huge = whole.events.replace(b'"index":0', b'"index":99999999999999999999999')
    cases = {"claimed 1.0": pack(lie, whole.events, b"", SIGNER), "the signature is not that of": bundle.read_bytes()[:-1] + b"\0"}
    cases |= {"does not hold": pack(manifest, odd, b"", SIGNER), "not JSON": pack(manifest, deep, b"", SIGNER)}
    cases |= {"bundle": b"nonsense", "hold": pack(manifest, huge, b"", SIGNER)}
    for why, content in cases.items():
        path = tmp_path / "other.bundle"
        path.write_bytes(content)
        with pytest.raises(HarnessError, match=why):
            sending.submit(BOARD, path, token, transport=way)
    assert Store(engine).runs() == [] and not list((tmp_path / "board").glob("runs/*"))


def test_a_run_that_is_there_is_not_replaced(bundle: Path, board: tuple[Engine, httpx.BaseTransport], tmp_path: Path) -> None:
    engine, way = board
    token, whole = create_token(engine, "alice"), unpack(bundle.read_bytes())
    sending.submit(BOARD, bundle, token, transport=way)
    manifest = {k: v for k, v in whole.manifest.items() if k not in ("signer", "sha256", "version")}
    other = tmp_path / "other.bundle"
    other.write_bytes(pack(manifest, whole.events, b"", Ed25519PrivateKey.generate()))
    with pytest.raises(HarnessError, match="on this board already; results are not replaced"):
        sending.submit(BOARD, other, token, transport=way)


def test_sizes_and_rates_are_limited(tmp_path: Path) -> None:
    engine = open_database(default_url(tmp_path))
    inbox = Inbox(engine=engine, home=tmp_path, most_bytes=1000, most_partial=2)
    client = TestClient(
        create_app(Site(engine=engine, inbox=inbox)), base_url=BOARD, headers={"Authorization": f"Bearer {create_token(engine, 'alice')}"}
    )

    def send(name: str, offset: int, length: int, content: bytes) -> Any:
        headers = {"Upload-Offset": str(offset), "Upload-Length": str(length)}
        return client.patch(f"/api/submissions/{name}", content=content, headers=headers)

    a, b, c = ("a" * 64, "b" * 64, "c" * 64)
    assert send(a, 0, 5000, b"x").status_code == 413
    assert send(a, 0, 10, bytes(5 * 2**20)).status_code == 413
    assert send(a, 0, 10, b"12345").json() == {"received": 5}
    assert send(a, 3, 10, b"45").status_code == 409 and client.get(f"/api/submissions/{a}").json() == {"received": 5}
    assert send(b, 0, 10, b"1").status_code == 202 and send(c, 0, 10, b"1").status_code == 429
    assert send("../../etc", 0, 10, b"1").status_code == 404 and send("A" * 64, 0, 10, b"1").status_code == 404
    assert send(a, 5, 10, b"67890").status_code == 422  # complete, but another content than announced
    assert client.patch(f"/api/submissions/{a}", content=b"x").status_code == 400
    hasty = TestClient(Starlette(routes=Submissions(inbox, RateLimit(burst=3, a_second=0.01)).routes()), base_url=BOARD)
    answers = [hasty.get(f"/api/submissions/{a}") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [401] * 3 + [429] * 2 and int(answers[-1].headers["retry-after"]) > 90


def test_a_bucket_refills_with_time_and_forgets_old_callers() -> None:
    now = [0.0]
    limit = RateLimit(burst=2, a_second=0.5, clock=lambda: now[0])
    assert [limit.wait("a") for _ in range(3)] == [0.0, 0.0, 2.0] and limit.wait("b") == 0.0
    now[0] = 2.0
    assert limit.wait("a") == 0.0 and limit.wait("a") == 2.0


def test_no_submission_is_taken_unless_the_operator_says_so(tmp_path: Path) -> None:
    engine = open_database(default_url(tmp_path))
    client = TestClient(create_app(Site(engine=engine)), base_url=BOARD)
    assert client.get(f"/api/submissions/{digest(b'')}").status_code == 404


def test_a_token_never_travels_in_the_clear(bundle: Path) -> None:
    with pytest.raises(UsageError, match="use https"):
        sending.submit("http://board.example.org", bundle, "t")
    with pytest.raises(UsageError, match="no address of a board"):
        sending.submit("board.example.org", bundle, "t")


def test_tokens_on_the_command_line(harness_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(cli, ["leaderboard", "token", "create", "alice", "--signer", NAME]) == 0
    assert capsys.readouterr().out.startswith("hbt_")
    assert run_command(cli, ["leaderboard", "token", "revoke", "alice"]) == 0
    assert run_command(cli, ["leaderboard", "token", "list"]) == 0
    listed = capsys.readouterr().out
    assert "alice  revoked" in listed and NAME in listed and "hbt_" not in listed
