"""llama.cpp in a process of its own, which runs only when it is told to. Imports nothing of scrimp: the Python of
another environment can run this file.

Arguments: one JSON object ``{path, threads, prefill, decode}``. Answers a line of JSON for itself once it is warm, then
one for each line on stdin; ``{"error": …}`` is the last one. llama.cpp is driven through its C interface (one
llama_decode per prompt or token), so that no Python of its binding is counted. Logits of the last token only, nothing
is sampled, and the key/value cache is float16: as in ours.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import import_module
from time import perf_counter
from typing import Any

#: Tokens per second of each phase.
Turn = Callable[[], dict[str, float]]
#: Of one llama_decode; its default.
BATCH = 512


def token(i: int, vocabulary: int) -> int:
    """The same meaningless prompt for both."""
    return (7919 * i) % vocabulary


def serve(open_engine: Callable[..., tuple[Turn, dict[str, Any]]], arguments: str) -> None:
    """Open an engine, warm it up, and take a turn for every line on stdin."""

    def answer(words: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(words) + "\n")
        sys.stdout.flush()

    try:
        turn, facts = open_engine(**json.loads(arguments))
        turn()
        answer(facts)
        for _ in sys.stdin:
            answer(turn())
    except Exception as error:  # whatever it is, the other side has to tell it in a line
        answer({"error": f"{type(error).__name__}: {error}".splitlines()[0]})


def llama_cpp(path: str, threads: int, prefill: int, decode: int) -> tuple[Turn, dict[str, Any]]:
    """The model opened by llama.cpp, and what this build of it is."""
    c = import_module("llama_cpp")
    silence = c.llama_log_callback(lambda level, text, data: None)
    c.llama_log_set(silence, None)
    c.llama_backend_init()
    model_settings = c.llama_model_default_params()
    model_settings.n_gpu_layers = 0
    model = c.llama_model_load_from_file(path.encode(), model_settings)
    if not model:
        raise OSError(f"llama.cpp cannot open {path}")
    settings = c.llama_context_default_params()
    settings.n_ctx = prefill + decode
    settings.n_batch = settings.n_ubatch = BATCH
    settings.n_threads = settings.n_threads_batch = threads
    context = c.llama_init_from_model(model, settings)
    if not context:
        raise MemoryError(f"llama.cpp has no room for {prefill + decode} positions")
    vocabulary = c.llama_vocab_n_tokens(c.llama_model_get_vocab(model))
    tokens = [token(i, vocabulary) for i in range(prefill + decode)]
    cuts = [(at, min(at + BATCH, prefill)) for at in range(0, prefill, BATCH)]
    prompt = [(c.llama_token * (end - at))(*tokens[at:end]) for at, end in cuts]
    singles = [(c.llama_token * 1)(one) for one in tokens[prefill:]]
    memory = c.llama_get_memory(context)

    def run(pieces: list[Any]) -> float:
        begin = perf_counter()
        for piece in pieces:
            if c.llama_decode(context, c.llama_batch_get_one(piece, len(piece))):
                raise RuntimeError("llama_decode failed")
            c.llama_synchronize(context)
        return perf_counter() - begin

    def turn(_keep_alive: object = silence) -> dict[str, float]:
        c.llama_memory_clear(memory, False)
        return {"prefill": prefill / run(prompt), "decode": decode / run(singles)}

    return turn, {"version": c.__version__, "isa": c.llama_print_system_info().decode().strip()}


if __name__ == "__main__":
    serve(llama_cpp, sys.argv[1])
