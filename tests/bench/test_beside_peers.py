"""bench/beside_peers.py with stand-ins for the peers, and its random files read by software no one here wrote."""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))
import beside_peers
import random_gguf

from scrimp.sources.shapes import SHAPES

SHAPE = SHAPES["tiny"] | {"hidden_size": 256, "intermediate_size": 512, "vocab_size": 300}
#: Runs as llama-bench does, but that it says what it was asked.
STAND_IN = """#!/bin/sh
echo "warming up"
echo '[
{"n_prompt": 8, "n_gen": 0, "samples_ts": [1.0, 100.0]}, {"n_prompt": 0, "n_gen": 2, "samples_ts": [1.0, 10.0]}]'
echo "$@" >> "$0.asked"
"""


@pytest.mark.parametrize("name", ["Q4_0", "Q4_K", "Q6_K", "TQ2_0"])
def test_the_gguf_package_reads_every_block_that_it_knows(name, tmp_path):
    random_gguf.write_random_gguf(tmp_path / "random.gguf", SHAPE, name)
    reader = gguf.GGUFReader(tmp_path / "random.gguf")
    found = {tensor.name: tensor for tensor in reader.tensors}
    assert {name: tuple(int(n) for n in tensor.shape[::-1]) for name, tensor in found.items()} == random_gguf.tensors(
        SHAPE
    )
    tensor = found["blk.1.ffn_down.weight"]
    assert tensor.tensor_type.name == name
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    assert np.isfinite(values).all()
    assert 0.005 < values.std() < 0.5
    if name == "TQ2_0":
        assert set(np.unique(values / random_gguf.BLOCKS[name].scale)) == {-1, 0, 1}


@pytest.mark.parametrize(("name", "bits", "more"), [("I2_S", 2, 32), ("IQ2_BN", 2, 4 * 512), ("IQ4_KS", 4.25, 4 * 512)])
def test_a_type_that_only_a_peer_knows_has_its_bytes(name, bits, more):
    block = random_gguf.BLOCKS[name]
    made = random_gguf.random_matrix(block, 512, 256, np.random.default_rng(0))
    assert made.size == 512 * 256 * bits / 8 + more
    at = slice(-32, -28) if block.tensor_scale else slice(0, 4)
    assert made[at].view(np.float32)[0] == block.scale


def test_every_engine_takes_its_turns_and_a_second_run_adds_rounds(tmp_path, monkeypatch, capsys):
    program, kept = tmp_path / "llama-bench", tmp_path / "turns.json"
    program.write_text(STAND_IN)
    program.chmod(0o755)
    sides = (beside_peers.Side("ik_llama.cpp", "Q4_0", ("-rtr", "1")), beside_peers.Side("llama.cpp", "Q4_0"))
    monkeypatch.setattr(beside_peers, "SHAPES", {"tiny": SHAPE})
    monkeypatch.setattr(beside_peers, "CASES", {"tiny:int4:g32": sides})
    arguments = ["beside_peers", "tiny:int4:g32", "--ik", str(program), "--prefill", "8", "--decode", "2", "--rounds",
                 "2", "--work", str(tmp_path / "work"), "--json", str(kept)]  # fmt: skip
    monkeypatch.setattr(sys, "argv", arguments)
    assert beside_peers.main() == 0
    assert beside_peers.main() == 0
    printed = capsys.readouterr().out
    rounds = json.loads(kept.read_text())["rounds"]
    assert len(rounds) == 4
    assert all(set(one["turns"]) == {"scrimp", "ik_llama.cpp Q4_0 -rtr 1"} for one in rounds)
    assert rounds[0]["turns"]["ik_llama.cpp Q4_0 -rtr 1"] == {"prefill": 100, "decode": 10}
    assert "medians of 4 rounds" in printed
    asked = (tmp_path / "llama-bench.asked").read_text().splitlines()
    assert len(asked) == 4
    assert asked[0].endswith("-t 2 -p 8 -n 2 -o json -w 0 -r 2 -rtr 1")


def test_a_peer_that_fails_says_why(tmp_path, monkeypatch, capsys):
    program = tmp_path / "llama-bench"
    program.write_text("#!/bin/sh\necho 'no such model' >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(beside_peers, "SHAPES", {"tiny": SHAPE})
    monkeypatch.setattr(beside_peers, "CASES", {"tiny:int4:g32": (beside_peers.Side("llama.cpp", "Q4_0"),)})
    monkeypatch.setattr(
        sys, "argv", ["beside_peers", "tiny:int4:g32", "--llama", str(program), "--work", str(tmp_path)]
    )
    assert beside_peers.main() != 0
    assert "ended with 3: no such model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--rounds", "0"], "at least 1"),
        (["--ik", "no-such-file"], "no-such-file is no program"),
        (["--llama", "."], "is no program"),
        (["--json", "no-such-directory/x.json"], "no directory"),
        (["--json", "broken.json"], "no file of ours"),
        (["--json", "list.json"], "no file of ours"),
        (["--json", "rounds.json"], "no file of ours"),
    ],
)
def test_wrong_arguments_are_known_before_anything_is_measured(more, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = {"case": "smollm2-135m", "threads": 2, "prefill": 256, "decode": 64}
    for name, text in (("broken", "{broken"), ("list", "[]"), ("rounds", json.dumps({"asked": asked}))):
        (tmp_path / f"{name}.json").write_text(text)
    monkeypatch.setattr(sys, "argv", ["beside_peers.py", "smollm2-135m", *more])
    monkeypatch.setattr(beside_peers, "rounds", lambda *given: pytest.fail("measured"))
    with pytest.raises(SystemExit) as ended:
        beside_peers.main()
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
