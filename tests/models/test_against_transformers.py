"""The oracle: transformers' own networks, tiny and random, against our Program in the engine, in float32."""

from functools import partial

import numpy as np
import pytest

from scrimp import models
from scrimp.engine import Engine
from scrimp.formats import parse
from scrimp.tensors import from_floats

torch = pytest.importorskip("torch", reason="torch is the oracle")
transformers = pytest.importorskip("transformers", reason="transformers is the oracle")

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 172,
    "num_hidden_layers": 3,
    "vocab_size": 101,
    "max_position_embeddings": 256,
}
LLAMA3_SCALING = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                  "original_max_position_embeddings": 64}  # fmt: skip

MIXED = ["full_attention", "sliding_attention", "sliding_attention"]

CASES = {
    "llama, grouped queries": ("llama", {"num_attention_heads": 8, "num_key_value_heads": 2}),
    "llama, tied head": ("llama", {"num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": True}),
    "llama, one key head": ("llama", {"num_attention_heads": 8, "num_key_value_heads": 1, "rms_norm_eps": 1e-5}),
    "llama, wide heads": ("llama", {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24}),
    "llama 3.1 rotary": ("llama", {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
                                   "rope_parameters": {"rope_theta": 500000.0, **LLAMA3_SCALING}}),
    "llama, linear rotary": ("llama", {"num_attention_heads": 4, "num_key_value_heads": 2,
                                       "rope_parameters": {"rope_theta": 1e4, "rope_type": "linear", "factor": 4.0}}),
    "qwen2, biases": ("qwen2", {"num_attention_heads": 4, "num_key_value_heads": 2}),
    "qwen2, tied": ("qwen2", {"num_attention_heads": 8, "num_key_value_heads": 4, "tie_word_embeddings": True}),
    "qwen3, norms of q and k": ("qwen3", {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24}),
    "qwen3, tied": ("qwen3", {"num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 8,
                              "tie_word_embeddings": True}),
    "bitnet": ("bitnet", {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}),
    "bitnet, a head of its own": ("bitnet", {"num_attention_heads": 8, "num_key_value_heads": 8,
                                             "tie_word_embeddings": False, "rms_norm_eps": 1e-3}),
    "gemma3": ("gemma3_text", {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24, "sliding_window": 9,
                               "sliding_window_pattern": 2, "query_pre_attn_scalar": 20}),
    "gemma3, one position": ("gemma3_text", {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 16,
                                             "sliding_window": 1, "layer_types": MIXED}),
    "gemma3, wide window": ("gemma3_text", {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32,
                                            "sliding_window": 70, "layer_types": MIXED, "final_logit_softcapping": 2.0,
                                            "tie_word_embeddings": False}),
    "gemma3, rotary": ("gemma3_text", {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
                                       "sliding_window": 33, "layer_types": MIXED, "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 2e4}}}),
    "gemma3, capped scores": ("gemma3_text", {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
                                              "sliding_window": 12, "layer_types": MIXED,
                                              "attn_logit_softcapping": 1.5}),
}  # fmt: skip


def oracle(kind, options):
    torch.manual_seed(7)
    config = transformers.AutoConfig.for_model(kind, **SMALL, **options)
    network = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval().float()
    with torch.no_grad():  # the default initialisation is too tame to show a wrong rotation or a missing norm
        for parameter in network.parameters():
            parameter.copy_(
                torch.randn_like(parameter) * (0.5 if parameter.ndim == 1 else 1.5 / parameter.shape[-1] ** 0.5)
            )
            if parameter.ndim == 1:
                parameter.add_(1.0)
    return network


def engine_of(network, isa, **settings):
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    parsed, program = models.build(network.config.to_dict())
    matrices = {name: from_floats(parse("f32"), state[name]) for name in program.matrices}
    vectors = {name: state[name] for name in program.vectors}
    return Engine(program, matrices, vectors, context=parsed.context, threads=2, isa=isa, arithmetic="f32", **settings)


def reference_logits(network, tokens):
    with torch.no_grad():
        return network(torch.tensor(tokens)[None]).logits[0].numpy()


def cap_scores(cap, monkeypatch):
    """transformers' Gemma 3 reads a cap of scores from its config and does not hand it to its attention."""
    module = transformers.models.gemma3.modeling_gemma3
    monkeypatch.setattr(module, "eager_attention_forward", partial(module.eager_attention_forward, softcap=cap))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_logits_equal_transformers(case, isa, monkeypatch):
    network = oracle(*CASES[case])
    if cap := CASES[case][1].get("attn_logit_softcapping"):
        cap_scores(cap, monkeypatch)
    tokens = np.random.default_rng(0).integers(0, SMALL["vocab_size"], 150)
    ours = engine_of(network, isa).forward(tokens, 0, all_logits=True)
    assert np.abs(ours - reference_logits(network, tokens)).max() < 2e-4  # found: 5e-5


@pytest.mark.parametrize(
    "case", ["llama, grouped queries", "qwen2, biases", "qwen3, tied", "bitnet", "gemma3", "gemma3, wide window"]
)
def test_one_token_at_a_time_equals_many(case, isa):
    network = oracle(*CASES[case])
    tokens = np.random.default_rng(1).integers(0, SMALL["vocab_size"], 40)
    engine = engine_of(network, isa)
    many = engine.forward(tokens, 0, all_logits=True)
    single = np.stack([engine.forward(tokens[i : i + 1], i)[0] for i in range(tokens.size)])
    assert np.abs(single - many).max() < 1e-4
    chunked = engine_of(network, isa, chunk=7).forward(tokens, 0, all_logits=True)
    assert np.abs(chunked - many).max() < 1e-4


ENCODERS = {
    "bert": {"num_attention_heads": 4},
    "bert, wide heads": {"num_attention_heads": 2, "hidden_act": "gelu_new", "layer_norm_eps": 1e-5},
    "bert, one token type": {"num_attention_heads": 8, "type_vocab_size": 1},
}


@pytest.mark.parametrize("length", [1, 31, 33, 200])
@pytest.mark.parametrize("case", ENCODERS, ids=str)
def test_hidden_states_equal_transformers(case, length, isa):
    torch.manual_seed(7)
    config = transformers.BertConfig(**SMALL, **ENCODERS[case], attn_implementation="eager")
    network = transformers.BertModel(config, add_pooling_layer=False).eval().float()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(
                torch.randn_like(parameter) * 1.5 / parameter.shape[-1] ** (0.5 if parameter.ndim > 1 else 0)
            )
    tokens = np.random.default_rng(0).integers(0, SMALL["vocab_size"], length)
    with torch.no_grad():
        theirs = network(torch.tensor(tokens)[None]).last_hidden_state[0].numpy()
    ours = engine_of(network, isa).forward(tokens, 0, all_logits=True)
    assert np.abs(ours - theirs).max() < 1e-4
