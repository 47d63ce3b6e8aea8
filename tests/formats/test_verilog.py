"""The circuits compute what the formats say: their gates are evaluated and compared with the codes' own numbers."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from scrimp.errors import ScrimpError
from scrimp.formats.catalogue import element
from scrimp.formats.operands import operand, power_of_two, twos_complement
from scrimp.formats.synthesis import synthesise, version
from scrimp.formats.verilog import FLOATING, fixed_bits, integer_scaling, mac, scaling

GATES = {
    "$_AND_": lambda a, b: a & b, "$_NAND_": lambda a, b: ~(a & b), "$_OR_": lambda a, b: a | b,
    "$_NOR_": lambda a, b: ~(a | b), "$_XOR_": lambda a, b: a ^ b, "$_XNOR_": lambda a, b: ~(a ^ b),
}  # fmt: skip


def needs_yosys() -> None:
    try:
        version()
    except ScrimpError as error:
        pytest.skip(str(error))


class Circuit:
    """A netlist of gates, evaluated for many inputs at once: the accumulator after one clock."""

    def __init__(self, unit, folder: Path, multiplier: str = "array") -> None:
        needs_yosys()
        synthesise(unit, multiplier=multiplier, netlist=folder / "netlist.json")
        module = json.loads((folder / "netlist.json").read_text())["modules"]["top"]
        self.ports = {name: port["bits"] for name, port in module["ports"].items()}
        self.cells = list(module["cells"].values())

    def step(self, **inputs):
        """``acc`` and the operands as lists of integers → the next ``acc`` as integers, bits unsigned."""
        count = len(next(iter(inputs.values())))
        wires = {"0": np.zeros(count, bool), "1": np.ones(count, bool), "x": np.zeros(count, bool)}
        following = {}
        for name, numbers in inputs.items():
            for i, bit in enumerate(self.ports[name]):
                if name != "acc" or bit not in wires:
                    wires[bit] = np.array([n >> i & 1 for n in numbers], bool)
        gates = []
        for cell in self.cells:
            pins = {pin: bits[0] for pin, bits in cell["connections"].items()}
            if cell["type"] in ("$_DFF_P_", "$_SDFF_PP0_"):
                following[pins["Q"]] = pins["D"]
                if "R" in pins:
                    following[pins["Q"]] = (pins["D"], pins["R"])
            else:
                gates.append((cell["type"], pins))
        while gates:
            waiting = []
            for kind, pins in gates:
                sources = [wires.get(pins[p]) for p in ("A", "B", "S") if p in pins]
                if any(s is None for s in sources):
                    waiting.append((kind, pins))
                elif kind == "$_NOT_":
                    wires[pins["Y"]] = ~sources[0]
                elif kind == "$_MUX_":
                    wires[pins["Y"]] = np.where(sources[2], sources[1], sources[0])
                else:
                    wires[pins["Y"]] = GATES[kind](*sources)
            assert len(waiting) < len(gates), f"no source for {waiting[:2]}"
            gates = waiting
        result = np.zeros(count, object)
        for i, bit in enumerate(self.ports["acc"]):
            after = following.get(bit, bit)
            value = wires[after[0]] & ~wires[after[1]] if isinstance(after, tuple) else wires[after]
            result += value.astype(object) << i
        return result.tolist()


def ports_of(name: str):
    """Port bits and exact values of every finite number of an element, as its hardware operand takes them."""
    e = element(name)
    values = e.code().values
    codes = np.flatnonzero(np.isfinite(values))
    x = operand(e)
    if name == "ternary":
        return x, [0, 1, 3], [-0, 1, -1]
    if name == "binary":
        return x, [1, 0], [-1, 1]
    if x.twos and not x.entries and name != "quaternary":
        scale = 1 / np.min(np.abs(values[values != 0]))
        whole = (values * scale).astype(int)
        return x, [int(v) & (1 << x.bits) - 1 for v in whole], whole.tolist()
    return x, codes.tolist(), [Fraction(float(v)) for v in values[codes]]


def signed(numbers, bits):
    return [n - (1 << bits) if n >> (bits - 1) else n for n in numbers]


def pairs(a, b, rng, most=6000):
    """Every pair, or a random selection with the extremes."""
    every = [(i, j) for i in range(len(a)) for j in range(len(b))]
    if len(every) <= most:
        return every
    return [every[i] for i in rng.choice(len(every), most, replace=False)] + [(0, 0), (len(a) - 1, len(b) - 1)]


@pytest.mark.parametrize(("weight", "activation", "multiplier"), [
    ("int8", "int8", "array"), ("int8", "int8", "booth"), ("int4", "int8", "booth"), ("int2", "int8", "array"),
    ("ternary", "int8", "array"), ("binary", "int8", "array"), ("quaternary", "int8", "array"),
    ("uint4", "int8", "array"),
    ("sm4.2", "sm4.2", "array"), ("fp4_e2m1", "fp4_e2m1", "array"), ("fp6_e3m2", "fp6_e3m2", "array"),
    ("fp8_e4m3", "fp8_e4m3", "array"), ("fp8_e5m2", "fp8_e5m2", "booth"), ("posit8_0", "posit8_0", "array"),
    ("posit8_1", "posit8_1", "array"), ("posit8_2", "posit8_2", "array"),
])  # fmt: skip
def test_a_fixed_point_unit_adds_the_exact_product(weight, activation, multiplier, tmp_path):
    rng = np.random.default_rng(1)
    (a, a_ports, a_values), (b, b_ports, b_values) = ports_of(activation), ports_of(weight)
    width = fixed_bits(a, b)
    circuit = Circuit(mac(a, b), tmp_path, multiplier)
    step = min(abs(v) for v in a_values if v) * min(abs(v) for v in b_values if v)
    chosen = pairs(a_values, b_values, rng)
    acc = [int(n) for n in rng.integers(-(2 ** min(width - 2, 60)), 2 ** min(width - 2, 60), len(chosen))]
    before = [n & (1 << width) - 1 for n in acc]
    got = circuit.step(acc=before, a=[a_ports[i] for i, _ in chosen], b=[b_ports[j] for _, j in chosen])
    want = [n + a_values[i] * b_values[j] / step for n, (i, j) in zip(acc, chosen, strict=True)]
    assert signed(got, width) == want


@pytest.mark.parametrize("name", ["lns8", "elma8"])
def test_a_logarithmic_product_is_off_by_half_a_step_of_its_table(name, tmp_path):
    x, ports, values = ports_of(name)
    width = fixed_bits(x, x)
    circuit = Circuit(mac(x, x), tmp_path)
    chosen = pairs(values, values, np.random.default_rng(2))
    a, b = [ports[i] for i, _ in chosen], [ports[j] for _, j in chosen]
    got = signed(circuit.step(acc=[0] * len(chosen), a=a, b=b), width)
    # Exponent 0 of LNS(8, 4) means 2^-4; of a posit, its smallest number.
    smallest = Fraction(1, 16) if name == "lns8" else min(v for v in values if v > 0)
    step = smallest**2 / 2**x.table
    for (i, j), n in zip(chosen, got, strict=True):
        exact = values[i] * values[j]
        assert abs(n * step - exact) <= abs(exact) * Fraction(1, 2 ** (x.table + 1)) * (1 + Fraction(1, 2**40))


@pytest.mark.parametrize("name", ["nf4", "iq4nl"])
def test_a_codebook_is_a_table_of_int8(name, tmp_path):
    x, _, values = ports_of(name)
    circuit = Circuit(mac(twos_complement(8), x), tmp_path)
    steps = np.rint(np.array(values, float) * 127 / max(abs(float(v)) for v in values)).astype(int)
    got = signed(circuit.step(acc=[5] * 16, a=[-128 & 255] * 16, b=list(range(16))), 32)
    assert got == [5 - 128 * int(s) for s in steps]


def rounded(exact: Fraction, accumulator: str) -> int:
    """The bits of ``exact`` in the accumulator's format: nearest, ties to even; subnormals are zero."""
    e, m = FLOATING[accumulator]
    bias = 2 ** (e - 1) - 1
    if exact == 0:
        return 0
    sign, x = int(exact < 0), abs(exact)
    power = x.numerator.bit_length() - x.denominator.bit_length()
    power -= x < Fraction(2) ** power
    significand = round(x / Fraction(2) ** (power - m))  # Python rounds ties to even
    if significand == 2 ** (m + 1):
        significand, power = significand // 2, power + 1
    if power + bias > 2**e - 2:
        return (sign << e | 2**e - 1) << m
    if power + bias < 1:
        return sign << (e + m)
    return (sign << e | power + bias) << m | (significand - 2**m)


