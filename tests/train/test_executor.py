"""The torch executor against the engine: the same operations, written twice by different hands."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from networks_for_training import CONFIG, QWEN2, engine_of, network_of, program_of, random_weights
from torch import Tensor

from scrimp.models.hadamard import odd_factor, table, turn
from scrimp.program import KINDS, Op
from scrimp.train import executor
from scrimp.train.executor import Network, Run, run

sys.path.append(str(Path(__file__).parents[1] / "models"))
from architectures import ALL

TOKENS = np.random.default_rng(0).integers(0, 50, 32)
#: Unit roundoff of float32.
U = 2.0**-24
#: Relative size of a disturbance that is small to the network and large to float64.
DELTA = 1e-6


def in_float64(network: Network) -> Network:
    for weight in network.matrices.values():
        weight._dense = weight._dense.double()
    return Network(network.program, network.matrices, {name: v.double() for name, v in network.vectors.items()})


def roundings(op: Op, widths: list[int]) -> int:
    """Roundings in a row that an operation's result may go through in float32."""
    inner = (
        {
            "linear": widths[op.inputs[0]],
            "rms_norm": widths[op.inputs[0]] + 4,
            "rope": 2 * len(TOKENS),
            "layer_norm": 2 * widths[op.inputs[0]] + 4,
            "softcap": 9,
            "activation": 25,
        }
        if op.inputs
        else {}
    )
    if op.kind == "attention":
        return op.ints[3] + 2 * len(TOKENS) + 4
    return inner.get(op.kind, 4)


def bound_of(network: Network, tokens: Tensor, exact: Tensor, monkeypatch: pytest.MonkeyPatch) -> float:
    """First-order error analysis: each operation's roundings times what a disturbance of its result does to the logits.

    The disturbance has random signs and full size; roundings have, in the worst case, full size too.
    """
    total = 0.0
    signs = torch.Generator().manual_seed(1)
    for target in network.program.ops:
        plain = executor.OPERATIONS[target.kind]

        def disturbed(this: Run, op: Op, inputs: list[Tensor], target=target, plain=plain) -> tuple[Tensor, ...]:
            made = plain(this, op, inputs)
            if op is not target:
                return made
            return tuple(
                x + DELTA * x.abs().amax() * (2.0 * torch.randint(2, x.shape, generator=signs) - 1) for x in made
            )

        monkeypatch.setitem(executor.OPERATIONS, target.kind, disturbed)
        (found,) = run(network, tokens, (network.program.output,))
        monkeypatch.setitem(executor.OPERATIONS, target.kind, plain)
        total += float((found - exact).abs().max()) / DELTA * roundings(target, network.program.widths) * U
    return total


CONFIGS = {"llama": CONFIG, "qwen2, tied, with biases": QWEN2, **ALL}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_logits_are_the_engines(config, monkeypatch):
    program = program_of(config)
    weights = random_weights(program)
    tokens = torch.from_numpy(TOKENS)[None]
    single = run(network_of(program, *weights), tokens, (program.output,))[0][0]
    double = in_float64(network_of(program, *weights))
    (exact,) = run(double, tokens, (program.output,))
    bound = bound_of(double, tokens, exact, monkeypatch)
    engine = engine_of(program, *weights, arithmetic="f32").forward(TOKENS, 0, all_logits=True)
    assert bound < 3e-3 * float(exact.abs().max()), "the bound says nothing"
    assert float((single.double() - exact[0]).abs().max()) <= bound
    assert np.abs(engine - exact[0].numpy()).max() <= bound


def test_every_operation_of_a_program_has_a_function():
    assert executor.OPERATIONS.keys() == KINDS.keys()


def test_a_slice_of_the_operations_continues_from_a_buffer():
    program = program_of(CONFIG)
    network = network_of(program, *random_weights(program))
    tokens = torch.from_numpy(TOKENS)[None]
    (whole,) = run(network, tokens, (program.output,))
    border = next(op.outputs[0] for op in program.ops if op.kind == "add")
    at = next(i for i, op in enumerate(program.ops) if border in op.outputs) + 1
    (middle,) = run(network, tokens, (border,), last=at)
    (rest,) = run(network, tokens, (program.output,), first=at, inputs={border: middle})
    assert torch.equal(rest, whole)


def test_gradients_are_finite_differences():
    """In float64, of the mean of the squared logits, for a norm of the first layer and a weight of the second."""
    program = program_of(QWEN2)
    network = in_float64(network_of(program, *random_weights(program)))
    tokens = torch.from_numpy(TOKENS)[None, :8]
    norm = network.vectors["model.layers.0.input_layernorm.weight"].requires_grad_()
    down = network.matrices["model.layers.1.mlp.down_proj.weight"]
    down._dense.requires_grad_()

    def loss() -> Tensor:
        return run(network, tokens, (program.output,))[0].square().mean()

    loss().backward()
    for values in (norm, down._dense):
        direction = torch.randn(values.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        slope = float((values.grad * direction).sum())
        sides = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                values += step * direction
                sides.append(float(loss()))
                values -= step * direction
        # a central difference errs by its step squared times the third derivative, here of the order of the slope
        assert (sides[0] - sides[1]) / 2e-5 == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize(
    ("width", "stretches"), [(1, 1), (2, 1), (9, 1), (50, 5), (60, 1), (192, 3), (576, 9), (1536, 1)]
)
@pytest.mark.parametrize("inverse", [0, 1])
def test_rotations_are_those_of_their_definition(width, stretches, inverse):
    x = np.random.default_rng(width).normal(size=(2, 3, width)).astype(np.float32)
    op = Op("hadamard", (0,), (1,), ints=(inverse, stretches), floats=table(width // stretches, 7))
    (found,) = executor.OPERATIONS["hadamard"](None, op, [torch.from_numpy(x)])
    exact = turn(x, op.floats, stretches=stretches, inverse=bool(inverse))
    # an entry of either product is a sum of one side's length; what is summed is at most ‖x‖ · √2 of this stretch
    m = odd_factor(width // stretches)
    side = 1 << (math.isqrt(width // stretches) - 1).bit_length()
    roundings = side + max(1, width // stretches // side) + m + 3
    size = 2 * np.linalg.norm(x.reshape(2, 3, stretches, -1), axis=-1).max()
    assert np.abs(found.numpy() - exact).max() <= roundings * U * size
