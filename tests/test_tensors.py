"""QTensor: values, bytes, and what a file must hold."""

import numpy as np
import pytest

from scrimp import tensors
from scrimp.engine.engine import core_matrix
from scrimp.errors import Refused, UsageError
from scrimp.formats import ELEMENTS, parse
from scrimp.tensors import encode, from_codes, from_floats, from_parts, part_shapes, stored_bytes

FORMATS = ["int2:g32", "int3z:g64", "int4:g32", "int4z:row", "int5:g128", "int6z:g32@f32", "int8:tensor",
           "ternary:g64", "ternary:row@bf16", "binary:g32", "binary:tensor@f32"]  # fmt: skip


def random_tensor(name, shape, seed=0):
    fmt, rng = parse(name), np.random.default_rng(seed)
    codes = rng.integers(0, fmt.element.levels, shape, dtype=np.uint8)
    scale_shape = (1, 1) if fmt.block == "tensor" else (shape[0], fmt.groups(shape[1]))
    scales = tensors.from_f32(rng.normal(size=scale_shape).astype(np.float32), fmt.scale)
    mins = tensors.from_f32(rng.normal(size=scale_shape).astype(np.float32), fmt.scale) if fmt.has_min else None
    return from_codes(fmt, codes, scales, mins), codes, scales, mins


def one_weight(fmt, code, scale, minimum):
    """The definition, one scalar at a time."""
    if minimum is not None:
        return np.float32(np.float32(scale * np.float32(code)) + minimum)
    return np.float32(scale * np.float32(fmt.element.step * int(code) - fmt.element.zero))


@pytest.mark.parametrize("name", FORMATS)
def test_values_follow_the_definition(name):
    shape = (19, 100)
    tensor, codes, scales, mins = random_tensor(name, shape)
    fmt, scales32 = tensor.format, tensors.to_f32(scales, tensor.format.scale)
    mins32 = None if mins is None else tensors.to_f32(mins, fmt.scale)
    expected = np.empty(shape, np.float32)
    for n in range(shape[0]):
        for k in range(shape[1]):
            at = (0, 0) if fmt.block == "tensor" else (n, k // fmt.group(shape[1]))
            expected[n, k] = one_weight(fmt, codes[n, k], scales32[at], None if mins32 is None else mins32[at])
    assert np.array_equal(tensor.codes(), codes)
    assert np.array_equal(tensor.dequantize(), expected)


@pytest.mark.parametrize("name", FORMATS)
def test_the_engine_decodes_rows_bit_for_bit(name):
    tensor, *_ = random_tensor(name, (35, 172), seed=3)
    rows = core_matrix(tensor).decode_rows(0, 35)
    assert np.array_equal(rows.view(np.uint32), tensor.dequantize().view(np.uint32))


@pytest.mark.parametrize("name", [*FORMATS, "f32", "f16", "bf16"])
@pytest.mark.parametrize("shape", [(1, 1), (16, 64), (17, 341), (576, 576)])
def test_stored_bytes_are_predicted_exactly(name, shape):
    fmt = parse(name)
    if fmt.scale is None:
        tensor = from_floats(fmt, np.zeros(shape, tensors.DTYPES[name]))
    else:
        tensor = random_tensor(name, shape)[0]
    assert tensor.nbytes == stored_bytes(fmt, shape)
    assert {part: array.shape for part, array in tensor.parts().items()} == part_shapes(fmt, shape)


def test_whole_tiles_take_the_bits_that_the_format_names():
    for name in FORMATS:
        fmt = parse(name)
        if fmt.block == "tensor" or fmt.element.kind == "ternary":
            continue
        bits = 8 * stored_bytes(fmt, (64, 1280)) / (64 * 1280)
        assert bits == pytest.approx(fmt.bits_per_weight(64, 1280), rel=1e-12)


def test_a_tensor_survives_its_parts():
    tensor, codes, *_ = random_tensor("int3z:g32", (18, 70))
    back = from_parts("w", tensor.format, tensor.shape, tensor.parts())
    assert np.array_equal(back.codes(), codes)
    assert np.array_equal(back.dequantize(), tensor.dequantize())


def test_a_missing_or_misshapen_part_is_refused_by_name():
    tensor, *_ = random_tensor("int3z:g32", (18, 70))
    parts = tensor.parts()
    with pytest.raises(Refused, match="layer: its part 'codes_high' is missing"):
        from_parts("layer", tensor.format, tensor.shape, {k: v for k, v in parts.items() if k != "codes_high"})
    with pytest.raises(Refused, match=r"layer\.scales has shape"):
        from_parts("layer", tensor.format, tensor.shape, {**parts, "scales": parts["scales"][:1]})


def test_bfloat16_rounds_to_nearest_even_as_ml_dtypes_does():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    rng = np.random.default_rng(0)
    spread = np.arange(0, 2**32, 65_521, dtype=np.uint64).astype(np.uint32)
    bits = np.concatenate([rng.integers(0, 2**32, 200_000, dtype=np.uint32), spread])
    values = bits.view(np.float32)
    values = values[~np.isnan(values)]
    with np.errstate(over="ignore"):
        expected = values.astype(ml_dtypes.bfloat16).view(np.uint16)
    assert np.array_equal(tensors.from_f32(values, "bf16"), expected)
    assert np.array_equal(tensors.to_f32(expected, "bf16"), expected.view(ml_dtypes.bfloat16).astype(np.float32))
    assert np.isnan(tensors.to_f32(tensors.from_f32(np.array([np.nan], np.float32), "bf16"), "bf16")).all()


def test_every_element_has_levels_that_its_planes_can_hold():
    for element in ELEMENTS.values():
        if element.kind == "ternary":
            assert element.levels == 3
        elif element.name.endswith("r"):  # restricted integers leave one code out
            assert element.levels == 2 ** sum(element.planes) - 1
        elif element.name == "tf32":
            assert element.levels == 2**19
        else:
            assert element.levels == 2 ** sum(element.planes)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (4096,), (3, 5), (2, 3, 70), (1, 1, 1, 9), (16, 64)], ids=str)
