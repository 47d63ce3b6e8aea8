"""llama2.c checkpoints of all three versions, written here as export.py lays them out."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import tiny_llama as tiny

from scrimp.errors import Refused, ScrimpError, UsageError
from scrimp.sources import Source, open_source
from scrimp.tensors import QTensor


def opened(tmp_path: Path, content: bytes) -> Source:
    (tmp_path / "m.bin").write_bytes(content)
    (tmp_path / "tok.bin").write_bytes(b"tokens")
    return open_source(tmp_path / "m.bin", tokenizer=tmp_path / "tok.bin")


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("tied", [True, False])
def test_float_checkpoints_come_back_in_the_canonical_order(tmp_path: Path, version: int, tied: bool) -> None:
    values = tiny.weights(tied=tied)
    with opened(tmp_path, tiny.llama2c_bytes(values, version)) as source:
        assert source.kind == "llama2c"
        assert source.config == {**tiny.CONFIG, "tie_word_embeddings": tied}
        assert set(source.tensors) == set(values)
        for name, array in values.items():
            tensor = source.read(name)
            assert np.array_equal(tensor.dequantize() if isinstance(tensor, QTensor) else tensor, array)
        assert source.tokenizer.kind == "llama2c"
        assert (source.tokenizer.path, source.tokenizer.vocab_size) == (tmp_path / "tok.bin", 40)
        assert source.file_bytes == (tmp_path / "m.bin").stat().st_size + 6


#: group → Format of matrices with rows of 64 and of 96 (None: groups straddle rows, or scrimp stores no such groups)
GROUPS = {32: ("int8:g32@f32", "int8:g32@f32"), 64: ("int8:g64@f32", "f32"), 16: ("f32", "f32")}


@pytest.mark.parametrize("group", [16, 32, 64])
@pytest.mark.parametrize("tied", [True, False])
def test_int8_checkpoints_keep_every_value(tmp_path: Path, group: int, tied: bool) -> None:
    values = tiny.weights(tied=tied)
    of_64, of_96 = GROUPS[group]
    with opened(tmp_path, tiny.llama2c_bytes(values, 2, group=group)) as source:
        for name, array in values.items():
            tensor = source.read(name)
            if array.ndim == 1:
                assert np.array_equal(tensor, array)  # type: ignore[arg-type]
                continue
            assert isinstance(tensor, QTensor)
            assert tensor.format.name == (of_96 if array.shape[1] == 96 else of_64)
            codes, scales = tiny.q80(tiny.in_pairs(name, array), group)
            stored = (scales[:, None] * codes.astype(np.float32)).reshape(array.shape)
            assert np.array_equal(tiny.in_pairs(name, tensor.dequantize()), stored)
        expected = {16: 15 + (not tied), 32: 0, 64: 2}[group]
        note = f"int8 in groups of {group} → f32 (no equal Format): {expected} tensors"
        assert source.notes == ([note] if expected else [])


def test_a_group_as_long_as_the_row_is_a_row_format() -> None:
    from scrimp.sources.llama2c import _equal_format

    assert [str(f and f.name) for f in (_equal_format(96, 96), _equal_format(64, 64), _equal_format(96, 192))] == [
        "int8:row@f32",
        "int8:g64@f32",
        "None",
    ]


def test_a_tokenizer_must_be_named_and_exist(tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(tiny.llama2c_bytes(tiny.weights(), 0))
    with pytest.raises(UsageError, match="does not bring a tokenizer"):
        open_source(tmp_path / "m.bin")
    with pytest.raises(ScrimpError, match=r"The tokenizer .* does not exist"):
        open_source(tmp_path / "m.bin", tokenizer=tmp_path / "tok.bin")


def test_the_only_tokenizer_beside_it_is_taken(tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(tiny.llama2c_bytes(tiny.weights(), 0))
    (tmp_path / "tok512.bin").write_bytes(b"")
    with open_source(tmp_path / "m.bin") as source:
        assert source.tokenizer.path == tmp_path / "tok512.bin"
    (tmp_path / "tokenizer.bin").write_bytes(b"")
    with pytest.raises(UsageError, match="does not bring a tokenizer"):
        open_source(tmp_path / "m.bin")


@pytest.mark.parametrize("version", [0, 1, 2])
def test_a_file_of_any_other_length_is_refused(tmp_path: Path, version: int) -> None:
    whole = tiny.llama2c_bytes(tiny.weights(), version)
    for content in (whole[:-1], whole[:300], whole[:256], whole[:200], whole[:28], whole[:27], whole[:4], whole + b"0"):
        with pytest.raises(Refused):
            opened(tmp_path, content)


@pytest.mark.parametrize("version", [0, 1, 2])
@pytest.mark.parametrize("field", range(7))
@pytest.mark.parametrize("value", [0, -1, 1, 7, 2**24, 2**31 - 1, -(2**31)])
def test_every_count_at_every_extreme_is_refused(tmp_path: Path, version: int, field: int, value: int) -> None:
    whole = bytearray(tiny.llama2c_bytes(tiny.weights(), version))
    struct.pack_into("<i", whole, 4 * field + (8 if version else 0), value)
    if version and field == 6 and 0 < value <= 2**24:
        opened(tmp_path, bytes(whole)).close()  # the longest context takes no bytes in these versions
        return
    with pytest.raises(Refused):
        opened(tmp_path, bytes(whole))


@pytest.mark.parametrize("group", [0, -32, 7, 2**31 - 1])
def test_a_group_size_that_cannot_be_is_refused(tmp_path: Path, group: int) -> None:
    whole = bytearray(tiny.llama2c_bytes(tiny.weights(), 2))
    struct.pack_into("<i", whole, 37, group)
    with pytest.raises(Refused):
        opened(tmp_path, bytes(whole))


def test_an_unknown_version_and_an_odd_flag_are_refused(tmp_path: Path) -> None:
    whole = bytearray(tiny.llama2c_bytes(tiny.weights(), 1))
    whole[36] = 2
    with pytest.raises(Refused, match="says 2 where 0 or 1"):
        opened(tmp_path, bytes(whole))
    struct.pack_into("<i", whole, 4, 3)
    with pytest.raises(Refused, match="is version 3"):
        opened(tmp_path, bytes(whole))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 3e38])
def test_a_scale_that_leaves_the_numbers_is_refused(tmp_path: Path, bad: float) -> None:
    whole = bytearray(tiny.llama2c_bytes(tiny.weights(tied=True), 2))
    whole[-4:] = struct.pack("<f", bad)  # the last scale of the last matrix, w3 of layer 1
    with opened(tmp_path, bytes(whole)) as source, pytest.raises(Refused, match="infinite or NaN"):
        source.read("model.layers.1.mlp.up_proj.weight")


STORIES = Path(os.environ.get("SCRIMP_TEST_STORIES260K", Path(__file__).parents[3] / "shared/data/stories260K"))


@pytest.mark.skipif(not STORIES.is_dir(), reason="stories260K is not beside the checkout")
def test_stories260k_is_read_whole() -> None:
    with open_source(STORIES / "stories260K.bin", tokenizer=STORIES / "tok512.bin") as source:
        assert source.config["hidden_size"] == 64
        assert source.config["tie_word_embeddings"] is True
        assert sum(int(np.prod(info.shape)) for info in source.tensors.values()) == 264_128 - 2 * 512 * 4
        for name in source.tensors:
            source.read(name)
