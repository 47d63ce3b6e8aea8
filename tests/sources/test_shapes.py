"""Networks of random codes: what is in them, and that they run."""

import numpy as np
import pytest

from scrimp.errors import UsageError
from scrimp.formats import packing, parse
from scrimp.model import Model
from scrimp.models import tensor_shapes
from scrimp.sources.shapes import SHAPES, open_shape, random_tensor
from scrimp.tensors import QTensor, part_shapes

FORMATS = ["f32", "f16", "bf16", "int2:g64", "int3:g128", "int4z:g32", "int5:row", "int6:tensor", "int8:g64@bf16",
           "int4r:g64", "ternary", "ternary2:g64", "binary", "nf4:g64", "mxfp4", "q4_k", "fp8_e4m3:row"]  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", [(32, 64), (21, 333)], ids=str)
def test_random_tensors_are_whole_and_of_a_known_size(name, shape):
    format = parse(name)
    tensor = random_tensor(format, shape, np.random.default_rng(1))
    assert {part: array.shape for part, array in tensor.parts().items()} == part_shapes(format, shape)
    values = tensor.dequantize()
    assert np.isfinite(values).all()
    assert 0.3 < values.std() * shape[1] ** 0.5 < 3
    if format.element.kind != "float":
        codes = tensor.codes()
        assert codes.max() < format.element.levels
        assert len(np.unique(codes)) > min(format.element.levels, 200) / 2
        for again, plane in zip(packing.pack_codes(codes, format.element), tensor.planes, strict=True):
            assert np.array_equal(again, plane), "padding is 0"


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_is_one_that_scrimp_runs(name):
    source = open_shape(f"{name}:int4:g64")
    assert {tensor: info.shape for tensor, info in source.tensors.items()} == tensor_shapes(SHAPES[name])


def test_few_bits_leave_the_head_alone_unless_told():
    def of(spelled):
        tensors = open_shape(spelled).tensors
        return tensors["model.layers.0.mlp.down_proj.weight"].stored, tensors["model.embed_tokens.weight"].stored

    assert of("tiny:int4:g32") == ("int4:g32", "int4:g32")
    assert of("tiny:ternary") == ("ternary:row", "int8:g64")
    assert of("tiny:ternary,int4:g64") == ("ternary:row", "int4:g64")


def test_a_shape_runs_and_says_the_same_every_time():
    logits = []
    for _ in range(2):
        with Model(open_shape("tiny:ternary"), threads=1) as model:
            assert isinstance(model.source.read("model.embed_tokens.weight"), QTensor)
            logits.append(model.step([1, 2, 3], 0))
    assert np.array_equal(*logits)
    assert np.isfinite(logits[0]).all()
    assert logits[0].std() > 0.1


@pytest.mark.parametrize(
    ("spelled", "words"),
    [
        ("", "no known shape"), ("llama:int4", "no known shape"), ("a" * 10_000, "no known shape"),
        ("tiny", "names no format"), ("tiny:", "names no format"), ("tiny:int4,", "names no format"),
        ("tiny:int4:g7", "groups of 7"), ("tiny:int4:g64,int9", "no known format"), ("../tiny:int4", "no known shape"),
    ],
)  # fmt: skip
def test_hostile_names_are_usage_errors(spelled, words):
    with pytest.raises(UsageError, match=words) as caught:
        open_shape(spelled)
    assert len(caught.value.message) < 200
    if words == "no known shape":
        assert "bitnet-2b4t" in str(caught.value.hint)
