"""``scrimp bench`` as a user types it, on a whole tiny model."""

import json

import pytest
from tiny_model import write_tiny_model

from scrimp.cli.main import main
from scrimp.formats import cost

KEYS = {
    "prefill_tokens_per_s", "decode_tokens_per_s", "bytes_per_token", "decode_gb_per_s", "memory_read_gb_per_s",
    "load_ms", "first_token_ms", "rss_peak_bytes",
    "page_faults_minor", "page_faults_major", "threads", "isa", "profile",
    "energy_modelled", "cache_read_gb_per_s", "int8_gmac_per_s", "f32_gmac_per_s", "bf16_gmac_per_s",
    "prefill_gmac_per_s",
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def run(model, *arguments):
    return main(
        ["bench", str(model), "--prefill", "16", "--decode", "8", "--repeat", "3", "--threads", "1", *arguments]
    )


def test_json_has_the_keys_of_the_contract(model, capsys):
    assert run(model, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) >= KEYS
    for rate in (found["prefill_tokens_per_s"], found["decode_tokens_per_s"]):
        assert set(rate) == {"median", "min", "max", "n"}
        assert 0 < rate["min"] <= rate["median"] <= rate["max"]
        assert rate["n"] == 3
    assert found["threads"] == 1
    assert found["profile"] == []
    assert found["decode_gb_per_s"] == pytest.approx(
        found["bytes_per_token"] * found["decode_tokens_per_s"]["median"] / 1e9, rel=1e-9
    )
    assert 0 < found["load_ms"] < found["first_token_ms"]
    assert found["rss_peak_bytes"] > 10**7, "no Python with NumPy is smaller"


def test_bytes_per_token_are_those_of_the_weights_and_the_cache(model, capsys):
    assert run(model, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    head = 32 * 32  # 24 words in tiles of 16 rows
    matrices = 32 * 32 * 2 + 16 * 32 * 2 + 64 * 32 * 3 + head  # q, o; k, v; gate, up, down; the head
    embedding_row = 4 * head // 24
    norms, cache = 3 * 32, 2 * 2 * 8 * (16 + 8 // 2 + 1) * 2
    assert found["bytes_per_token"] == 4 * matrices + embedding_row + 4 * norms + cache


def test_modelled_energy_is_operations_and_bytes_of_the_named_node(model, capsys):
    found = {}
    for node in ("45nm", "7nm"):
        assert run(model, "--node", node, "--json") == 0
        found[node] = json.loads(capsys.readouterr().out)
        assert found[node]["energy_modelled"]["node"] == node
    energy = found["45nm"]["energy_modelled"]
    assert energy["total_mj"] == energy["compute_mj"] + energy["memory_mj"]
    assert energy["memory_mj"] == pytest.approx(8 * found["45nm"]["bytes_per_token"] * 1300 / 64 / 1e9)
    products = 32 * 32 * 2 + 16 * 32 * 2 + 64 * 32 * 3 + 24 * 32
    half = cost.of("f16").energy_pj_mac
    attention = 2 * 4 * 8 * (16 + 8 // 2 + 1)
    assert energy["compute_mj"] == pytest.approx((4.6 * products + half * attention) / 1e9, rel=1e-6)
    assert found["7nm"]["energy_modelled"]["compute_mj"] < energy["compute_mj"]


def test_a_node_without_a_table_is_a_usage_error(model, capsys):
    assert main(["bench", str(model), "--node", "5nm"]) == 2
    assert "no table of energies for '5nm'" in capsys.readouterr().err


def test_profile_names_each_sort_of_operation_once_a_phase(model, capsys):
    assert run(model, "--profile", "--json") == 0
    profile = json.loads(capsys.readouterr().out)["profile"]
    for phase, calls in (("prefill", 1), ("decode", 8)):
        found = {cost["op"]: cost for cost in profile if cost["phase"] == phase}
        assert len(found) == len([cost for cost in profile if cost["phase"] == phase])
        assert found["linear gate_proj up_proj"]["calls"] == calls
        assert found["linear gate_proj up_proj"]["bytes"] == calls * 4 * 2 * 64 * 32
        assert all(cost["seconds"] >= 0 for cost in found.values())


def test_a_table_for_people(model, capsys):
    assert run(model, "--profile") == 0
    printed = capsys.readouterr().out
    assert "% of the memory ceiling" in printed
    assert "energy per token, modelled (45nm)" in printed
    assert "linear gate_proj up_proj" in printed


@pytest.mark.parametrize("flag", ["--prefill", "--decode", "--repeat"])
def test_nothing_to_measure_is_a_usage_error(model, flag, capsys):
    assert main(["bench", str(model), flag, "0"]) == 2
    assert f"{flag} is 0" in capsys.readouterr().err


def test_more_tokens_than_the_context_is_a_usage_error(model, capsys):
    assert main(["bench", str(model), "--prefill", "60", "--decode", "5"]) == 2
    assert "65" in capsys.readouterr().err


def test_a_shape_needs_no_model(capsys):
    arguments = ["bench", "--shape", "tiny:int4:g32", "--prefill", "8", "--decode", "2", "--repeat", "1", "--json"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) >= KEYS
    assert found["model"] == "tiny:int4:g32"
    body = 64 * 64 + 2 * 32 * 64 + 64 * 64 + 3 * 160 * 64  # q, k, v, o; gate, up, down: no padding but of 500 tokens
    matrices = (2 * body + 512 * 64) * 9 // 16
    row, norms, cache = 512 * 64 * 9 // 16 // 500, 5 * 64 * 4, 2 * 2 * (8 + 1 + 1) * 32 * 2
    assert found["bytes_per_token"] == matrices + row + norms + cache


@pytest.mark.parametrize(("arguments", "words"), [
    (["--shape", "big:int4"], "bitnet-2b4t"), (["--shape", "tiny"], "names no format"), ([], "give a MODEL or --shape"),
    (["some/model", "--shape", "tiny:int4"], "One thing"),
])  # fmt: skip
def test_a_wrong_shape_is_a_usage_error(arguments, words, capsys):
    assert main(["bench", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_page_shows_every_product_under_the_ceilings(model, tmp_path, capsys):
    page = tmp_path / "bench.html"
    assert run(model, "-o", str(page)) == 0
    written = page.read_text(encoding="utf-8")
    for words in ("Roofline", "int8 peak", "memory", "prefill linear gate_proj up_proj", "decode attention", "<svg"):
        assert words in written
    assert "http" not in written.replace("http://www.w3.org", ""), "it opens offline"
    assert run(model, "-o", str(tmp_path / "no" / "bench.html")) != 0
    assert "Traceback" not in capsys.readouterr().err


def test_sequences_that_decode_together(model, capsys):
    assert run(model, "--sequences", "1,3", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    one, three = found["sequences"]
    assert (one["sequences"], three["sequences"]) == (1, 3)
    for batch in (one, three):
        rate = batch["decode_tokens_per_s"]
        assert 0 < rate["min"] <= rate["median"] <= rate["max"]
        assert batch["step_ms"] == pytest.approx(1000 * batch["sequences"] / rate["median"], rel=1e-9)
        assert batch["page_faults_minor"] >= 0
    assert one["bytes_per_step"] == found["bytes_per_token"]
    cache = 2 * 2 * 8 * (16 + 8 // 2 + 1) * 2
    assert three["bytes_per_step"] - one["bytes_per_step"] == 2 * cache, "weights are read once"
    assert run(model, "--sequences", "2") == 0
    assert "sequences" in capsys.readouterr().out


@pytest.mark.parametrize("counts", ["", "0", "1,,2", "-1", "1.5", "300", "x", "9" * 30])
def test_what_is_no_number_of_sequences_is_refused(model, counts, capsys):
    assert run(model, "--sequences", counts) == 2
    assert "no numbers of sequences" in capsys.readouterr().err


@pytest.mark.parametrize("format", ["bf16", "mxfp8_e4m3", "int8"])
def test_the_peak_of_bf16_is_told_where_weights_are_multiplied_in_it(model, tmp_path, capsys, format):
    looked_up = ["--embedding", format, "--rule", "model.embed_tokens.weight=bf16"]  # rows are, and not multiplied
    made = ["compress", str(model), "-o", str(tmp_path / "out"), "--format", format, *looked_up, "--no-loss"]
    assert main(made) == 0
    capsys.readouterr()
    assert run(tmp_path / "out", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["bf16_gmac_per_s"] is not None) == (format != "int8" and found["isa"] == "avx512_bf16")
