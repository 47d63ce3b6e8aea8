"""The parts that only some formats have, in a stranger's file: missing, foreign, of another type or shape, absurd."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_store_hostile import edit_header, edit_json, put, set_in

from scrimp.errors import Refused
from scrimp.quantize.compress import compress
from scrimp.sources import open_source
from scrimp.store.layout import MODEL_FILE

LAYER = "model.layers.0"
#: One of every extra part.
RULES = {
    f"{LAYER}.self_attn.q_proj.weight": "nvfp4", f"{LAYER}.self_attn.k_proj.weight": "vsq6",
    f"{LAYER}.self_attn.v_proj.weight": "kmeans4:g32", f"{LAYER}.self_attn.o_proj.weight": "smx6",
    f"{LAYER}.mlp.gate_proj.weight": "fp8_e4m3:row@e8m0", f"{LAYER}.mlp.up_proj.weight": "posit16_1",
    f"{LAYER}.mlp.down_proj.weight": "int4r:g32", "lm_head.weight": "kmeans2:row@e4m3",
}  # fmt: skip
Q, K, V, OUT, GATE, UP, DOWN, HEAD = RULES
EXTRA = [f"{Q}.tensor_scale", f"{K}.row_scales", f"{K}.scales_high", f"{V}.codebook", f"{OUT}.shifts",
         f"{UP}.codes_high", f"{HEAD}.tensor_scale", f"{HEAD}.codebook"]  # fmt: skip


@pytest.fixture(scope="module")
def good(network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stores") / "good"
    compress(network, out, format="int4:g32", rules=[f"{name}={format}" for name, format in RULES.items()])
    return out


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Path:
    return shutil.copytree(good, tmp_path / "copy")


def rename(part: str, to: str) -> Any:
    def edit(header: Any) -> None:
        header[to] = header.pop(part)

    return edit


def refused(copy: Path) -> str:
    with pytest.raises(Refused) as told:
        open_source(copy)
    return told.value.message


@pytest.mark.parametrize("part", EXTRA)
def test_a_missing_part_is_refused(copy: Path, part: str) -> None:
    edit_header(copy / MODEL_FILE, rename(part, "__pad__.900"))
    assert f"{part} is missing" in refused(copy)


@pytest.mark.parametrize("part", EXTRA)
def test_a_part_of_another_type_is_refused(copy: Path, part: str) -> None:
    edit_header(copy / MODEL_FILE, lambda header: header[part].update(dtype="I8" if "codes" in part else "I32"))
    assert part in refused(copy)


@pytest.mark.parametrize("part", EXTRA)
def test_a_part_of_another_shape_is_refused(copy: Path, part: str) -> None:
    edit_header(copy / MODEL_FILE, lambda header: header[part].update(shape=[1, *header[part]["shape"]]))
    assert f"{part} is " in refused(copy)


@pytest.mark.parametrize("tensor", [UP, DOWN, "model.norm.weight"])
@pytest.mark.parametrize("part", ["tensor_scale", "row_scales", "codebook", "shifts", "mins", "anything"])
def test_a_part_that_the_format_does_not_have_is_refused(copy: Path, tensor: str, part: str) -> None:
    def add(header: Any) -> None:
        end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        header[f"{tensor}.{part}"] = {"dtype": "F32", "shape": [16], "data_offsets": [end, end + 64]}

    edit_header(copy / MODEL_FILE, add)
    with (copy / MODEL_FILE).open("ab") as file:
        file.write(bytes(64))
    assert f"holds {tensor}.{part}" in refused(copy)


@pytest.mark.parametrize("tensor", list(RULES))
@pytest.mark.parametrize("format", ["e8m0", "nf4:g64", "nvfp4", "vsq4", "kmeans4:g64", "smx9", "posit8_1", "mxfp4"])
def test_a_config_that_names_another_format_is_refused(copy: Path, tensor: str, format: str) -> None:
    if RULES[tensor] != format:
        edit_json(copy / "config.json", set_in("quantization_config", "tensors", tensor, "format", to=format))
        assert tensor in refused(copy)


NOT_NUMBERS = [
    (Q, "tensor_scale", np.float32(np.nan)), (Q, "scales", np.uint8(0x7F)), (Q, "scales", np.uint8(0xFF)),
    (K, "row_scales", np.float32(np.inf)), (V, "codebook", np.float32(-np.inf)), (GATE, "scales", np.uint8(0xFF)),
    (GATE, "codes", np.uint8(0x7F)), (HEAD, "codebook", np.float32(np.nan)),
]  # fmt: skip


@pytest.mark.parametrize(("tensor", "part", "value"), NOT_NUMBERS)
def test_a_number_that_is_none_is_refused_when_read(copy: Path, tensor: str, part: str, value: Any) -> None:
    put(copy, f"{tensor}.{part}", np.array([value]))
    with open_source(copy) as source, pytest.raises(Refused, match=f"of {tensor} are infinite or NaN"):
        source.read(tensor)


def test_a_code_that_the_format_does_not_use_is_refused_when_read(copy: Path) -> None:
    put(copy, f"{DOWN}.codes", np.array([0xFF], np.uint8))
    with open_source(copy) as source, pytest.raises(Refused, match="holds code 15; int4r ends at 14"):
        source.read(DOWN)


def test_what_nobody_touched_opens(good: Path) -> None:
    listed = json.loads((good / "config.json").read_text())["quantization_config"]["tensors"]
    with open_source(good) as source:
        for name, format in RULES.items():
            assert source.read(name).format.name == listed[name]["format"] == format
