"""A packed store is the plain one in fewer bytes: the same tensors, resumed, verified and refused in the same way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scrimp import store
from scrimp.errors import Refused, ScrimpError
from scrimp.measure.tensor_report import inspect_model
from scrimp.model import open_model
from scrimp.quantize.compress import compress
from scrimp.sources import open_source
from scrimp.store import contents
from scrimp.store.layout import ALIGNMENT, PAD_PREFIX, coded_part, lay_out, lay_out_coded
from scrimp.store.partial import JOURNAL, Partial, partial_of
from scrimp.tensors import QTensor

Q = "model.layers.0.self_attn.q_proj.weight"
FORMATS = ["int4:g32", "int3:g64@bf16", "int5z:g32@f32", "int6:row", "int8:tensor", "ternary", "binary", "nf4:g64",
           "kmeans3", "mxfp4", "q4_k", "f32", "bf16"]  # fmt: skip


def assert_same_tensors(one: Path, other: Path) -> None:
    with open_source(one) as left, open_source(other) as right:
        assert list(left.tensors) == list(right.tensors)
        for name in left.tensors:
            stored, again = left.read(name), right.read(name)
            parts = stored.parts() if isinstance(stored, QTensor) else {"": stored}
            found = again.parts() if isinstance(again, QTensor) else {"": again}
            assert parts.keys() == found.keys()
            for part, values in parts.items():
                assert values.dtype == found[part].dtype
                assert values.tobytes() == found[part].tobytes(), f"{name} {part}"


@pytest.mark.parametrize("name", FORMATS)
def test_a_packed_store_holds_what_the_plain_one_holds(network: Path, tmp_path: Path, name: str) -> None:
    compress(network, tmp_path / "plain", format=name, embedding=name)
    report = compress(network, tmp_path / "packed", format=name, embedding=name, pack=True)
    assert_same_tensors(tmp_path / "plain", tmp_path / "packed")
    assert report.file_bytes == sum(path.stat().st_size for path in (tmp_path / "packed").iterdir())
    with open_model(tmp_path / "plain") as plain, open_model(tmp_path / "packed") as packed:
        assert (plain.logits([3, 1, 4]) == packed.logits([3, 1, 4])).all()


def test_decoded_planes_lie_on_64_byte_boundaries_as_mapped_ones_do(network: Path, tmp_path: Path) -> None:
    compress(network, tmp_path / "out", format="int3:g32", pack=True)
    with open_source(tmp_path / "out") as source:
        tensor = source.read(Q)
        assert isinstance(tensor, QTensor)
        assert all(plane.ctypes.data % ALIGNMENT == 0 for plane in tensor.planes)


def test_without_pack_no_byte_changes_and_the_files_say_which_is_which(network: Path, tmp_path: Path) -> None:
    for name, pack in (("plain", False), ("packed", True)):
        compress(network, tmp_path / name, format="int4:g32", pack=pack)
        for file in ("config.json", "scrimp.json"):
            document = json.loads((tmp_path / name / file).read_text())
            told = document["quantization_config"] if file == "config.json" else document
            assert told.get("coding") == ("rans" if pack else None)


def test_any_safetensors_reader_opens_it_and_parts_are_aligned(network: Path, tmp_path: Path) -> None:
    safetensors_numpy = pytest.importorskip("safetensors")
    compress(network, tmp_path / "out", format="int4:g32", pack=True)
    file = tmp_path / "out" / "model.safetensors"
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    del header["__metadata__"]
    with safetensors_numpy.safe_open(file, "numpy") as opened, open_source(tmp_path / "out") as source:
        assert set(opened.keys()) == set(header)
        for name in source.tensors:
            stored = opened.get_tensor(coded_part(name))
            assert stored.dtype == np.uint8
            assert (8 + length + header[coded_part(name)]["data_offsets"][0]) % ALIGNMENT == 0
    for name, entry in header.items():
        if name.startswith(PAD_PREFIX):
            begin, end = entry["data_offsets"]
            assert not any(raw[8 + length + begin : 8 + length + end])


def test_packing_a_store_and_unpacking_it_again_changes_no_byte(network: Path, tmp_path: Path) -> None:
    compress(network, tmp_path / "one", format="int4:g32@bf16", rules=["*.down_proj=ternary"])
    packed = compress(tmp_path / "one", tmp_path / "packed", keep=True, pack=True)
    compress(tmp_path / "packed", tmp_path / "again", keep=True, pack=True)
    compress(tmp_path / "packed", tmp_path / "two", keep=True)
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two", "packed", "again")]
    assert models[0] == models[1]
    assert models[2] == models[3]
    assert len(models[2]) < len(models[0])
    assert all(tensor.error == 0 for tensor in packed.tensors)


def test_inspect_counts_the_coded_bytes(network: Path, tmp_path: Path) -> None:
    compress(network, tmp_path / "plain", format="int4:g32")
    compress(network, tmp_path / "out", format="int4:g32", pack=True)
    raw = (tmp_path / "out" / "model.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    with open_source(tmp_path / "out") as source, open_source(tmp_path / "plain") as plain:
        report, before = inspect_model(source), inspect_model(plain)
        assert report.file_bytes == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    for tensor, other in zip(report.tensors, before.tensors, strict=True):
        begin, end = header[coded_part(tensor.name)]["data_offsets"]
        assert tensor.bytes == end - begin
        assert tensor.bits_per_weight == 8 * tensor.bytes / np.prod(tensor.shape)
        assert tensor.format == other.format
        assert tensor.entropy_bits == other.entropy_bits
        assert tensor.stored.endswith(" rans")


SHAPES = {"a": (40,), "b": (1000,), "c": (7,)}


def values(name: str) -> np.ndarray:
    return np.arange(SHAPES[name][0], dtype=np.float32)


def start(out: Path) -> Partial:
    return Partial(out, lay_out_coded(lay_out(SHAPES, {})), "job")


def finish(partial: Partial) -> None:
    for name in SHAPES:
        if name not in partial.finished:
            partial.write(name, values(name), 0.0)
    partial.complete({"config.json": "{}", "scrimp.json": "{}"})


def straight(tmp_path: Path) -> bytes:
    with start(tmp_path / "straight") as partial:
        finish(partial)
    return (tmp_path / "straight" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("keep", range(0, 420, 21))
def test_a_journal_cut_off_anywhere_resumes_to_the_same_file(tmp_path: Path, keep: int) -> None:
    out = tmp_path / "out"
    with start(out) as partial:
        partial.write("a", values("a"), 0.0)
        partial.write("b", values("b"), 0.0)
    journal = partial_of(out) / JOURNAL
    journal.write_bytes(journal.read_bytes()[:keep])
    with start(out) as partial:
        assert list(partial.finished) in ([], ["a"], ["a", "b"])
        finish(partial)
    assert (out / "model.safetensors").read_bytes() == straight(tmp_path)


def test_what_an_interruption_left_behind_the_last_tensor_is_cut_off(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with start(out) as partial:
        for name in ("a", "b"):
            partial.write(name, values(name), 0.0)
    with (partial_of(out) / "model.safetensors").open("ab") as file:
        file.write(b"x" * 100_000)
    with start(out) as partial:
        finish(partial)
    assert (out / "model.safetensors").read_bytes() == straight(tmp_path)


def test_a_file_shorter_than_its_journal_loses_the_tensors_that_are_gone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with start(out) as partial:
        for name in ("a", "b"):
            partial.write(name, values(name), 0.0)
        at, _ = contents.extent_of(partial.finished["b"])
    with (partial_of(out) / "model.safetensors").open("r+b") as file:
        file.truncate(at + 3)
    with start(out) as partial:
        assert list(partial.finished) == ["a"]
        finish(partial)
    assert (out / "model.safetensors").read_bytes() == straight(tmp_path)


def test_the_header_fits_its_room_for_names_of_any_length(tmp_path: Path) -> None:
    shapes = {"x" * size: (size,) for size in range(1, 200, 7)}
    with Partial(tmp_path / "out", lay_out_coded(lay_out(shapes, {})), "job") as partial:
        for name, (size,) in shapes.items():
            partial.write(name, np.random.default_rng(size).standard_normal(size).astype(np.float32), 0.0)
        partial.complete({"config.json": "{}", "scrimp.json": "{}"})
    from safetensors.numpy import load_file

    assert set(load_file(tmp_path / "out" / "model.safetensors")) >= {coded_part(name) for name in shapes}


def test_an_interrupted_compression_goes_on_and_another_coding_starts_over(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scrimp.quantize import apply

    real = apply.one

    def stops(name: str, *rest: Any) -> Any:
        if "mlp.up" in name:
            raise KeyboardInterrupt
        return real(name, *rest)

    monkeypatch.setattr(apply, "one", stops)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            compress(network, tmp_path / "out", format="int4:g32", pack=True)
    monkeypatch.undo()
    report = compress(network, tmp_path / "out", format="int4:g32", pack=True)
    assert report.resumed > 0
    compress(network, tmp_path / "straight", format="int4:g32", pack=True)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (
        tmp_path / "straight" / "model.safetensors"
    ).read_bytes()


@pytest.fixture(scope="module")
def good(network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stores") / "good"
    compress(network, out, format="int4:g32", rules=["*.down_proj=ternary"], pack=True)
    return out


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Path:
    return shutil.copytree(good, tmp_path / "copy")


def test_verify_finds_every_part_and_a_single_flipped_bit(copy: Path) -> None:
    assert store.verify(copy) == 12
    with open_source(copy) as source:
        at = source._file.tensors[coded_part(Q)].offset + 50  # type: ignore[attr-defined]
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(Refused, match=r"q_proj.weight.coded is not what was written"):
        store.verify(copy)


def edited(path: Path, edit: Callable[[Any], None]) -> None:
    raw = (path / "model.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    edit(header)
    text = json.dumps(header, separators=(",", ":")).encode()
    (path / "model.safetensors").write_bytes(raw[:8] + text + b" " * (length - len(text)) + raw[8 + length :])


@pytest.mark.parametrize(("edit", "message"), [
    (lambda header: header.update({Q: header.pop(f"{Q}.coded")}), f"{Q}.coded is missing"),
    (lambda header: header[f"{Q}.coded"].update(shape=[1, *header[f"{Q}.coded"]["shape"]]), "no bytes"),
    (lambda header: header[f"{Q}.coded"].update(dtype="I8"), "is I8"),
    (lambda header: header.update({"model.norm.weight": header.pop("model.norm.weight.coded")}), "no float32 vector"),
    (lambda header: header.update({"other.coded": header.pop("model.norm.weight.coded")}), "lacks model.norm"),
])  # fmt: skip
def test_a_header_that_disagrees_is_refused(copy: Path, edit: Callable[[Any], None], message: str) -> None:
    edited(copy, edit)
    with pytest.raises(Refused) as refused:
        open_source(copy)
    assert message in refused.value.message


@pytest.mark.parametrize(("coding", "message"), [("huffman", "coding 'huffman'"), (7, "coding '7'"),
                                                 (None, "codes is missing")])  # fmt: skip
def test_a_coding_that_nobody_knows_is_refused(copy: Path, coding: object, message: str) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["quantization_config"]["coding"] = coding
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(Refused) as refused:
        open_source(copy)
    assert message in refused.value.message


def test_damage_is_refused_when_the_model_is_opened(copy: Path) -> None:
    with open_source(copy) as source:
        place = source._file.tensors[coded_part(Q)]  # type: ignore[attr-defined]
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(place.offset)
        file.write(np.random.default_rng(0).bytes(place.nbytes))
    with pytest.raises(Refused, match=r"q_proj.weight.coded"):
        open_model(copy)


def test_a_finished_tensor_that_changed_on_the_disk_is_noticed(tmp_path: Path) -> None:
    from scrimp.formats import encode, parse

    shapes = {"w": (20, 64)}
    weight = np.random.default_rng(0).standard_normal((20, 64)).astype(np.float32)
    tensor = encode(weight, "int4:g32")
    layout = lay_out_coded(lay_out(shapes, {"w": parse("int4:g32")}))
    with Partial(tmp_path / "out", layout, "job") as partial:
        partial.write("w", tensor, 0.0)
        assert (partial.read("w", tensor.format, (20, 64)).dequantize() == tensor.dequantize()).all()
        at, _ = contents.extent_of(partial.finished["w"])
        with (partial.path / "model.safetensors").open("r+b") as file:
            file.seek(at + 40)
            file.write(b"\xa5\x5a")
        with pytest.raises(ScrimpError, match="not what was written"):
            partial.read("w", tensor.format, (20, 64))
