"""What lies at a path is decided by content; what is no model is refused with the next step."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_llama as tiny

from scrimp.errors import Refused, ScrimpError, UsageError
from scrimp.sources import open_source


def test_a_missing_path_says_so(tmp_path: Path) -> None:
    with pytest.raises(ScrimpError, match="does not exist"):
        open_source(tmp_path / "nothing")


def test_the_name_of_a_gguf_does_not_matter(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    tiny.write_gguf(tmp_path / "model", tiny.weights())
    with open_source(tmp_path / "model") as source:
        assert source.kind == "gguf"
    with pytest.raises(UsageError, match="brings its own tokenizer"):
        open_source(tmp_path / "model", tokenizer=tmp_path / "tok.bin")


FILES: dict[str, tuple[str, bytes, str]] = {
    "nothing": ("m.xyz", b"", "is no model that scrimp knows"),
    "a text": ("m.txt", b"Once upon a time", "is no model that scrimp knows"),
    "an empty bin": ("m.bin", b"", "is empty"),
    "a GGUF of 4 bytes": ("m.gguf", b"GGUF", "the version needs 4 bytes"),
    "a zipped pickle": ("m.pt", b"PK\x03\x04" + bytes(40), "is a PyTorch pickle"),
    "a zipped pickle called bin": ("pytorch_model.bin", b"PK\x03\x04" + bytes(40), "is a PyTorch pickle"),
    "a plain pickle": ("m.pkl", b"\x80\x04" + bytes(40), "is a PyTorch pickle"),
    "a safetensors file": ("model.safetensors", b"\2\0\0\0\0\0\0\0{}", "is a single safetensors file"),
    "a safetensors file by content": ("m", b"\2\0\0\0\0\0\0\0{}", "is a single safetensors file"),
    "another bin": ("m.bin", b"x" * 400, "config: "),
}


@pytest.mark.parametrize("what", FILES)
def test_refuses_a_file(what: str, tmp_path: Path) -> None:
    name, content, message = FILES[what]
    (tmp_path / name).write_bytes(content)
    tokenizer = tmp_path / "tok.bin"
    tokenizer.write_bytes(b"tokens")
    with pytest.raises(Refused) as refused:
        open_source(tmp_path / name, tokenizer=tokenizer if name.endswith("m.bin") else None)
    assert message in refused.value.message


def test_an_empty_directory_is_refused_and_a_gguf_in_it_is_pointed_at(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"holds no config\.json"):
        open_source(tmp_path)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(Refused) as refused:
        open_source(tmp_path)
    assert str(tmp_path / "m.gguf") in (refused.value.hint or "")
