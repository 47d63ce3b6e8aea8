"""The networks a user runs: SmolLM2-135M against transformers, stories260K against llama2.c's own sample."""

import numpy as np
import pytest

import scrimp

TEXT = (
    "The tower is 324 metres tall, about the same height as an 81-storey building. def area(w, h): return w * h\n"
    "Naïve café, 漢字, 😀 and the rest of a page that mixes what people write."
)


@pytest.fixture(scope="module")
def original(smollm2):
    with scrimp.open(smollm2, arithmetic="f32", context=512) as model:
        yield model


@pytest.fixture(scope="module")
def oracle_logits(original):
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    transformers = pytest.importorskip("transformers", reason="transformers is the oracle")
    network = transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(**original.config)).eval().float()
    state = {}
    for name in (*original.program.matrices, *original.program.vectors):
        tensor = original.source.read(name)
        state[name] = torch.tensor(tensor if isinstance(tensor, np.ndarray) else tensor.dequantize())
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert missing == ["lm_head.weight"]  # tied
    assert unexpected == []
    network.tie_weights()
    with torch.no_grad():
        return network(torch.tensor(original.tokenizer.encode(TEXT))[None]).logits[0].numpy()


def test_smollm2_logits_equal_transformers(original, oracle_logits):
    ours = original.logits(original.tokenizer.encode(TEXT))
    assert ours.shape == oracle_logits.shape
    assert np.abs(ours - oracle_logits).max() < 1e-3


def test_smollm2_knows_the_capital_of_france(smollm2, tmp_path):
    def continuation(model):
        with scrimp.open(model, context=64) as opened:
            return "".join(opened.generate("The capital of France is", raw=True, temperature=0, max_tokens=4))

    assert continuation(smollm2).strip().startswith("Paris")
    scrimp.compress(str(smollm2), tmp_path / "keep", keep=True)
    assert continuation(tmp_path / "keep") == continuation(smollm2)
    scrimp.compress(str(smollm2), tmp_path / "int8", format="int8:g64", method="rtn:absmax")
    assert continuation(tmp_path / "int8").strip().startswith("Paris")


def test_keep_changes_no_value_of_smollm2(smollm2, tmp_path):
    scrimp.compress(str(smollm2), tmp_path / "keep", keep=True)
    with scrimp.open(smollm2, context=64) as before, scrimp.open(tmp_path / "keep", context=64) as after:
        for name in before.program.matrices:
            old, new = before.source.read(name), after.source.read(name)
            assert old.format == new.format
            assert np.array_equal(old.dequantize().view(np.uint32), new.dequantize().view(np.uint32)), name
        tokens = before.tokenizer.encode(TEXT)[:60]
        assert np.array_equal(before.logits(tokens), after.logits(tokens))


@pytest.mark.parametrize("arithmetic", ["f32", "int8"])
def test_stories260k_tells_the_story_of_llama2c(shared_data, arithmetic, isa):
    folder = shared_data("stories260K")
    model = scrimp.open(folder / "stories260K.bin", tokenizer=folder / "tok512.bin", arithmetic=arithmetic, isa=isa)
    with model:
        text = "".join(model.generate("Once upon a time", raw=True, temperature=0, max_tokens=200))
    expected = (folder / "greedy_200.txt").read_text().strip()
    assert len(expected) > 400
    assert ("Once upon a time" + text).strip()[: len(expected)] == expected
