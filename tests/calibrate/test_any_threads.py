"""The same model, bit for bit, whatever the number of threads: of the engine, of quantization and of NumPy's BLAS."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from networks import WORDS, write_network

CALL = """
import sys, scrimp
network, out, text, format, method = sys.argv[1:]
from pathlib import Path
scrimp.compress(network, out, format=format, method=method, calibrate=Path(text), calibrate_windows=3)
"""


@pytest.mark.parametrize(("format", "method"), [("int3:g64", "gptq"), ("int2z:g64", "gptq"), ("nf4:row", "gptq")])
def test_threads_change_no_bit_of_the_model(format, method, tmp_path):
    # wide enough for BLAS to use more than one thread, where it is asked
    sides = {"hidden_size": 192, "intermediate_size": 640, "num_hidden_layers": 1, "max_position_embeddings": 128}
    network = write_network(tmp_path / "network", **sides)
    text = tmp_path / "text.txt"
    text.write_text(" ".join(np.random.default_rng(2).choice(WORDS, 400)))
    found = set()
    for threads, blas in ((1, 1), (2, 2), (5, 1)):
        out = tmp_path / f"out{threads}"
        numbers = {name: str(blas) for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        subprocess.run(
            [sys.executable, "-c", CALL, str(network), str(out), str(text), format, method],
            env={**os.environ, **numbers, "SCRIMP_THREADS": str(threads)}, check=True,
        )  # fmt: skip
        found.add(hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest())
    assert len(found) == 1
