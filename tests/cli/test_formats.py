"""``scrimp formats`` as a user types it."""

import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from tiny_model import write_tiny_model

from scrimp.cli.main import main
from scrimp.formats import ELEMENTS, NAMED, encode
from scrimp.sources import open_source

UP = "model.layers.0.mlp.up_proj.weight"
KEYS = {"name", "bits_per_value", "element_bits", "block", "levels", "max", "min_positive", "sqnr_db", "energy_pj",
        "area"}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def run_json(capsys, *arguments):
    assert main(["formats", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_json_has_every_format_of_the_catalogue_with_the_keys_of_the_contract(capsys):
    found = run_json(capsys)["formats"]
    assert len(found) == len({row["name"] for row in found}) == len(ELEMENTS) + len(NAMED)
    assert all(set(row) >= KEYS for row in found)
    rows = {row["name"]: row for row in found}
    fp8 = rows["fp8_e4m3"]
    assert (fp8["bits_per_value"], fp8["levels"], fp8["max"], fp8["min_positive"]) == (8, 253, 448, 2**-9)
    assert (rows["int4:g64"]["block"], rows["int4:g64"]["bits_per_value"]) == (64, 4.25)
    assert (rows["f32"]["sqnr_db"], rows["f32"]["levels"]) == (None, 2**32 - 2**24 - 1)  # exact: infinity is no JSON
    assert (rows["q4_1"]["max"], rows["q4_1"]["min_positive"]) == (15, 1)


def test_levels_are_counted_as_numpy_counts_them(capsys):
    rows = {row["name"]: row for row in run_json(capsys, "f16", "bf16")["formats"]}
    for name, halves in (("f16", np.arange(2**16, dtype=np.uint16).view(np.float16)),
                         ("bf16", (np.arange(2**16, dtype=np.uint32) << 16).view(np.float32))):  # fmt: skip
        assert rows[name]["levels"] == len(set(halves[np.isfinite(halves)].tolist()))


def test_the_table_says_what_the_kernels_run(capsys):
    assert main(["formats"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert lines["int4:g64"].endswith("run it")
    assert lines["mxfp4"].endswith("run it")
    assert not lines["posit8_1"].endswith("run it")


def test_details_define_the_format_and_list_its_levels(capsys):
    assert main(["formats", "fp4_e2m1", "int4z:g32"]) == 0
    out = capsys.readouterr().out
    assert "s ee m" in out
    assert "-6  -4  -3  -2  -1.5  -1  -0.5  0  0.5  1  1.5  2  3  4  6" in out
    assert "scale * code + min" in out
    assert all(name in out for name in ("gaussian", "laplace", "student_t"))


def test_the_error_on_a_tensor_is_that_of_encoding_it(model, capsys):
    with open_source(model) as source:
        x = source.read(UP).decode().astype(np.float64)
    gap = x - encode(x.astype(np.float32), "nf4:g32").decode()
    row = run_json(capsys, "nf4:g32", "--on", f"{model}:{UP}")["formats"][0]
    assert row["on"]["sqnr_db"] == pytest.approx(10 * math.log10((x**2).sum() / (gap**2).sum()))
    assert row["on"]["max_error"] == abs(gap).max()
    assert row["on"]["sqnr_scaled_db"] is None


def test_a_format_without_a_scale_is_also_shown_with_one(model, capsys):
    on = run_json(capsys, "fp4_e2m1", "--on", f"{model}:{UP}")["formats"][0]["on"]
    assert on["sqnr_scaled_db"] > on["sqnr_db"] + 6  # weights of 0.2 among levels half apart


def test_a_whole_model_is_the_mean_of_its_matrices(model, capsys):
    found = run_json(capsys, "int4:g32", "--on", model)
    each = []
    with open_source(model) as source:
        matrices = [name for name, info in source.tensors.items() if len(info.shape) == 2]
        for name in matrices:
            x = source.read(name).decode().astype(np.float64)
            each.append(((x - encode(x.astype(np.float32), "int4:g32").decode()) ** 2).sum() / (x**2).sum())
    assert found["on"]["tensors"] == len(matrices) == 9
    assert found["on"]["weights"] == found["on"]["weights_seen"]
    assert found["formats"][0]["on"]["sqnr_db"] == pytest.approx(-10 * math.log10(np.mean(each)))
    assert found["formats"][0]["on"]["worst"] == matrices[int(np.argmax(each))]


def test_one_tensor_shows_how_its_levels_are_used(model, capsys):
    assert main(["formats", "int2:g32", "--on", f"{model}:{UP}"]) == 0
    out = capsys.readouterr().out
    assert "capacity %" in out
    assert re.search(r"^  all +100\.00", out, re.MULTILINE)


class Page(HTMLParser):
    """Open tags, ids and targets."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.attributes = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(model, tmp_path, capsys):
    out = tmp_path / "report.html"
    names = ["int4", "fp8_e4m3", "mxfp4", "kmeans3", "ternary", "posit8_1", "q4_1", "e8m0", "f32", "int1", "f16"]
    assert main(["formats", *names, "--on", f"{model}:{UP}", "-o", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not re.search(r"https?:|url\(|@import|nan|inf\b", text.replace("infinit", "")), "outside links, or no number"
    targets = {value[1:] for name, value in page.attributes if name == "href"}
    assert targets <= set(page.ids)
    assert len(page.ids) == len(set(page.ids)) == len(names)
    assert page.tags.count("svg") > 2 * len(names)
    assert list(tmp_path.iterdir()) == [out]
    assert "report.html" in capsys.readouterr().out


def test_a_page_of_the_whole_catalogue_is_below_a_megabyte(tmp_path, capsys):
    out = tmp_path / "all.html"
    assert main(["formats", "-o", str(out)]) == 0
    assert out.stat().st_size < 1_000_000
    assert len(Page(out.read_text(encoding="utf-8")).ids) == len(ELEMENTS) + len(NAMED)


def test_a_hostile_name_is_text_in_the_page(tmp_path, capsys):
    directory = tmp_path / "a<b onload=x>"
    write_tiny_model(directory)
    out = tmp_path / "page.html"
    assert main(["formats", "int4", "--on", str(directory), "-o", str(out)]) == 0
    assert "<b onload" not in out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [(["int5x"], 2, "int5"), (["mxfp5"], 2, "mxfp4"), (["int4:g7"], 2, ":g64"),
     (["int4", "--on", "no-such-model"], 1, "no-such-model"), (["int4", "-o", "missing/dir/x.html"], 1, "mkdir")],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line_with_a_hint(arguments, code, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["formats", *arguments]) == code
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 2  # error and hint
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_tensor_names_the_nearest(model, capsys):
    assert main(["formats", "int4", "--on", f"{model}:model.layers.0.mlp.up_pro"]) == 2
    assert UP in capsys.readouterr().err


def test_a_directory_is_no_place_for_a_page(tmp_path, capsys):
    assert main(["formats", "int4", "-o", str(tmp_path)]) == 1
    assert "directory" in capsys.readouterr().err
