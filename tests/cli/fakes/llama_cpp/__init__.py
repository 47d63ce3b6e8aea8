"""What scrimp calls of llama-cpp-python, doing nothing in a known time and writing down what it was asked."""

import ctypes
import os
import time
from types import SimpleNamespace

__version__ = "0.0.fake"
llama_token = ctypes.c_int32
MS_PER_TOKEN = 0.5
_kept = []


def _note(*words):
    with open(os.environ["FAKE_LLAMA_LOG"], "a", encoding="utf-8") as log:
        print(*words, file=log)


def llama_log_callback(function):
    return function


def llama_log_set(callback, data):
    _kept.append(callback)


def llama_backend_init():
    _note("imported")


def llama_model_default_params():
    return SimpleNamespace(n_gpu_layers=99)


def llama_model_load_from_file(path, settings):
    _note("load", path.decode(), settings.n_gpu_layers)
    return None if os.environ.get("FAKE_LLAMA_FAILS") == "load" else object()


def llama_context_default_params():
    return SimpleNamespace(n_ctx=0, n_batch=0, n_ubatch=0, n_threads=0, n_threads_batch=0)


def llama_init_from_model(model, settings):
    _note("context", settings.n_ctx, settings.n_threads, settings.n_threads_batch)
    return object()


def llama_model_get_vocab(model):
    return object()


def llama_vocab_n_tokens(vocabulary):
    return 40


def llama_get_memory(context):
    return object()


def llama_memory_clear(memory, data):
    _note("clear")


def llama_batch_get_one(tokens, count):
    return list(tokens)[:count]


def llama_decode(context, tokens):
    if os.environ.get("FAKE_LLAMA_FAILS") == "crash":
        os._exit(7)
    _note("decode", *tokens)
    time.sleep(MS_PER_TOKEN * len(tokens) / 1000)
    return 1 if os.environ.get("FAKE_LLAMA_FAILS") == "decode" else 0


def llama_synchronize(context):
    pass


def llama_print_system_info():
    return b"FAKE = 1 \n"
