"""Block formats against gfloat and their definitions read one number at a time, on tensors made to break them."""

import warnings

import numpy as np
import pytest
from block_checks import adversarial_rows, msfp_block, nvfp4_rows, smx_block, sqnr, vsq_rows

from scrimp.formats import NAMED, encode, parse
from scrimp.formats.scale_types import to_f32

MX = {
    "mxfp8_e4m3": "format_info_mxfp8_e4m3",
    "mxfp8_e5m2": "format_info_mxfp8_e5m2",
    "mxfp6_e2m3": "format_info_mxfp6_e2m3",
    "mxfp6_e3m2": "format_info_mxfp6_e3m2",
    "mxfp4": "format_info_mxfp4_e2m1",
    "mxint8": "format_info_mxint8",
}
POWER_OF_TWO = [*MX, "msfp12", "msfp16", "smx4", "smx6", "smx9"]
SCALED = [
    *NAMED,
    *[
        "int4:g64",
        "int4z:g32",
        "int8:row",
        "nf4:g64",
        "af4",
        "iq4nl",
        "quaternary",
        "ternary:g64",
        "binary:g32",
        "lns8",
        "kmeans4",
    ],
    *["int4:g64@e8m0", "int4:g64@e4m3", "fp8_e4m3:g128@f32", "posit8_1:g64", "uint8", "int1", "int16"],
]


@pytest.mark.parametrize("name", MX)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:overflow")
def test_gfloat_agrees_on_microscaling(name):
    """Value for value. gfloat takes log2 in the numbers' own type, which float32 gets wrong: it is given float64."""
    gfloat = pytest.importorskip("gfloat")
    from gfloat import formats

    rows = adversarial_rows(4, 32)
    found = encode(rows, name).decode()
    for row, kept in zip(rows.astype(np.float64), found, strict=True):
        for at in range(0, 128, 32):
            theirs = gfloat.quantize_block(getattr(formats, MX[name]), row[at : at + 32], gfloat.compute_scale_amax)
            assert np.array_equal(kept[at : at + 32], theirs)


@pytest.mark.parametrize(("name", "m"), [("smx4", 2), ("smx6", 4), ("smx9", 7)])
def test_shared_micro_exponents_follow_the_paper(name, m):
    rows = adversarial_rows(8, 16)
    expected = np.stack([np.concatenate([smx_block(b, m) for b in row.reshape(-1, 16)]) for row in rows])
    assert np.array_equal(encode(rows, name).decode(), expected)


@pytest.mark.parametrize(("name", "bits"), [("msfp12", 3), ("msfp16", 7)])
def test_microsoft_floating_point_truncates(name, bits):
    rows = adversarial_rows(8, 16)
    expected = np.stack([np.concatenate([msfp_block(b, bits) for b in row.reshape(-1, 16)]) for row in rows])
    assert np.array_equal(encode(rows, name).decode(), expected)
    near = encode(rows[13:], name, rounding="even").decode()
    assert sqnr(rows[13:], near) > sqnr(rows[13:], expected[13:]) + 5


def modest_rows(seed=0):
    rows = np.random.default_rng(seed).normal(size=(24, 100)).astype(np.float32)  # 100: the last block is ragged
    rows *= 2.0 ** np.linspace(-6, 6, 24, dtype=np.float32)[:, None]
    rows[0, :16], rows[1, 3] = 0, 7.5
    return rows


def test_nvfp4_follows_its_two_level_definition():
    rows = modest_rows()
    assert np.array_equal(encode(rows, "nvfp4").decode(), nvfp4_rows(rows))


@pytest.mark.parametrize(("name", "bits", "scale_bits"), [("vsq4", 4, 4), ("vsq6", 6, 6)])
def test_vs_quant_follows_its_two_level_definition(name, bits, scale_bits):
    rows = modest_rows()
    assert np.array_equal(encode(rows, name).decode(), vsq_rows(rows, bits, scale_bits))