@pytest.mark.parametrize(("name", "accumulator"), [
    ("fp8_e4m3", "fp32"), ("fp8_e4m3", "fp16"), ("fp4_e2m1", "fp16"), ("fp8_e5m2", "fp32"), ("f16", "fp32"),
    ("bf16", "fp32"), ("posit8_1", "fp32"),
])  # fmt: skip
def test_a_floating_accumulator_rounds_to_nearest_even(name, accumulator, tmp_path):
    rng = np.random.default_rng(3)
    x, ports, values = ports_of(name)
    if name in ("f16", "bf16"):  # their subnormals are flushed: see operands.py
        smallest = Fraction(2) ** (-14 if name == "f16" else -126)
        values = [v if abs(v) >= smallest else Fraction(0) for v in values]
    e, m = FLOATING[accumulator]
    circuit = Circuit(mac(x, x, accumulator), tmp_path)
    count = 6000
    i, j = rng.integers(0, len(values), (2, count))
    products = [values[p] * values[q] for p, q in zip(i, j, strict=True)]
    acc = []
    for n, product in enumerate(products):  # a third near the product, a third cancelling it, a third anywhere
        near = rounded(product * (1 if n % 3 == 1 else -1), accumulator)
        exponent = near >> m & 2**e - 1
        bits = near ^ int(rng.integers(0, 2**3)) if 0 < exponent < 2**e - 1 else 0
        exponent = int(rng.integers(1, 2**e - 1))
        acc.append(bits if n % 3 else int(rng.integers(0, 2)) << (e + m) | exponent << m | int(rng.integers(0, 2**m)))
    acc[:40] = [0] * 40
    got = circuit.step(acc=acc, a=[ports[p] for p in i], b=[ports[q] for q in j])
    for before, product, after in zip(acc, products, got, strict=True):
        want = rounded(number(before, accumulator) + product, accumulator)
        zero = (1 << (e + m)) - 1  # either zero
        assert after == want or (after & zero == 0 and want & zero == 0), (before, product, after, want)


