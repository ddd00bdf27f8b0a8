#!/usr/bin/env python3
"""Writes a random Llama of 1.5 MB that a real engine can serve; nothing is downloaded.

    .vllm/venv/bin/python tests/support/tiny_model.py DIRECTORY

It has the ids of the scripted engine (scripted_tokens.py): one token per UTF-8 byte, so lengths can be worked out by
hand. The weights are wide enough that the greedy token depends on the whole context: a request that goes on from a
wrong place gives wrong tokens. Always the same bytes. Needs numpy and safetensors, which come with vLLM.
"""

import json
import pathlib
import sys

import numpy
from safetensors.numpy import save_file

from scripted_tokens import BOS, BYTE_OF, EOS, MARKERS, PAD, VOCABULARY

SEED, SPREAD = 7, 1.5
LAYERS, HIDDEN, INNER, HEADS, KV_HEADS, HEAD = 2, 128, 256, 4, 2, 32
CONTEXT = 4096
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}")


def letters():
    """What GPT-2 writes for each byte, by id: printable bytes stand for themselves, the others follow U+0100."""
    others = iter(range(256, 512))
    return {token: chr(byte) if byte in {*range(33, 127), *range(161, 173), *range(174, 256)} else chr(next(others))
            for token, byte in sorted(BYTE_OF.items())}


def tokenizer():
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
        "added_tokens": [
            {"id": token, "content": marker, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False} for marker, token in MARKERS.items()],
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": MARKERS | {letter: token for token, letter in letters().items()}, "merges": []}}


def weights():
    """Under the names that Hugging Face gives those of a Llama."""
    chance = numpy.random.default_rng(SEED)

    def matrix(rows, columns, gain=1.0):
        scale = gain * SPREAD / numpy.sqrt(columns)
        return (chance.standard_normal((rows, columns)) * scale).astype(numpy.float32)

    found = {"model.embed_tokens.weight": chance.standard_normal((VOCABULARY, HIDDEN)).astype(numpy.float32),
             "model.norm.weight": numpy.ones(HIDDEN, numpy.float32),
             "lm_head.weight": matrix(VOCABULARY, HIDDEN, 4.0)}
    for number in range(LAYERS):
        shapes = {"self_attn.q_proj": (HEADS * HEAD, HIDDEN), "self_attn.k_proj": (KV_HEADS * HEAD, HIDDEN),
                  "self_attn.v_proj": (KV_HEADS * HEAD, HIDDEN, 2.0), "self_attn.o_proj": (HIDDEN, HEADS * HEAD, 2.0),
                  "mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN), "mlp.down_proj": (HIDDEN, INNER)}
        layer = {name: matrix(*shape) for name, shape in shapes.items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            layer[norm] = numpy.ones(HIDDEN, numpy.float32)
        found |= {f"model.layers.{number}.{name}.weight": value for name, value in layer.items()}
    return found


def main(directory):
    directory.mkdir(parents=True, exist_ok=True)

    def write(name, document):
        (directory / name).write_text(json.dumps(document, indent=1) + "\n")

    ends = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}
    write("tokenizer.json", tokenizer())
    write("tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>",
        "clean_up_tokenization_spaces": False, "chat_template": CHAT_TEMPLATE})
    write("generation_config.json", ends)
    save_file(weights(), str(directory / "model.safetensors"), {"format": "pt"})
    write("config.json", ends | {  # last: its presence says that the model is whole
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float32",
        "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD,
        "max_position_embeddings": CONTEXT, "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False})


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
