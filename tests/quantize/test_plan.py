"""Which tensor gets which format: the grammar of rules, defaults, sizes known before the work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from scrimp.errors import GoalNotMet, UsageError
from scrimp.formats import ELEMENTS, parse
from scrimp.formats.format import SCALE_BITS
from scrimp.quantize import METHODS, budget, plan
from scrimp.quantize.apply import apply
from scrimp.quantize.methods import method
from scrimp.sources.source import Source, TensorInfo
from scrimp.sources.tokenizer_data import TokenizerData
from scrimp.tensors import F32, QTensor, from_floats

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
Q, DOWN = "model.layers.0.self_attn.q_proj.weight", "model.layers.11.mlp.down_proj.weight"
NORM = "model.norm.weight"


class InMemory(Source):
    """Tensors that were never in a file."""

    kind = "huggingface"

    def __init__(self, tensors: Mapping[str, F32]) -> None:
        self.values = tensors
        infos = {name: TensorInfo(name, v.shape, "F32", v.nbytes) for name, v in tensors.items()}
        super().__init__(
            Path("memory"), config={}, tensors=infos, tokenizer=TokenizerData.none(), notes=[], file_bytes=0
        )

    def read(self, name: str) -> QTensor | F32:
        values = self.values[name]
        return from_floats(parse("f32"), values) if values.ndim == 2 else values

    def close(self) -> None: ...


@pytest.fixture
def source() -> InMemory:
    generator = np.random.default_rng(0)
    shapes = {EMBEDDING: (96, 64), Q: (64, 64), DOWN: (64, 192), NORM: (64,), HEAD: (96, 64)}
    return InMemory({name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()})


def spelled(made: plan.Plan) -> dict[str, str]:
    return {name: str(choice) for name, choice in made.choices.items()}


@pytest.mark.parametrize(("text", "expected"), [
    ("int4", "int4:g64@rtn"),
    ("int4:g32@rtn", "int4:g32@rtn"),
    ("int4@rtn:absmax", "int4:g64@rtn:absmax"),
    ("int4@f32", "int4:g64@f32@rtn"),
    ("int4:row@bf16@rtn:absmax", "int4:row@bf16@rtn:absmax"),
    ("int4@f16@rtn", "int4:g64@rtn"),
    ("bf16", "bf16@rtn"),
    ("bf16@rtn", "bf16@rtn"),
])  # fmt: skip
def test_what_follows_the_last_at_is_a_method_or_a_scale_type(text: str, expected: str) -> None:
    choice = plan.parse_choice(text, "rtn")
    assert str(choice) == expected
    assert plan.parse_choice(str(choice), "other") == choice


def test_no_method_is_called_like_a_scale_type_or_a_format() -> None:
    assert not set(METHODS) & {*SCALE_BITS, *ELEMENTS}
    assert not any("@" in name or "=" in name for name in METHODS)


@pytest.mark.parametrize("text", ["int4@gptqq", "int4:g64@f15", "int4@rtn@f16@x"])
def test_an_unknown_method_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="neither a method nor a scale type"):
        plan.parse_choice(text, "rtn")


@pytest.mark.parametrize("text", ["", "int4", "=int4", "*=", "a=int9", "a=int4@rtn@"])
def test_what_is_no_rule_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        plan.parse_rule(text, "rtn")


def test_the_ends_are_int8_unless_told_otherwise(source: Source) -> None:
    made = plan.make(source, parse("int4:g32"))
    assert spelled(made) == {EMBEDDING: "int8:g64@rtn", Q: "int4:g32@rtn", DOWN: "int4:g32@rtn", HEAD: "int8:g64@rtn"}
    assert spelled(plan.make(source, parse("int4"), embedding=parse("int6")))[HEAD] == "int6:g64@rtn"
    assert spelled(plan.make(source, parse("bf16")))[EMBEDDING] == "bf16@rtn"
    assert NORM not in made.choices


def test_the_last_rule_that_matches_wins(source: Source) -> None:
    rules = [plan.parse_rule(text, "rtn") for text in ("*=ternary", "*.mlp.*=int8:row@rtn:absmax", "lm_head=f16")]
    assert spelled(plan.make(source, parse("int4"), rules=rules)) == {
        EMBEDDING: "ternary:row@rtn", Q: "ternary:row@rtn", DOWN: "int8:row@rtn:absmax", HEAD: "f16@rtn",
    }  # fmt: skip


@pytest.mark.parametrize(("glob", "hint"), [
    ("*.down_poj", "down_proj"), ("*.layers.0.mlp.*", "names look like"), (NORM, "only vectors"),
    ("model.layers.11.mlp.down", "down_proj"),
])  # fmt: skip
def test_a_rule_that_matches_nothing_names_what_is_near(source: Source, glob: str, hint: str) -> None:
    with pytest.raises(UsageError, match="matches no matrix") as told:
        plan.make(source, parse("int4"), rules=[plan.parse_rule(f"{glob}=int8", "rtn")])
    assert told.value.hint is not None
    assert hint in told.value.hint


def test_an_unknown_method_is_named_with_the_nearest(source: Source) -> None:
    with pytest.raises(UsageError, match="'rtnn' is no known method") as told:
        plan.make(source, parse("int4"), method_name="rtnn")
    assert "'rtn'" in str(told.value.hint)


@pytest.mark.parametrize("name", ["int4:g32", "int3:g64@f32", "int5z:row", "ternary", "binary:g32", "bf16", "f32"])
def test_bytes_are_known_before_the_work(source: Source, name: str) -> None:
    made = plan.make(source, parse(name), embedding=parse(name))
    stored = {done.name: done.tensor.nbytes for done in apply(made, source)}
    assert stored == {tensor: made.tensor_bytes(tensor) for tensor in made.shapes}
    assert sum(stored.values()) == made.nbytes
    assert made.parameters == 2 * 96 * 64 + 64 * 64 + 64 * 192 + 64


def test_keep_takes_the_formats_of_the_source(source: Source) -> None:
    made = plan.keep(source)
    assert set(spelled(made).values()) == {"f32@keep"}
    for done in apply(made, source):
        assert done.error == 0


def test_what_is_done_is_not_done_again(source: Source) -> None:
    made = plan.make(source, parse("int4"))
    assert [done.name for done in apply(made, source, done={EMBEDDING, DOWN})] == [Q, NORM, HEAD]


def test_nan_is_refused_with_the_name_of_its_tensor(source: InMemory) -> None:
    source.values[DOWN][3, 5] = np.nan  # type: ignore[index]
    with pytest.raises(Exception, match=f"{DOWN}: 1 of 12,288 weights"):
        list(apply(plan.make(source, parse("int4")), source))


@pytest.mark.parametrize("name", ["rtn", "rtn:absmax"])
def test_plain_rounding_fills_every_kind_of_format(name: str) -> None:
    weight = np.random.default_rng(0).standard_normal((20, 72)).astype(np.float32)
    for format in map(parse, ("int4:g32", "int3z:row", "ternary", "binary:tensor", "bf16")):
        made = method(name)(weight, format)
        assert (made.format, made.shape) == (format, (20, 72))


def test_a_ladder_only_goes_down(source: Source) -> None:
    rungs = list(budget.ladder())
    assert [body.element.bits for body, _ in rungs] == sorted((body.element.bits for body, _ in rungs), reverse=True)
    assert all(end.element.bits >= max(4, body.element.bits) for body, end in rungs)


def test_the_first_rung_that_fits_is_taken(source: Source) -> None:
    sizes = [plan.make(source, body, embedding=end).nbytes for body, end in budget.ladder()]
    for limit in (max(sizes), min(sizes), sorted(sizes)[len(sizes) // 2]):
        fitted = budget.fit(source, limit, lambda made: made.nbytes)
        first = next(size for size in sizes if size <= limit)
        assert fitted.nbytes == first <= limit


def test_a_size_no_plan_reaches_names_the_smallest(source: Source) -> None:
    smallest = min(plan.make(source, body, embedding=end).nbytes for body, end in budget.ladder())
    with pytest.raises(GoalNotMet, match=f"the smallest takes {smallest:,} bytes") as told:
        budget.fit(source, smallest - 1, lambda made: made.nbytes)
    assert told.value.exit_code == 4


def test_a_fixed_embedding_stays_fixed_on_the_ladder(source: Source) -> None:
    fitted = budget.fit(source, 10**9, lambda made: made.nbytes, embedding=parse("int5:row"))
    assert fitted.choices[HEAD].format.name == "int5:row"


@pytest.mark.parametrize("name", ["e8m0", "e8m0:g64"])
def test_a_format_without_a_sign_is_refused_before_anything_is_read(name):
    with pytest.raises(UsageError, match="neither sign nor zero"):
        plan.storable(name)
