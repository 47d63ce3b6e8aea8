"""bench/ladder.py on tiny matrices: every rung is checked, wrong ones are not timed."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from scrimp import _core
from scrimp.measure import speed

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))
import ladder

TINY = ["--shape", "33x172", "--tokens", "1,3,40", "--threads", "1,2", "--stack", "0", "--repeat", "2"]


@pytest.fixture(autouse=True)
def quick_ceilings(monkeypatch):
    monkeypatch.setattr(speed, "CEILING_BYTES", 1 << 22)


def test_every_rung_of_every_format_is_checked_and_then_timed(tmp_path, capsys):
    out = tmp_path / "ladder.json"
    assert ladder.main([*TINY, "--json", str(out)]) == 0
    document = json.loads(out.read_text(encoding="utf-8"))
    rungs = document["rungs"]
    names = ladder.formats_that_run()
    assert {*(f"int{n}:g64" for n in (8, 6, 5, 4, 3, 2)), "ternary:row", "binary:row", "bf16", "f32"} <= set(names)
    assert len({(r["format"], r["isa"], r["arithmetic"], r["tokens"], r["threads"]) for r in rungs}) == len(rungs)
    isas = _core.available_isas()
    own = [isa for isa in isas if isa != "avx512_bf16"]
    of_floats = 3 * len(own) + (len(own) < len(isas))  # f32, f16, bf16; and one rung more of this
    assert len(rungs) == ((len(names) - 3) * len(own) * 2 + of_floats) * 3 * 2
    for rung in rungs:
        assert 0 <= rung["worst"] <= 1
        assert rung["seconds"] > 0
        assert rung["n"] >= 1
        limit = document["ceilings"][str(rung["threads"])]
        roofs = {"memory": rung["bytes"] / rung["reading_gb_per_s"]}
        peak = "int8" if rung["format"] not in ("f32", "f16", "bf16") else "f32"
        if rung["format"] == "bf16" and limit["bf16_gmac_per_s"]:
            peak = "bf16"
        if limit[f"{peak}_gmac_per_s"]:
            roofs[{"f32": "float32"}.get(peak, peak) + " peak"] = rung["macs"] / limit[f"{peak}_gmac_per_s"]
        assert rung["share"] == pytest.approx(max(roofs.values()) / 1e9 / rung["seconds"])
        assert roofs[rung["bound_by"]] == max(roofs.values())
    printed = capsys.readouterr().out
    assert "int4:g64  scalar f32" in printed
    assert f"{len(rungs)} rungs checked, 0 wrong" in printed
    assert ("bf16  avx512_bf16 bf16" in printed) == ("avx512_bf16" in isas)
    assert document["machine"]["isas"] == _core.available_isas()


def test_a_wrong_product_is_told_and_not_timed(monkeypatch, tmp_path, capsys):
    def exact_and_bound(tensor, x, block):
        exact, bound = truth(tensor, x, block)
        exact[-1, 7] += 3 * bound[-1, 7]
        return exact, bound

    truth = ladder.exact_and_bound
    monkeypatch.setattr(ladder, "exact_and_bound", exact_and_bound)
    out = tmp_path / "ladder.json"
    assert ladder.main([*TINY, "--formats", "int3", "--json", str(out)]) == 1
    rungs = json.loads(out.read_text(encoding="utf-8"))["rungs"]
    for rung in rungs:
        assert (rung["seconds"] is None) == (rung["arithmetic"] == "int8")
        assert 2 <= rung["worst"] <= 4 or rung["arithmetic"] == "f32"
    assert "WRONG" in capsys.readouterr().out


def test_an_odd_number_of_inputs_is_multiplied_as_it_is_checked(capsys):
    assert ladder.main(["--formats", "bf16", *TINY, "--shape", "17x65"]) == 0
    assert "avx512_bf16 bf16" not in capsys.readouterr().out


def test_copies_that_differ_are_wrong(monkeypatch):
    stack = ladder.Stack(ladder.parse("int8:g32"), (32, 64), 5000, 2)
    assert len(stack.names) == 3
    stack.matrices["w2"].planes[0][0, 0, 0] ^= 64
    engine = stack.engine("scalar", "int8", 1)
    assert np.isinf(ladder.worst(engine, stack, 1, *stack.exact(1, "int8"))[0])


def test_scrimp_isa_is_the_top_of_the_ladder(monkeypatch, capsys):
    monkeypatch.setenv("SCRIMP_ISA", "scalar")
    assert ladder.main([*TINY, "--formats", "binary"]) == 0
    printed = capsys.readouterr().out
    assert "12 rungs checked" in printed
    assert "avx2" not in printed


@pytest.mark.parametrize("wrong", [["--formats", "int9"], ["--formats", "nvfp4"],
                                   ["--shape", "7"], ["--tokens", "0"],
                                   ["--formats", "bf16,int4", "--isas", "scalar", "--arithmetics", "bf16"],
                                   ["--formats", "bf16", "--shape", "3x5"], ["--shape", "1x100000"],
                                   ["--repeat", "0"]])  # fmt: skip
def test_what_makes_no_sense_is_a_usage_error(wrong, capsys):
    with pytest.raises(SystemExit) as end:
        ladder.main(wrong)
    assert end.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