@pytest.mark.parametrize(
    "name",
    [
        "f32",
        "fp8_e4m3",
        "int4:g32",
        "int4z:g32",
        "nf4",
        "mxfp4",
        "nvfp4",
        "smx6",
        "vsq4",
        "q4_k",
        "q3_k",
        "int8:tensor",
        "kmeans2",
    ],
)
def test_any_shape_is_encoded_and_comes_back_as_it_was(name, shape):
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    decoded = encode(array, name).decode()
    assert decoded.shape == shape
    assert decoded.dtype == np.float32
    if name == "f32":
        assert np.array_equal(decoded, array)


@pytest.mark.parametrize("name", ["int4:g64", "fp8_e4m3", "nvfp4", "posit8_1", "int8:tensor", "q4_k"])
def test_a_long_vector_is_folded_without_changing_a_weight(name):
    """4,096 numbers in one row would be padded to 16 rows; folded they take no more than they must."""
    array = np.random.default_rng(1).normal(size=4096).astype(np.float32)
    tensor = encode(array, name)
    assert tensor.shape == (16, 256)
    assert np.array_equal(tensor.decode(), encode(np.stack([array, array]), name).decode()[0])
    assert tensor.nbytes < 1.1 * 4096 * tensor.format.bits_per_weight(16, 256) / 8 + 64


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.int64, bool])
def test_numbers_of_any_type_are_encoded(dtype):
    array = np.array([[0, 1, 1, 0]]).astype(dtype)
    assert encode(array, "int8:row@bf16").decode() == pytest.approx(np.array([[0, 1, 1, 0]]), abs=0.004)
    assert np.array_equal(encode(array, "fp8_e4m3").decode(), [[0, 1, 1, 0]])


@pytest.mark.parametrize("array", [np.empty((0, 4)), np.array(["a"]), np.array([1j]), np.empty(0)], ids=str)
def test_what_holds_no_numbers_is_refused(array):
    with pytest.raises(UsageError, match="holds no numbers to encode"):
        encode(array, "int8")


def test_views_and_strides_do_not_matter():
    array = np.random.default_rng(2).normal(size=(40, 90)).astype(np.float32)
    assert np.array_equal(
        encode(array.T[::2], "nf4").decode(), encode(np.ascontiguousarray(array.T[::2]), "nf4").decode()
    )


@pytest.mark.parametrize(
    "name",
    [
        "nf4:g64",
        "fp6_e3m2:g32",
        "posit16_1",
        "int16:g64",
        "int7z:g32",
        "mxfp8_e5m2",
        "smx9",
        "fixed12.4",
        "tq1_0",
        "q2_k",
        "q3_k",
        "q5_k",
        "q6_k",
    ],
)
def test_part_types_name_every_part(name):
    tensor = encode(np.random.default_rng(3).normal(size=(18, 70)), name)
    types = tensors.part_types(tensor.format)
    assert list(types) == list(tensor.parts())
    for part, array in tensor.parts().items():
        assert array.dtype == (np.uint8 if types[part] == "u8" else tensors.DTYPES[types[part]])
    back = from_parts("w", tensor.format, tensor.shape, tensor.parts())
    assert np.array_equal(back.dequantize(), tensor.dequantize())
