"""What a start of ``scrimp run`` costs: it imports only what running a store needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import write_tiny_model

from scrimp.cli.main import main

#: What only other work needs: encoding, training, downloading, other architectures, other kinds of files.
OTHER_WORK = (
    "numpy.random", "concurrent.futures", "torch", "jinja2", "rich", "urllib.request", "http", "tomllib",
    *(f"scrimp.formats.{name}" for name in (
        "codec", "search", "affine", "scales", "superblocks", "kmeans", "gguf_rules", "contexts", "cost")),
    *(f"scrimp.models.{name}" for name in ("bert", "cnn", "gemma3", "qwen2", "qwen3", "bitnet")),
    *(f"scrimp.sources.{name}" for name in ("pull", "wheel", "catalogue", "hub", "receipt", "gguf", "huggingface")),
    *(f"scrimp.store.{name}" for name in ("coded", "contents", "partial", "documents")),
    *(f"scrimp.text.{name}" for name in ("chat", "from_gguf", "from_llama2c", "sentencepiece", "pretokenizers")),
    "scrimp.integer.model", "scrimp.quantize", "scrimp.measure", "scrimp.train", "scrimp.calibrate", "scrimp.export",
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("start")
    tiny = write_tiny_model(directory / "tiny")
    assert main(["compress", str(tiny), "-o", str(directory / "store"), "--format", "int4:g32", "--no-loss"]) == 0
    return directory / "store"


def test_running_a_store_imports_nothing_of_other_work(store: Path) -> None:
    code = (
        "import sys; from scrimp.cli.main import main; assert main(sys.argv[1:]) == 0; "
        "print(*sys.modules, file=sys.stderr)"
    )
    arguments = ["run", str(store), "w1 w2", "--raw", "--max-tokens", "2", "--temperature", "0"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    imported = set(done.stderr.split())
    assert "scrimp.store.open" in imported, done.stderr
    assert not imported.intersection(OTHER_WORK)
