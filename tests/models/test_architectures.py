"""Configs of a stranger: what is missing, out of range or not built here is refused by name, in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from architectures import ALL, BERT, BITNET, GEMMA3, QWEN3
from numpy_network import interpret, network

from scrimp import models
from scrimp.engine import Engine
from scrimp.errors import Refused
from scrimp.formats import parse
from scrimp.tensors import from_floats

HOSTILE: list[tuple[dict[str, Any], str, object, str]] = [
    (config, key, value, key)
    for config in (QWEN3, BITNET, GEMMA3, BERT)
    for key, value in [
        ("num_attention_heads", 0), ("num_attention_heads", -4), ("num_attention_heads", 5000),
        ("num_attention_heads", "4"), ("hidden_size", 0), ("hidden_size", 2**40), ("num_hidden_layers", 10**9),
        ("intermediate_size", None), ("vocab_size", True), ("vocab_size", 2**30), ("max_position_embeddings", -1),
    ]
] + [
    (GEMMA3, "sliding_window", -5, "sliding_window"),
    (GEMMA3, "sliding_window", 0, "sliding_window"),
    (GEMMA3, "sliding_window", 1.5, "sliding_window"),
    (GEMMA3, "sliding_window_pattern", 0, "sliding_window_pattern"),
    (GEMMA3, "layer_types", ["sliding_attention"], "layer_types"),
    (GEMMA3, "layer_types", ["sliding_attention", "full_attention", "chunked_attention"], "layer_types"),
    (GEMMA3, "layer_types", "full_attention", "layer_types"),
    (GEMMA3, "final_logit_softcapping", 0, "final_logit_softcapping"),
    (GEMMA3, "final_logit_softcapping", -30.0, "final_logit_softcapping"),
    (GEMMA3, "attn_logit_softcapping", float("nan"), "attn_logit_softcapping"),
    (GEMMA3, "query_pre_attn_scalar", 0, "query_pre_attn_scalar"),
    (GEMMA3, "hidden_activation", "gelu", "hidden_activation 'gelu'"),
    (GEMMA3, "use_bidirectional_attention", True, "use_bidirectional_attention"),
    (GEMMA3, "attention_bias", True, "attention_bias"),
    (GEMMA3, "rope_parameters", {"rope_type": "default"}, "for each kind of layer"),
    (GEMMA3, "rope_parameters", {"full_attention": {"rope_type": "yarn"}}, "'yarn'"),
    (GEMMA3, "rope_parameters", {"full_attention": 3}, "rope_parameters"),
    (GEMMA3, "rope_local_base_freq", -1.0, "rope_theta"),
    (GEMMA3, "head_dim", 6, "do not fit together"),
    (QWEN3, "attention_bias", True, "attention_bias"),
    (QWEN3, "use_sliding_window", True, "use_sliding_window"),
    (QWEN3, "hidden_act", "gelu", "hidden_act 'gelu'"),
    (QWEN3, "num_key_value_heads", 3, "do not fit together"),
    (BITNET, "hidden_act", "silu", "hidden_act 'silu'"),
    (BITNET, "head_dim", 8, "not as wide as the network"),
    (BITNET, "attention_bias", True, "attention_bias"),
    (BERT, "hidden_act", "relu", "hidden_act 'relu'"),
    (BERT, "position_embedding_type", "relative_key", "position_embedding_type"),
    (BERT, "is_decoder", True, "is_decoder"),
    (BERT, "num_attention_heads", 3, "does not make 3 heads"),
    (BERT, "type_vocab_size", 0, "type_vocab_size"),
    (BERT, "layer_norm_eps", -1.0, "layer_norm_eps"),
    (BERT, "sentence_embedding", {"pooling": "max"}, "sentence_embedding"),
    (BERT, "sentence_embedding", {"max_tokens": 0}, "max_tokens"),
    (BERT, "sentence_embedding", [1], "sentence_embedding"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "key", "value", "says"), HOSTILE)
def test_a_hostile_config_is_refused_by_name_in_one_line(
    config: dict[str, Any], key: str, value: object, says: str
) -> None:
    with pytest.raises(Refused, match=says) as caught:
        models.build({**config, key: value})
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("name", ["gemma3", "mamba", "", None, 3])
def test_an_architecture_that_is_not_built_is_refused_with_those_that_are(name: object) -> None:
    with pytest.raises(Refused, match="not supported") as caught:
        models.build({**GEMMA3, "model_type": name})
    assert caught.value.hint


@pytest.mark.parametrize("config", ALL.values(), ids=ALL)
def test_the_engine_is_what_the_operations_say(config: dict[str, Any], isa: str) -> None:
    """Against the same Program in NumPy and float64, on one thread and on three."""
    program, weights = network(config)
    tokens = np.random.default_rng(0).integers(0, 50, 32)
    exact = interpret(program, weights, tokens)
    matrices = {name: from_floats(parse("f32"), weights[name]) for name in program.matrices}
    vectors = {name: weights[name] for name in program.vectors}
    found = [
        Engine(program, matrices, vectors, context=32, threads=threads, isa=isa, arithmetic="f32").forward(
            tokens, 0, all_logits=True
        )
        for threads in (1, 3)
    ]
    assert np.array_equal(*found)
    assert np.abs(found[0] - exact).max() < 5e-5 * np.abs(exact).max()


def test_older_gemma_configs_say_the_same_as_newer_ones() -> None:
    older = {
        **GEMMA3,
        "rope_theta": 5e4,
        "rope_local_base_freq": 300.0,
        "rope_scaling": {"type": "linear", "factor": 8},
    }
    newer = {
        **GEMMA3,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e4},
                            "sliding_attention": {"rope_type": "default", "rope_theta": 300.0}},
    }  # fmt: skip
    assert models.build(older)[0] == models.build(newer)[0]