def test_four_over_six_never_errs_more_than_either_choice_alone():
    rows = modest_rows(3)[:, :96]
    both = encode(rows, "nvfp4_46")
    blocks = rows.reshape(24, -1, 16).astype(np.float64)
    error = ((both.decode().reshape(blocks.shape) - blocks) ** 2).sum(axis=-1)
    one = encode(rows, "nvfp4_46", rule="nearest")
    assert np.all(error <= ((one.decode().reshape(blocks.shape) - blocks) ** 2).sum(axis=-1) + 1e-12)
    assert error.sum() < 0.95 * ((one.decode().reshape(blocks.shape) - blocks) ** 2).sum()
    used = one.row_scales() > 0
    assert {1.0, 1.5} <= {round(float(r), 1) for r in both.row_scales()[used] / one.row_scales()[used]}


def test_flexpoint_has_one_power_of_two_that_clips_nothing():
    rows = modest_rows()
    tensor = encode(rows, "flex16")
    scale = float(tensor.row_scales()[0, 0])
    assert np.log2(scale) == round(np.log2(scale))
    assert np.abs(tensor.decode() - rows).max() <= scale / 2
    assert 32767 / 2 < np.abs(rows).max() / scale <= 32767


@pytest.mark.parametrize("name", POWER_OF_TWO)
def test_powers_of_two_pass_through(name):
    """f(8x) = 8 f(x): scales are exponents, nothing else moves."""
    rows = adversarial_rows(4, 32, seed=2)[14:]
    assert np.array_equal(encode(8 * rows, name).decode(), 8 * encode(rows, name).decode())


@pytest.mark.parametrize("name", [n for n in SCALED if n not in ("smx4", "smx6", "smx9", "kmeans4")])
def test_weights_in_a_block_do_not_see_each_others_place(name):
    """A permutation inside blocks commutes with everything but pairs. Sums of 32 … 64 weights are exact in float64."""
    format_ = parse(name)
    group = format_.block if isinstance(format_.block, int) else 256
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(16, 256)).astype(np.float32)
    order = np.concatenate([at + rng.permutation(group) for at in range(0, 256, group)])
    assert np.array_equal(encode(rows[:, order], name).decode(), encode(rows, name).decode()[:, order])


IDEMPOTENT = [
    *MX,
    *["smx4", "smx6", "smx9", "msfp12", "msfp16", "q8_0", "nf4:g64", "int8r:g64", "int4r:g32@f32", "binary:row"],
    "fp8_e4m3:g128@f32",
    "ternary:g64@f32",
]


@pytest.mark.parametrize("name", IDEMPOTENT)
def test_a_second_pass_changes_nothing(name):
    rows = np.random.default_rng(5).normal(size=(32, 512)).astype(np.float32)
    once = encode(rows, name, **({"rule": "absmax"} if name.startswith("ternary") else {})).decode()
    twice = encode(once, name, **({"rule": "absmax"} if name.startswith("ternary") else {})).decode()
    if name == "mxint8":  # code -128 is -2, whose own exponent is one higher: such blocks may move once more
        keep = (encode(rows, name).codes() != 128).reshape(32, -1, 32).all(axis=-1).repeat(32, axis=-1)
        assert 0.9 < keep.mean() < 1
        once, twice = np.where(keep, once, 0), np.where(keep, twice, 0)
    assert np.allclose(once, twice, rtol=2**-10, atol=0)  # an f16 scale rounded up from itself may move by an ulp
    if parse(name).scale == "e8m0":
        assert np.array_equal(once, twice)


@pytest.mark.parametrize("name", ["vsq4", "vsq6", "nvfp4"])
def test_a_second_pass_of_two_level_formats_changes_less_than_the_first(name):
    """Their integer scales are not fixed points: VSQ changes some values, by far less than its own error."""
    rows = np.random.default_rng(6).normal(size=(64, 1024)).astype(np.float32)
    once = encode(rows, name).decode()
    twice = encode(once, name).decode()
    assert np.sum((twice - once) ** 2.0) < 0.1 * np.sum((once - rows) ** 2.0)


