"""``scrimp compare`` as a user types it, on two whole tiny models."""

import json

import pytest
from tiny_model import WORDS, write_text, write_tiny_model

from scrimp.cli.main import main


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    where = tmp_path_factory.mktemp("models")
    return [write_tiny_model(where / "one"), write_tiny_model(where / "two", seed=1)]


def run(models, text, *arguments):
    flags = ["--context", "32", "--prefill", "16", "--decode", "8", "--rounds", "2", "--threads", "1"]
    return main(["compare", *map(str, models), "--text", str(text), *flags, *arguments])


def test_rows_are_the_union_of_totals_evaluation_and_speed(models, tmp_path, capsys):
    text = write_text(tmp_path / "text.txt", 200)
    assert run(models, text, "--reference", str(models[0]), "--json") == 4, "random weights know less than word counts"
    one, two = json.loads(capsys.readouterr().out)["rows"]
    for row, path in ((one, models[0]), (two, models[1])):
        assert row["model"] == str(path)
        assert row["bits_per_weight"] == pytest.approx(8 * row["file_bytes"] / row["parameters"], rel=1e-12)
        assert row["decode_tokens_per_s"]["n"] == 2
        assert row["tokens"] == 6 * 31
        assert row["energy_modelled"]["node"] == "45nm"
        assert row["energy_modelled"]["total_mj"] > 0
    assert one["parameters"] == 2 * 24 * 32 + 2 * 32 * 32 + 2 * 16 * 32 + 3 * 64 * 32 + 3 * 32
    assert one["kl_mean"] < 0.05 < 1 < two["kl_mean"]


def test_a_row_agrees_with_eval_of_that_model_alone(models, tmp_path, capsys):
    text = write_text(tmp_path / "text.txt", 200)
    assert run(models, text, "--json") == 4
    row = json.loads(capsys.readouterr().out)["rows"][1]
    assert main(["eval", str(models[1]), "--text", str(text), "--context", "32", "--json"]) == 4
    alone = json.loads(capsys.readouterr().out)
    assert {key: row[key] for key in ("nll", "nll_se", "ppl", "tokens", "protocol")} == {
        key: alone[key] for key in ("nll", "nll_se", "ppl", "tokens", "protocol")
    }


def test_a_table_for_people(models, tmp_path, capsys):
    assert run(models, write_text(tmp_path / "text.txt", 200)) == 4
    printed = capsys.readouterr()
    header, *rows = printed.out.splitlines()
    assert header.split()[:2] == ["model", "bytes"]
    assert header.endswith("mJ/token (modelled)")
    assert "modelled, not measured" in printed.err
    assert "BROKEN: word counts alone predict this text better than" in printed.err.splitlines()[-1]
    assert len(rows) == 2
    assert all("BROKEN" in row for row in rows), "random weights predict worse than word counts"


def test_models_with_different_words_are_refused(models, tmp_path, capsys):
    other = write_tiny_model(tmp_path / "other", words=WORDS[::-1])
    assert run([models[0], other], write_text(tmp_path / "text.txt", 200)) == 3
    assert "different tokens" in capsys.readouterr().err


def test_a_page_shows_the_front_and_opens_offline(models, tmp_path, capsys):
    out = tmp_path / "report.html"
    text = write_text(tmp_path / "text.txt", 200)
    assert run(models, text, "--reference", str(models[0]), "-o", str(out)) == 4
    page = out.read_text(encoding="utf-8")
    assert page.count("<svg") == 2
    assert 'class="coded"' not in page, "both are BROKEN, so there is no front"
    assert page.count('class="broken"') == 4
    assert "http" not in page
    assert "<script" not in page


def test_a_page_that_cannot_be_written_is_known_before_anything_is_measured(models, tmp_path, capsys):
    text = write_text(tmp_path / "text.txt", 200)
    assert run(models, text, "-o", str(tmp_path)) != 0
    assert "is a directory" in capsys.readouterr().err
    assert run(models, text, "-o", str(tmp_path / "no" / "report.html")) != 0
    assert "no" in capsys.readouterr().err
