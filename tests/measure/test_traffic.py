"""Bytes of a step of decoding, counted by hand on a two-layer network."""

from scrimp.engine import OpTime
from scrimp.measure.traffic import Traffic, label, op_costs
from scrimp.program import Program

HEADS, KV_HEADS, HEAD_DIM, WIDTH, VOCAB = 4, 2, 8, 32, 100


def network(tied):
    head = "embed.weight" if tied else "head.weight"
    matrices = {"embed.weight": (VOCAB, WIDTH), "head.weight": (VOCAB, WIDTH)}
    for layer in range(2):
        matrices |= {f"layers.{layer}.q.weight": (32, WIDTH), f"layers.{layer}.kv.weight": (16, WIDTH)}
    p = Program(matrices, {"norm.weight": WIDTH})
    x = p.embed("embed.weight")
    for layer in range(2):
        (q,) = p.linear(x, f"layers.{layer}.q.weight")
        (k,) = p.linear(x, f"layers.{layer}.kv.weight")
        x = p.attention(q, k, k, heads=HEADS, kv_heads=KV_HEADS, scale=1.0)
    (out,) = p.linear(p.rms_norm(x, "norm.weight", 1e-5), head)
    p.output = out.index
    sizes = {name: rows * cols for name, (rows, cols) in matrices.items()} | {"norm.weight": 4 * WIDTH}
    return Traffic(p, sizes)


def test_a_tied_head_is_read_once_and_an_embedding_one_row():
    layers = 2 * (32 + 16) * WIDTH
    cache = 2 * (2 * (9 + 1) * KV_HEADS * HEAD_DIM * 2)
    expected = layers + VOCAB * WIDTH + WIDTH + 4 * WIDTH + cache
    assert network(tied=True).bytes_per_token(9) == expected
    assert network(tied=False).bytes_per_token(9) == expected


def test_operations_of_a_sort_are_added_up_over_layers():
    traffic = network(tied=False)
    times = [OpTime(op, 3, 0.5) for op in traffic.program.ops]
    costs = {cost.op: cost for cost in op_costs("decode", times, traffic, 9)}
    assert (costs["linear q"].calls, costs["linear q"].seconds) == (6, 1.0)
    assert costs["linear q"].bytes == 6 * 32 * WIDTH
    assert costs["embed embed"].bytes == 3 * WIDTH
    assert sum(cost.bytes for cost in costs.values()) == 3 * traffic.bytes_per_token(9)


def test_the_costliest_comes_first():
    traffic = network(tied=False)
    times = [OpTime(op, 1, float(i)) for i, op in enumerate(traffic.program.ops)]
    seconds = [cost.seconds for cost in op_costs("decode", times, traffic, 0)]
    assert seconds == sorted(seconds, reverse=True)


def test_labels_have_no_layer():
    assert [label(op) for op in network(tied=True).program.ops][:3] == ["embed embed", "linear q", "linear kv"]


def test_multiply_adds_of_a_prompt_leave_out_what_only_its_last_token_needs():
    traffic = network(tied=False)
    ops = traffic.program.ops
    q, attention, head = (
        next(op for op in ops if label(op) == name) for name in ("linear q", "attention", "linear head")
    )
    assert traffic.macs_of(q, 9) == 32 * WIDTH
    assert traffic.macs_of(attention, 9) == 2 * 10 * HEADS * HEAD_DIM
    assert traffic.macs_of_prompt(q, 50) == 50 * 32 * WIDTH
    assert traffic.macs_of_prompt(head, 50) == VOCAB * WIDTH
    assert traffic.macs_of(ops[0], 9) == 0
