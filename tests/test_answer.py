"""What is taken for the answer and for the confidence in it; how sealed sets stay out of plain text in a log."""

from __future__ import annotations

import json

import pytest

from harness.answer import split_confidence
from harness.cipher import decrypt, digest_key, encrypt, seal, unseal
from harness.errors import DataError
from harness.records import attempt_record, judgement_record, question_and_gold
from harness.types import Attempt, Purpose, Score, ScoreStatus, Status, Task, Trajectory


@pytest.mark.parametrize(
    ("text", "answer", "confidence"),
    [
        ("杭州\n置信度：85%", "杭州", 0.85),
        ("杭州\n置信度: 85", "杭州", 0.85),
        ("杭州\n**置信度：８５％**", "杭州", 0.85),
        ("Paris\nConfidence: 100%", "Paris", 1.0),
        ("Paris\n\nconfidence level = 0.4\n", "Paris", 0.4),
        ("Paris\nConfidence: 1", "Paris", 0.01),
        ("Paris\n把握：0%", "Paris", 0.0),
        ("Paris\nConfidence: 70/100", "Paris", 0.7),
        ("Paris\nConfidence: 150%", "Paris", None),
        ("Paris\nConfidence: high", "Paris\nConfidence: high", None),
        ("Confidence: 80%", "Confidence: 80%", None),
        ("80%", "80%", None),
        ("line one\nline two", "line one\nline two", None),
        ("  Paris ", "Paris", None),
        ("", "", None),
    ],
)
def test_a_stated_confidence_is_taken_off_the_answer(text: str, answer: str, confidence: float | None) -> None:
    assert split_confidence(text) == (answer, confidence)


def test_a_cipher_text_comes_back_only_under_its_key() -> None:
    hidden = encrypt("问题 one", digest_key("canary"))
    assert decrypt(hidden, digest_key("canary")) == "问题 one"
    with pytest.raises(DataError, match="does not decrypt"):
        decrypt(hidden, digest_key("another"))
    with pytest.raises(DataError, match="does not decrypt"):
        decrypt("not base64!", b"k")
    with pytest.raises(DataError, match="holds plain text, expected base64"):
        decrypt("问题 one", b"k")
    with pytest.raises(DataError):
        unseal("b", seal("a", ["x"]))


def attempt(task: Task) -> Attempt:
    empty = Trajectory(contexts=(), spans=())
    return Attempt(
        id="eval/0/t/k0/0",
        task=task,
        purpose=Purpose.EVAL,
        trajectory=empty,
        target=(),
        turns=(),
        status=Status.ANSWERED,
        answer="given",
        confidence=0.3,
    )


def test_a_sealed_task_leaves_neither_question_nor_gold_in_the_log() -> None:
    task = Task(id="t", question="secret question", gold=("secret gold",), sealed=True)
    record = attempt_record(attempt(task), seconds=0.0)
    assert "secret" not in json.dumps(record)
    assert record["gold"] is None
    assert question_and_gold(record) == ("secret question", ("secret gold",))


def test_an_open_task_is_recorded_in_plain_text() -> None:
    record = attempt_record(attempt(Task(id="t", question="open question", gold=("a", "b"))), seconds=0.0)
    assert (record["question"], record["gold"], record["sealed"], record["confidence"]) == ("open question", ["a", "b"], None, 0.3)
    assert question_and_gold(record) == ("open question", ("a", "b"))


def test_a_judgement_keeps_its_evidence() -> None:
    score = Score(value=1.0, status=ScoreStatus.JUDGED, layer="llm", evidence={"model": "m", "raw": "correct"})
    assert judgement_record("a", "llm:m", score)["evidence"] == {"model": "m", "raw": "correct"}
