"""The tiny model's byte-level BPE: any text encodes, while the frames of its own world take one token each.

Merges may cross spaces but never a capitalised word, a line's label or a digit, so that names and roles are atoms and the fixed text
between them (tool schemas, call frames) collapses into long tokens. Prompts of the mini web are then about fifty tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TAGS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
LABEL = r"\n?[A-Z][a-z]+: "  # "Mentor: " at the head of a line
ATOMS = LABEL + r"|[A-Z][a-z]+|[0-9]|(?:(?!" + LABEL + r")[^A-Z0-9])+|[A-Z]"


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train on rendered conversations; ``vocabulary`` counts the special tokens and tags."""
    core = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(ATOMS), behavior="isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(TAGS),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        min_frequency=2,
    )
    core.train_from_iterator(_without_tags(texts), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.add_tokens(list(TAGS))
    tokenizer.chat_template = (Path(__file__).parent / "chat_template.jinja").read_text()
    return tokenizer


def _without_tags(texts: Iterable[str]) -> Iterable[str]:
    """Pieces between tags and special tokens, which are matched before BPE; a merge must not cross the assistant's header either,
    since what follows it is sampled and stands on its own."""
    for text in texts:
        text = text.replace("<|im_start|>assistant\n", "\0assistant\n\0")
        for tag in (*SPECIAL, *TAGS):
            text = text.replace(tag, "\0")
        yield from (piece for piece in text.split("\0") if piece)