def number(bits: int, accumulator: str) -> Fraction:
    e, m = FLOATING[accumulator]
    exponent = bits >> m & 2**e - 1
    if exponent == 0:
        return Fraction(0)
    value = Fraction(2**m + (bits & 2**m - 1)) * Fraction(2) ** (exponent - (2 ** (e - 1) - 1) - m)
    return -value if bits >> (e + m) else value


def test_a_power_of_two_scale_shifts_the_sum_of_a_block(tmp_path):
    rng = np.random.default_rng(4)
    circuit = Circuit(scaling("e8m0", power_of_two(8), 24), tmp_path)
    count = 3000
    s = [int(n) for n in rng.integers(-(2**23), 2**23, count)]
    a, b = (rng.integers(100, 150, count).tolist() for _ in range(2))
    parts = rng.integers([0, 90, 0], [2, 170, 2**23], (count, 3)).tolist()
    acc = [sign << 31 | exponent << 23 | fraction for sign, exponent, fraction in parts]
    got = circuit.step(s=[n & 2**24 - 1 for n in s], a=a, b=b, acc=acc)
    for n, x, y, before, after in zip(s, a, b, acc, got, strict=True):
        exact = number(before, "fp32") + n * Fraction(2) ** (x + y - 254)
        assert after == rounded(exact, "fp32"), (n, x, y, before)


def test_integer_scales_multiply_the_sum_of_a_block(tmp_path):
    rng = np.random.default_rng(5)
    circuit = Circuit(integer_scaling(4, 24), tmp_path)
    s, (a, b) = rng.integers(-(2**23), 2**23, 500).tolist(), rng.integers(0, 16, (2, 500)).tolist()
    got = signed(circuit.step(s=[n & 2**24 - 1 for n in s], a=a, b=b, acc=[7] * 500), 32)
    assert got == [7 + n * x * y for n, x, y in zip(s, a, b, strict=True)]


def test_lanes_are_summed_before_they_are_accumulated(tmp_path):
    rng = np.random.default_rng(6)
    circuit = Circuit(mac(operand(element("sm4.2")), operand(element("sm4.2")), lanes=4), tmp_path)
    a, b = rng.integers(0, 16, (2, 500, 4))
    value = np.array([*range(8), *(-n for n in range(8))])
    packed = [[sum(int(c) << 4 * i for i, c in enumerate(row)) for row in x] for x in (a, b)]
    got = signed(circuit.step(acc=[0] * 500, a=packed[0], b=packed[1]), 23)
    assert got == (value[a] * value[b]).sum(1).tolist()
