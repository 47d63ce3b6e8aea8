"""Every architecture compressed, reopened and used: rounding, a method that calibrates, one that folds, side-cars."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scrimp
from scrimp.cli.main import main

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("models", "calibrate")]
from architectures import ALL, BERT, DECODERS
from networks import WORDS, write_network

TEXT = " ".join(np.random.default_rng(0).choice(WORDS, 700))
#: AWQ and GPTQ see the very words that the loss is measured on.
METHODS = ("rtn", "gptq", "awq", "quip")


@pytest.fixture(scope="module", params=DECODERS)
def decoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_network(tmp_path_factory.mktemp("models") / request.param, **DECODERS[request.param])


def compressed(source: Path, out: Path, method: str, **wish: Any) -> Any:
    calibrate = {} if method == "rtn" else {"calibrate": TEXT, "calibrate_windows": 8}
    return scrimp.compress(source, out, format="int4:g32", method=method, **calibrate, **wish)


def test_methods_lose_little_and_the_store_opens_again(decoder: Path, tmp_path: Path) -> None:
    """Compressing verifies by itself that the reopened store gives the logits of what was made, bit for bit."""
    loss = {method: compressed(decoder, tmp_path / method, method, text=TEXT).loss.divergence for method in METHODS}
    kl = {method: found.kl_mean for method, found in loss.items()}
    assert all(0 < value < 0.2 for value in kl.values()), kl
    assert kl["gptq"] < kl["rtn"], kl


def test_a_joint_prefix_walks_through_both_networks(decoder: Path, tmp_path: Path) -> None:
    report = compressed(decoder, tmp_path / "out", "gptq", calibrate_prefix="joint")
    assert 4 < report.bits_per_weight < 10


def test_a_packed_store_is_the_same_network(decoder: Path, tmp_path: Path) -> None:
    for pack in (False, True):
        compressed(decoder, tmp_path / str(pack), "rtn", pack=pack)
    with scrimp.open(tmp_path / "True", threads=1) as one, scrimp.open(tmp_path / "False", threads=1) as two:
        assert np.array_equal(one.logits(range(30)), two.logits(range(30)))


def test_the_verbs_work_on_it(decoder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    verbs = (
        f"run {decoder} w1 --raw --max-tokens 4",
        f"inspect {decoder}",
        f"eval {decoder} --text {text} --context 32",
        f"bench {decoder} --prefill 8 --decode 4 --repeat 1",
    )
    for words in verbs:
        assert main(words.split()) in (0, 4), words  # 4: a random network predicts no text
    assert "error:" not in capsys.readouterr().err


def test_a_fold_into_norms_that_multiply_with_one_more_changes_nothing(tmp_path: Path) -> None:
    """AWQ at 8 bits, where rounding loses next to nothing."""
    source = write_network(tmp_path / "gemma3", **DECODERS["gemma3"])
    report = scrimp.compress(
        source, tmp_path / "out", format="int8:g32", method="awq", calibrate=TEXT, calibrate_windows=8, text=TEXT
    )
    assert report.loss is not None
    assert report.loss.divergence.kl_mean < 2e-3


def test_an_encoder_is_compressed_and_measured_on_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_network(tmp_path / "bert", **BERT)
    with scrimp.open(source, threads=1, arithmetic="f32") as model:
        original = model.embed(["w1 w2 w3", "w9"])
    for method in METHODS:
        compressed(source, tmp_path / method, method)
        with scrimp.open(tmp_path / method, threads=1) as model:
            assert np.all((model.embed(["w1 w2 w3", "w9"]) * original).sum(axis=1) > 0.95), method
    assert main(["compress", str(source), "-o", str(tmp_path / "out"), "--format", "int4:g32"]) == 0
    assert "no loss is measured: an encoder writes no text" in capsys.readouterr().err
    assert main(["compress", str(source), "-o", str(tmp_path / "small"), "--size", "170kB"]) == 0
    assert main(["compress", str(source), "-o", str(tmp_path / "no"), "--kl", "0.1"]) == 3
    with pytest.raises(scrimp.ScrimpError, match="is an encoder"):
        compressed(source, tmp_path / "measured", "rtn", text=TEXT)
    for verb in (f"run {source} w1", f"eval {source} --context 16", f"bench {source} --prefill 8 --decode 4"):
        assert main(verb.split()) == 3
        assert "is an encoder" in capsys.readouterr().err


def test_every_architecture_is_here() -> None:
    from scrimp.models import ARCHITECTURES

    assert {"llama", "qwen2"} | {str(config["model_type"]) for config in ALL.values()} == set(ARCHITECTURES)
