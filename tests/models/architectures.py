"""A tiny config of every architecture that came after llama and qwen2. Test data only."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 50, "max_position_embeddings": 32, "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}  # fmt: skip
QWEN3 = {**SMALL, "model_type": "qwen3", "head_dim": 24, "hidden_act": "silu"}
BITNET = {**SMALL, "model_type": "bitnet", "hidden_act": "relu2"}
GEMMA3 = {
    **SMALL, "model_type": "gemma3_text", "head_dim": 24, "sliding_window": 5, "sliding_window_pattern": 2,
    "final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 20,
    "hidden_activation": "gelu_pytorch_tanh",
}  # fmt: skip
BERT = {**SMALL, "model_type": "bert", "hidden_act": "gelu", "layer_norm_eps": 1e-12}
DECODERS = {"qwen3": QWEN3, "bitnet": BITNET, "gemma3": GEMMA3}
ALL = {**DECODERS, "bert": BERT}
