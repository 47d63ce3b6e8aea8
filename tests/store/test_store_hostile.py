"""A store is a stranger's file: everything odd in it is refused by name, before it can reach the engine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scrimp.errors import Refused
from scrimp.quantize.compress import compress
from scrimp.sources import open_source

Q = "model.layers.0.self_attn.q_proj.weight"
Edit = Callable[[Any], None]


@pytest.fixture(scope="module")
def good(network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stores") / "good"
    compress(network, out, format="int4:g32", rules=["*.down_proj=ternary", "*.up_proj=bf16"])
    return out


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Path:
    return shutil.copytree(good, tmp_path / "copy")


def edit_json(path: Path, edit: Edit) -> None:
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def edit_header(path: Path, edit: Edit, *, shift: int = 0) -> None:
    """Change the header; the payload follows it unchanged, ``shift`` bytes off its boundary."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64 + shift)
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


def put(path: Path, part: str, values: np.ndarray) -> None:
    """Overwrite the first bytes of a part."""
    with open_source(path) as source:
        at = source._file.tensors[part].offset  # type: ignore[attr-defined]
    with (path / "model.safetensors").open("r+b") as file:
        file.seek(at)
        file.write(values.tobytes())


def set_in(*keys: str, to: object) -> Edit:
    def edit(document: Any) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = to

    return edit


def drop(*keys: str) -> Edit:
    def edit(document: Any) -> None:
        for key in keys[:-1]:
            document = document[key]
        del document[keys[-1]]

    return edit


CONFIG_EDITS: list[tuple[Edit, str]] = [
    (drop("quantization_config"), "has no quantization_config of scrimp"),
    (set_in("quantization_config", to=[]), "has no quantization_config of scrimp"),
    (set_in("quantization_config", "quant_method", to="gptq"), "has no quantization_config of scrimp"),
    (set_in("quantization_config", "version", to=2), "store version 2; this scrimp reads 1"),
    (set_in("quantization_config", "tensors", to=7), "does not list its tensors"),
    (set_in("quantization_config", "tensors", Q, to="int4"), "has no format"),
    (set_in("quantization_config", "tensors", Q, "format", to="int9:g64"), "'int9:g64' is no known format"),
    (set_in("quantization_config", "tensors", Q, "format", to="int4:g64"), f"{Q}.scales is F16"),
    (set_in("quantization_config", "tensors", Q, "format", to="int4:g32@bf16"), f"{Q}.scales is F16"),
    (set_in("quantization_config", "tensors", Q, "format", to="int4z:g32"), f"{Q}.mins is missing"),
    (set_in("quantization_config", "tensors", Q, "format", to="int3:g32"), f"{Q}.codes is U8"),
    (set_in("quantization_config", "tensors", Q, "shape", to=[40]), "is no [N, K]"),
    (set_in("quantization_config", "tensors", Q, "shape", to=[48, -40]), "is no [N, K]"),
    (set_in("quantization_config", "tensors", Q, "shape", to=[48, 2**70]), "is no [N, K]"),
    (set_in("quantization_config", "tensors", Q, "shape", to=[2**39, 2**39]), f"{Q}.codes is U8"),
    (set_in("quantization_config", "tensors", Q, "shape", to=[48, 39]), "has shape 48 × 39"),
    (drop("quantization_config", "tensors", Q), f"{Q}.codes is no float32 vector"),
    (set_in("quantization_config", "tensors", "extra.weight",
            to={"format": "int4", "shape": [16, 8]}), "extra.weight.codes is missing"),
    (set_in("hidden_size", to=44), "asks for"),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "message"), CONFIG_EDITS, ids=[message for _, message in CONFIG_EDITS])
def test_a_config_that_disagrees_is_refused(copy: Path, edit: Edit, message: str) -> None:
    edit_json(copy / "config.json", edit)
    with pytest.raises(Refused) as refused:
        open_source(copy)
    assert message in refused.value.message


HEADER_EDITS: list[tuple[Edit, str]] = [
    (set_in(f"{Q}.codes", "shape", to=[3, 320]), f"{Q}.codes is U8 [3, 320]"),
    (set_in(f"{Q}.scales", "dtype", to="I16"), f"{Q}.scales is I16"),
    (set_in(f"{Q}.scales", "data_offsets", to=[0, 192]), "overlaps"),
    (drop(f"{Q}.codes"), "hole"),
    (set_in("model.norm.weight", "dtype", to="I32"), "model.norm.weight is no float32 vector"),
    (set_in("model.norm.weight", "shape", to=[2, 20]), "model.norm.weight is no float32 vector"),
]


@pytest.mark.parametrize(("edit", "message"), HEADER_EDITS, ids=[message for _, message in HEADER_EDITS])
def test_a_header_that_disagrees_is_refused(copy: Path, edit: Edit, message: str) -> None:
    edit_header(copy / "model.safetensors", edit)
    with pytest.raises(Refused) as refused:
        open_source(copy)
    assert message in refused.value.message


def test_parts_off_their_boundary_are_refused(copy: Path) -> None:
    edit_header(copy / "model.safetensors", lambda header: None, shift=1)
    with pytest.raises(Refused, match="no multiple of 64"):
        open_source(copy)


@pytest.mark.parametrize("count", [0, 5, 100, -1])
def test_a_truncated_file_is_refused(copy: Path, count: int) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:count])
    with pytest.raises(Refused):
        open_source(copy)


@pytest.mark.parametrize(("part", "values"), [
    (f"{Q}.scales", np.array([np.nan], np.float16)),
    (f"{Q}.scales", np.array([np.inf], np.float16)),
    ("model.norm.weight", np.array([-np.inf], np.float32)),
    ("model.layers.0.mlp.up_proj.weight.codes", np.array([0x7FC0], np.uint16)),
])  # fmt: skip
def test_numbers_that_are_none_are_refused_when_read(copy: Path, part: str, values: np.ndarray) -> None:
    put(copy, part, values)
    tensor = part.removesuffix(".scales").removesuffix(".codes")
    with open_source(copy) as source, pytest.raises(Refused, match=f"{tensor} are infinite or NaN"):
        source.read(tensor)


def test_bytes_that_are_no_trits_are_refused_when_read(copy: Path) -> None:
    down = "model.layers.0.mlp.down_proj.weight"
    put(copy, f"{down}.codes", np.array([243], np.uint8))
    with open_source(copy) as source, pytest.raises(Refused, match="bytes above 242"):
        source.read(down)


def test_a_missing_model_file_is_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(Refused, match=r"lacks model\.safetensors"):
        open_source(copy)
