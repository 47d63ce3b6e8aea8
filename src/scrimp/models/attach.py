"""A Program rewritten by the side-cars that are there: for every architecture, since only products are looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from scrimp.models.hadamard import table
from scrimp.models.sidecars import F32, Beside, beside, folds
from scrimp.program import Op, Program


def attach(program: Program, shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], F32]) -> Program:
    """The Program with the side-cars among ``shapes``; ``read`` returns those that are vectors.

    The numbers of its buffers stay; further ones come after them. Refused, by name, where a side-car fits nothing.
    """
    found = beside(program, shapes, read)
    return _Attached(program, found).program if found else program


class _Attached:
    """A Program in the making: operations are copied, and products with side-cars become several."""

    def __init__(self, program: Program, beside: Mapping[str, Beside]) -> None:
        self.program = Program(
            dict(program.matrices), dict(program.vectors), [], list(program.widths), list(program.caches),
            program.output,
        )  # fmt: skip
        self._beside = beside
        self._made: dict[tuple[object, ...], tuple[int, ...]] = {}  # rotated and selected inputs that are there
        self._turned: set[int] = set()  # buffers that stay rotated from one matrix to the next
        turning = {name: found.rotation for name, found in beside.items() if found.rotation is not None}
        for fold in folds(program):
            if fold.holds(turning):
                self._turned |= fold.buffers
        for name, found in beside.items():
            rows, cols = program.matrices[name]
            if found.rank:
                self.program.matrices |= {
                    f"{name}.lowrank_a": (found.rank, cols),
                    f"{name}.lowrank_b": (rows, found.rank),
                }
            if found.channels:
                self.program.matrices[f"{name}.outliers"] = (rows, len(found.channels))
        for op in program.ops:
            if op.kind == "linear" and any(name in beside for name in op.weights):
                self._linear(op)
            else:
                self.program.ops.append(op)

    def _linear(self, op: Op) -> None:
        """Weights that read the same thing stay one product, so that its activations are quantized once."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for at, name in enumerate(op.weights):
            groups.setdefault(self._inputs(op.inputs[0], self._of(name)), []).append(at)
        for sources, members in groups.items():
            self._product(op, sources, members)

    def _inputs(self, x: int, beside: Beside) -> tuple[int, ...]:
        """The buffers that a matrix reads in the place of ``x``; of those that are there already no second ones."""
        width = self.program.widths[x]
        if beside.rotation is not None and x not in self._turned:
            seed, stretches = beside.rotation.seed, beside.rotation.inputs
            key: tuple[object, ...] = (x, seed, stretches)
            if key not in self._made:
                self._made[key] = (self._buffer(width),)
                floats = table(width // stretches, seed)
                self._append(Op("hadamard", (x,), self._made[key], ints=(0, stretches), floats=floats))
            return self._made[key]
        if beside.channels:
            key = (x, beside.channels)
            if key not in self._made:
                self._made[key] = (self._buffer(width), self._buffer(len(beside.channels)))
                self._append(Op("select", (x,), self._made[key], ints=beside.channels))
            return self._made[key]
        return (x,)

    def _product(self, op: Op, sources: tuple[int, ...], members: Sequence[int]) -> None:
        """One product of the members, their low-rank halves in it, and what makes each output of its result."""
        names, biases = list(op.weights), list(op.vectors) or [""] * len(op.weights)
        beside = {at: self._of(names[at]) for at in members}
        back = {
            at: found.rotation
            for at, found in beside.items()
            if found.rotation is not None and op.outputs[at] not in self._turned
        }
        result = {
            at: self._buffer(self.program.matrices[names[at]][0]) if at in back or found.rank or found.channels
            else op.outputs[at]
            for at, found in beside.items()
        }  # fmt: skip
        low = {at: self._buffer(found.rank) for at, found in beside.items() if found.rank}
        weights = (*(names[at] for at in members), *(f"{names[at]}.lowrank_a" for at in low))
        vectors = (*("" if at in back else biases[at] for at in members), *("" for _ in low))
        outputs = (*result.values(), *low.values())
        self._append(Op("linear", sources[:1], outputs, weights, vectors if any(vectors) else (), op.ints))
        for at, found in beside.items():
            out = op.outputs[at]
            if at in back:
                floats = table(self.program.matrices[names[at]][0] // back[at].outputs, back[at].seed)
                bias, ints = (biases[at],) if biases[at] else (), (1, back[at].outputs)
                self._append(Op("hadamard", (result[at],), (out,), (), bias, ints, floats))
            elif found.rank:
                self._append(Op("add", (result[at], self._multiply(low[at], f"{names[at]}.lowrank_b")), (out,)))
            elif found.channels:
                self._append(Op("add", (result[at], self._multiply(sources[1], f"{names[at]}.outliers")), (out,)))

    def _multiply(self, x: int, name: str) -> int:
        out = self._buffer(self.program.matrices[name][0])
        self._append(Op("linear", (x,), (out,), (name,)))
        return out

    def _of(self, name: str) -> Beside:
        return self._beside.get(name, Beside())

    def _buffer(self, width: int) -> int:
        self.program.widths.append(width)
        return len(self.program.widths) - 1

    def _append(self, op: Op) -> None:
        self.program.ops.append(op)
