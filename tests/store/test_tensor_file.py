"""formats.save and formats.load: what is saved comes back as views of the file; what is damaged is refused."""

import json

import numpy as np
import pytest

from scrimp import formats
from scrimp.errors import Refused, UsageError
from scrimp.formats import ELEMENTS, NAMED

NAMES = [
    *ELEMENTS,
    *NAMED,
    "int4z:g32",
    "int16z:row",
    "fixed15.3",
    "int4:tensor@bf16",
    "nf4:row@e4m3",
    "kmeans3:tensor",
]


@pytest.fixture
def saved(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "w.safetensors"
    formats.save(
        path,
        {
            "a": formats.encode(rng.normal(size=(20, 70)), "nf4"),
            "b.c": formats.encode(rng.normal(size=(3, 4, 50)), "smx6"),
        },
    )
    return path


def edit(path, change):
    """Rewrite the header of a file."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


@pytest.mark.parametrize("shape", [(33, 100), (5,), (), (2, 3, 64), (1, 4096)], ids=str)
def test_every_format_comes_back_bit_for_bit(tmp_path, shape):
    w = np.abs(np.random.default_rng(1).normal(size=shape)).astype(np.float32)
    tensors = {f"{i}.{name.replace(':', '_')}": formats.encode(w, name) for i, name in enumerate(NAMES)}
    formats.save(tmp_path / "all.safetensors", tensors)
    back = formats.load(tmp_path / "all.safetensors")
    assert list(back) == list(tensors)
    for name, tensor in tensors.items():
        assert back[name].format == tensor.format
        assert back[name].nbytes == tensor.nbytes
        assert np.array_equal(back[name].decode(), tensor.decode(), equal_nan=True)
        assert back[name].decode().shape == shape


def test_loading_copies_nothing(saved):
    tensor = formats.load(saved)["a"]
    for part in (*tensor.planes, tensor.scales):
        assert not part.flags.owndata
        assert not part.flags.writeable
        assert part.ctypes.data % 64 == 0


def test_any_safetensors_reader_sees_the_parts(saved):
    safetensors = pytest.importorskip("safetensors")
    with safetensors.safe_open(saved, "numpy") as file:
        assert {"a.codes", "a.scales", "b.c.codes", "b.c.codes_high", "b.c.scales", "b.c.shifts"} <= set(file.keys())
        assert np.array_equal(file.get_tensor("a.codes"), formats.load(saved)["a"].planes[0])


def test_an_older_file_is_replaced_whole(saved):
    formats.save(saved, {"x": formats.encode(np.ones(3), "int8")})
    assert list(formats.load(saved)) == ["x"]
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize("name", ["", "a\nb"])
def test_a_name_that_cannot_be_written_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match="no name for a tensor"):
        formats.save(tmp_path / "x.safetensors", {name: formats.encode(np.ones(3), "int8")})


def listed(header):
    return json.loads(header["__metadata__"]["scrimp"])


def relist(change):
    def edit_list(header):
        entries = listed(header)
        change(entries)
        header["__metadata__"]["scrimp"] = json.dumps(entries)

    return edit_list


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.pop("__metadata__"), "no list of scrimp's tensors"),
        (lambda h: h["__metadata__"].pop("scrimp"), "no list of scrimp's tensors"),
        (lambda h: h["__metadata__"].update(scrimp="[1]"), "the list of tensors"),
        (lambda h: h["__metadata__"].update(scrimp="{"), "the list of tensors"),
        (relist(lambda e: e["a"].update(format="nf5")), "'nf5' is no known format"),
        (relist(lambda e: e["a"].update(format="int8")), "a.codes is U8"),
        (relist(lambda e: e["a"].update(format=4)), "no format"),
        (relist(lambda e: e.update(a=7)), "no shape"),
        (relist(lambda e: e["a"].update(shape=[20, 700])), "weights for"),
        (relist(lambda e: e["a"].update(shape=[20, 7000], dims=[20, 7000])), "a.codes is U8"),
        (relist(lambda e: e["a"].update(shape=[2**39, 2**39], dims=[2**39, 2**39])), "a.codes is U8"),
        (relist(lambda e: e["a"].update(shape=[0, 70], dims=[0, 70])), "no shape"),
        (relist(lambda e: e["a"].update(shape=[-20, -70], dims=[20, 70])), "no shape"),
        (relist(lambda e: e["a"].update(shape=[True, 1400], dims=[1400])), "no shape"),
        (relist(lambda e: e["a"].update(shape=[1400])), "no shape \\[N, K\\]"),
        (relist(lambda e: e["a"].update(dims=[7])), "1,400 weights for 7 numbers"),
        (relist(lambda e: e.update(c=e["a"])), "c.codes is missing"),
        (lambda h: h["a.codes"].update(dtype="I8"), "must be U8"),
        (lambda h: h["a.codes"].update(data_offsets=[0, 10]), "spans"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused(saved, change, message):
    edit(saved, change)
    with pytest.raises(Refused, match=message):
        formats.load(saved)


@pytest.mark.parametrize("cut", [0, 5, 100, 1000, -1])
def test_a_truncated_file_is_refused(saved, cut):
    saved.write_bytes(saved.read_bytes()[:cut])
    with pytest.raises(Refused):
        formats.load(saved)


def test_bytes_that_are_no_trits_are_refused(tmp_path):
    path = tmp_path / "t.safetensors"
    tensor = formats.encode(np.random.default_rng(0).normal(size=(16, 20)), "ternary")
    tensor.planes[0].flat[3] = 250
    formats.save(path, {"t": tensor})
    with pytest.raises(Refused, match="are no trits"):
        formats.load(path)