@pytest.mark.parametrize(
    ("name", "rule", "worst"),
    [
        ("mxfp8_e4m3", "floor", 1 / 8),
        ("mxfp4", "floor", 1 / 4),
        ("mxfp8_e4m3", "rceil", 2**-4),
        ("mxfp4", "rceil", 1 / 4),
        ("mxfp8_e4m3", "ceil", 2**-4),
        ("mxint8", "floor", 2**-7),
    ],
)
def test_how_much_the_largest_of_a_block_can_lose(name, rule, worst):
    """floor may saturate it (512 → 448 and 8 → 6); the rules that round up only round, by half a step.

    Half a step is at most 2^-(M+1) of a normal e4m3 number, and 1/4 of an e2m1 number between 1 and 1.5.
    """
    peaks = np.random.default_rng(7).uniform(1, 2, 2000).astype(np.float32)
    rows = np.zeros((2000, 32), np.float32)
    rows[:, 5] = peaks
    kept = encode(rows, name, rule=rule).decode()[:, 5]
    assert np.all(np.abs(kept - peaks) <= worst * peaks * (1 + 2**-20))
    if rule == "rceil":
        assert np.all(kept <= peaks * (1 + worst))


def test_rceil_and_ceil_never_saturate():
    rows = adversarial_rows(4, 32)[14:]
    for name, largest in (("mxfp8_e4m3", 448.0), ("mxfp4", 6.0)):
        for rule in ("ceil", "rceil"):
            scales = encode(rows, name, rule=rule).row_scales()
            peaks = np.abs(rows).reshape(len(rows), -1, 32).max(axis=-1)
            assert np.all(peaks <= scales * largest)


@pytest.mark.parametrize("name", SCALED)
def test_a_bad_number_marks_its_own_block_and_no_other(name):
    clean = np.random.default_rng(8).normal(size=(20, 512)).astype(np.float32)
    if name.startswith("uint"):
        clean = np.abs(clean)
    before = encode(clean, name).decode()
    for bad in (np.nan, np.inf, -np.inf):
        rows = clean.copy()
        rows[3, 300] = bad
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = encode(rows, name).decode()
        format_ = parse(name)
        if format_.block == "tensor":
            assert np.isnan(found).all()
            continue
        width = 512 if format_.block == "row" or format_.second == "row" else format_.span or format_.block
        hit = np.zeros(found.shape, bool)
        hit[3, 300 // width * width : (300 // width + 1) * width] = True
        assert np.array_equal(np.isnan(found), hit)
        if format_.second != "tensor" and not name.startswith(
            "kmeans"
        ):  # their other blocks share a scale or a codebook
            assert np.array_equal(found[~hit], before[~hit])


@pytest.mark.parametrize("name", SCALED)
def test_an_all_zero_tensor_survives(name):
    tensor = encode(np.zeros((4, 512), np.float32), name)
    assert np.array_equal(tensor.decode(), np.zeros((4, 512)))


def test_the_scale_of_an_all_zero_microscaling_block_is_the_smallest():
    tensor = encode(np.zeros((1, 32), np.float32), "mxfp4")
    assert tensor.row_scales()[0, 0] == np.float32(2.0**-127)
    assert to_f32(np.array([0, 254, 255], np.uint8), "e8m0").tolist()[:2] == [2.0**-127, 2.0**127]


@pytest.mark.parametrize("name", [n for n in SCALED if n != "flex16"])
def test_rows_do_not_depend_on_how_they_are_chunked(name):
    """A matrix is encoded some rows at a time; where rows share nothing, each gets the bits it gets alone."""
    if parse(name).second == "tensor" or name.startswith("kmeans"):
        pytest.skip("rows of this format share a scale or a codebook")
    rows = np.random.default_rng(9).normal(size=(80, 1000)).astype(np.float32)
    whole = encode(rows, name).decode()
    for at in (0, 31, 79):
        assert np.array_equal(encode(rows[at : at + 1], name).decode(), whole[at : at + 1])
