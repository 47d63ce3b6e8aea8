"""Networks of codebooks in the executor: every product is what stored weights and rounded inputs give, in bounds."""

import numpy as np
import pytest
from tests.core.product_oracle import UNIT, bound_of_levels, exact_and_bound, gamma, quantize
from tests.engine.tiny_network import CONFIG

from scrimp import models
from scrimp.engine import Engine
from scrimp.formats import parse
from scrimp.quantize import rtn

TOKENS = np.random.default_rng(4).integers(0, 97, 50).astype(np.int32)


@pytest.mark.parametrize("name", ["nf4:g64", "mxfp4", "iq4nl:g32", "kmeans3:g32"])
def test_logits_and_every_product_before_them_are_within_the_bound(name, isa):
    rng = np.random.default_rng(8)
    parsed, program = models.build(CONFIG)
    matrices = {
        key: rtn.quantize(rng.normal(0, shape[1] ** -0.5, shape).astype(np.float32), parse(name))
        for key, shape in program.matrices.items()
    }
    vectors = {key: rng.normal(1, 0.1, size).astype(np.float32) for key, size in program.vectors.items()}
    engine = Engine(program, matrices, vectors, context=parsed.context, threads=2, isa=isa)
    wanted = {buffer for op in program.ops if op.kind in ("embed", "linear") for buffer in (*op.inputs, *op.outputs)}
    decoded = {key: matrix.dequantize().astype(np.float64) for key, matrix in matrices.items()}
    for start, tokens in ((0, TOKENS), (50, TOKENS[:1]), (51, TOKENS[:6])):
        seen = engine.run(tokens, start, 0, len(program.ops), outputs=sorted(wanted))
        for op in program.ops:
            if op.kind == "embed":
                assert np.array_equal(seen[op.outputs[0]], matrices[op.weights[0]].dequantize()[tokens])
            for key, output in zip(op.weights, op.outputs, strict=True) if op.kind == "linear" else ():
                x, matrix = seen[op.inputs[0]], matrices[key]
                q, sx = quantize(x, 32)
                inputs = q * np.repeat(sx.astype(np.float64), 32, axis=1)[:, : x.shape[1]]
                rounding = exact_and_bound(matrix, x, 32)[1] + UNIT * np.abs(inputs) @ np.abs(decoded[key]).T
                off = np.abs(seen[output] - inputs @ decoded[key].T)
                assert np.all(off <= rounding + bound_of_levels(matrix, x, 32)), key
    reference = Engine(program, matrices, vectors, context=64, threads=1, isa=isa, arithmetic="f32")
    last = program.ops[-1]
    seen = reference.run(TOKENS, 0, 0, len(program.ops), outputs=[last.inputs[0], last.outputs[0]])
    x, weight = seen[last.inputs[0]].astype(np.float64), decoded[last.weights[0]]
    bound = gamma(x.shape[1] + 1) * (np.abs(x) @ np.abs(weight).T)
    assert np.all(np.abs(seen[last.outputs[0]] - x @ weight.T) <= bound)
