"""Settings of the benchmarks that lm-eval defines."""

from __future__ import annotations

from typing import Literal

from harness.config import Section, identity, operational


class LMEvalConfig(Section):
    """How a model is asked; what is asked and how it is scored is lm-eval's."""

    answer_tokens: int | None = identity(None, ge=1)
    """Longest answer in tokens, thought excluded (null: gpqa 4,096, ifeval 1,280, truthfulqa 256, other tasks what they say themselves)."""

    thinking_tokens: int = identity(32_768, ge=0)
    """Tokens added to that where the model's chat template knows thoughts, or an endpoint's replies show some; lm-eval's own limits would
    cut most of them."""

    chat_template: Literal["auto", "always", "never"] = identity("auto")
    """Whether prompts are put into the chat template; auto = where the model generates, not where given continuations are scored."""

    include: str | None = operational(None)
    """Folder with YAML files that define tasks of your own, in lm-eval's form, for lm-eval:TASK; their content counts as the task's
    version."""
