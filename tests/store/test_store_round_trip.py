"""What is written comes back: the same parts, mapped, in a file that any safetensors reader opens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from scrimp import store
from scrimp.errors import Refused
from scrimp.formats import parse
from scrimp.quantize.compress import compress
from scrimp.quantize.methods import method
from scrimp.sources import open_source
from scrimp.store.layout import ALIGNMENT, PAD_PREFIX
from scrimp.tensors import QTensor

#: One of every kind: each plane split, each block, each scale type, mins, trits, floats.
FORMATS = ["int4:g32", "int3:g64@bf16", "int5z:g32@f32", "int6:row", "int2z:row@bf16", "int8:tensor",
           "ternary", "binary", "ternary:g32@f32", "f32", "f16", "bf16"]  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_a_reopened_store_holds_the_same_parts(network: Path, tmp_path: Path, name: str) -> None:
    compress(network, tmp_path / "out", format=name, embedding=name)
    with open_source(network) as original, open_source(tmp_path / "out") as reopened:
        assert reopened.kind == "scrimp"
        assert set(reopened.tensors) == set(original.tensors)
        for tensor_name in original.tensors:
            source, stored = original.read(tensor_name), reopened.read(tensor_name)
            if not isinstance(source, QTensor):
                assert isinstance(stored, np.ndarray)
                assert (stored == source).all()
                continue
            assert isinstance(stored, QTensor)
            assert stored.format == parse(name)
            fresh = method("rtn")(source.dequantize(), stored.format)
            for part, values in fresh.parts().items():
                assert (stored.parts()[part] == values).all(), part


@pytest.mark.parametrize("name", FORMATS)
def test_the_safetensors_library_opens_the_file(network: Path, tmp_path: Path, name: str) -> None:
    safetensors_numpy = pytest.importorskip("safetensors")
    compress(network, tmp_path / "out", format=name)
    with (
        open_source(tmp_path / "out") as source,
        safetensors_numpy.safe_open(tmp_path / "out" / "model.safetensors", "numpy") as file,
    ):
        for tensor_name in source.tensors:
            tensor = source.read(tensor_name)
            for part, values in (tensor.parts() if isinstance(tensor, QTensor) else {"": tensor}).items():
                if values.dtype == np.uint16:
                    continue  # bfloat16 scales, which NumPy cannot hold
                read = file.get_tensor(f"{tensor_name}.{part}".rstrip("."))
                assert read.dtype == values.dtype
                assert (read == values).all()


def test_every_part_starts_on_a_64_byte_boundary_and_maps_without_a_copy(network: Path, tmp_path: Path) -> None:
    compress(network, tmp_path / "out", format="int3:g32")
    raw = (tmp_path / "out" / "model.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    pads = [entry for name, entry in header.items() if name.startswith(PAD_PREFIX)]
    assert pads, "this network was made to need padding"
    for name, entry in header.items():
        if name != "__metadata__" and not name.startswith(PAD_PREFIX):
            assert (8 + length + entry["data_offsets"][0]) % ALIGNMENT == 0, name
    with open_source(tmp_path / "out") as source:
        for name in source.tensors:
            tensor = source.read(name)
            for part in tensor.parts().values() if isinstance(tensor, QTensor) else [tensor]:
                assert not part.flags.owndata
                assert not part.flags.writeable
                assert part.ctypes.data % ALIGNMENT == 0


def test_file_bytes_are_the_bytes_on_disk(network: Path, tmp_path: Path) -> None:
    report = compress(network, tmp_path / "out", format="int4:g32")
    on_disk = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert report.file_bytes == on_disk
    with open_source(tmp_path / "out") as source:
        assert source.file_bytes == on_disk
    parameters = 2 * 24 * 40 + 3 * 40 + 2 * 48 * 40 + 2 * 24 * 40 + 3 * 72 * 40
    assert report.bits_per_weight == 8 * on_disk / parameters


def test_keeping_a_store_changes_no_byte_of_it(network: Path, tmp_path: Path) -> None:
    compress(network, tmp_path / "one", format="int4:g32@bf16", rules=["*.down_proj=ternary"])
    report = compress(tmp_path / "one", tmp_path / "two", keep=True)
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == (
        tmp_path / "two" / "model.safetensors"
    ).read_bytes()
    assert all(tensor.error == 0 and tensor.method == "keep" for tensor in report.tensors)


def test_scrimp_json_says_where_it_came_from(network: Path, tmp_path: Path) -> None:
    import hashlib

    compress(network, tmp_path / "out", format="int4:g32")
    record = json.loads((tmp_path / "out" / "scrimp.json").read_text())
    weights = hashlib.sha256((network / "model.safetensors").read_bytes()).hexdigest()
    assert record["source"]["sha256"]["model.safetensors"] == weights
    assert record["plan"]["lm_head.weight"] == "int8:g64@rtn"
    assert any("ragged" in note for note in record["notes"])
    assert any("no tokenizer" in note for note in record["notes"])
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "scrimp"
    assert config["hidden_size"] == 40


def test_the_error_of_a_tensor_is_its_relative_distance(network: Path, tmp_path: Path) -> None:
    report = compress(network, tmp_path / "out", format="int2:g32")
    with open_source(network) as original, open_source(tmp_path / "out") as reopened:
        for tensor in report.tensors:
            exact, stored = (
                source.read(tensor.name).dequantize().astype(np.float64) for source in (original, reopened)
            )
            expected = np.linalg.norm(exact - stored) / np.linalg.norm(exact)
            # float32 sums of at most 72 squares
            assert tensor.error == pytest.approx(expected, rel=80 * 2.0**-24)


def test_verify_finds_a_single_flipped_bit(network: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    compress(network, out, format="int4:g32")
    assert store.verify(out) == 9 * 2 + 3
    with (out / "model.safetensors").open("r+b") as file:
        data = json.loads((out / "config.json").read_text())
        assert "quantization_config" in data
        with open_source(out) as source:
            at = source._file.tensors["model.layers.0.mlp.up_proj.weight.codes"].offset  # type: ignore[attr-defined]
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(Refused, match=r"up_proj.weight.codes is not what was written"):
        store.verify(out)
