"""``scrimp compare --sweep`` as a user types it."""

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress

import pytest
from tiny_model import write_text, write_tiny_model

from scrimp.cli.main import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("sweep")
    write_tiny_model(where / "tiny")
    write_text(where / "text.txt", 100)
    (where / "sweep.toml").write_text(
        'model = "tiny"\n[grid]\nformats = ["int8", "int2"]\nmethods = ["rtn", "hqq"]\n[evaluation]\ncontext = 32\n'
    )
    return where


def run(folder, *flags):
    return main(
        ["compare", "--sweep", str(folder / "sweep.toml"), "--text", str(folder / "text.txt"), *map(str, flags)]
    )


def test_a_table_a_page_and_a_journal(folder, tmp_path, capsys):
    assert run(folder, "-o", tmp_path / "out") == 4, "random weights know less than word counts"
    printed = capsys.readouterr()
    header, *rows = printed.out.splitlines()
    assert header.split() == ["cell", "bytes", "bits/weight", "KL", "mean", "same", "top", "perplexity", "seconds"]
    assert [row.split()[:2] for row in rows] == [["int8", "rtn"], ["int8", "hqq"], ["int2", "rtn"], ["int2", "hqq"]]
    assert printed.err.count("/4  ") == 4, "a line for each cell as it is finished"
    assert "left" in printed.err
    assert "BROKEN: word counts alone" in printed.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["compare.html", "sweep.jsonl"]
    page = (tmp_path / "out" / "compare.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 2
    assert page.count('class="broken"') == 8
    assert "http" not in page
    assert run(folder, "-o", tmp_path / "out", "--json") == 4
    again = capsys.readouterr()
    assert "/4  " not in again.err, "all of it was known"
    assert [row["name"] for row in json.loads(again.out)["rows"]] == ["int8 rtn", "int8 hqq", "int2 rtn", "int2 hqq"]


def test_a_page_by_name_has_its_journal_beside_it(folder, tmp_path, capsys):
    assert run(folder, "-o", tmp_path / "page.html") == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "page.jsonl"]


def test_a_name_with_brackets_is_shown_as_it_is_on_a_terminal(folder, tmp_path):
    sweep = tmp_path / "sweep.toml"
    sweep.write_text(f'model = "{folder / "tiny"}"\n[[row]]\nname = "odd [/x] :smile:"\nformat = "int4"\n'
                     "[evaluation]\ncontext = 32\n")  # fmt: skip
    code = "from scrimp.cli.main import script; script()"
    command = [sys.executable, "-c", code, "compare", "--sweep", sweep, "--text", folder / "text.txt"]
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=os.environ | {"COLUMNS": "160"}) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # the end of a terminal
            while piece := os.read(ours, 4096):
                shown += piece
        os.close(ours)
    assert process.returncode == 4
    assert b"odd [/x] :smile:  1" in shown, "the row of the table, its bytes after the name"
    assert b"MarkupError" not in shown


def test_a_cell_that_cannot_be_made_is_told_and_exits_4(folder, tmp_path, capsys):
    sweep = tmp_path / "sweep.toml"
    sweep.write_text(f'model = "{folder / "tiny"}"\n[[row]]\nformat = "int4"\nrules = ["*.nothing=int8"]\n'
                     "[evaluation]\ncontext = 32\n")  # fmt: skip
    assert (
        main(["compare", "--sweep", str(sweep), "--text", str(folder / "text.txt"), "-o", str(tmp_path / "p.html")])
        == 4
    )
    printed = capsys.readouterr()
    assert "not made" in printed.out
    assert "matches no matrix" in printed.err
    assert "Not made" in (tmp_path / "p.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("flags", "message"), [
    (["--workers", "0"], "0 workers are out of range"),
    (["--workers", "two"], "neither a number of workers nor an address"),
    (["--workers", "127.0.0.1:1"], "No Ray cluster answers at 127.0.0.1:1"),
    (["--threads", "2"], "--threads are those of each of the --workers"),
    (["--context", "1"], "leaves no token to score"),
    (["--context", "4096"], "fewer than one window"),
    (["--reference", "nowhere-at-all"], "nowhere-at-all"),
    (["tiny"], "A sweep names its model itself"),
])  # fmt: skip
def test_what_cannot_be_done_is_known_before_the_first_cell(folder, tmp_path, capsys, flags, message):
    assert run(folder, "-o", tmp_path / "new" / "deep", *flags) not in (0, 4)
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_directory_in_the_place_of_the_page_is_known_before_the_first_cell(folder, tmp_path, capsys):
    (tmp_path / "out" / "compare.html").mkdir(parents=True)
    assert run(folder, "-o", tmp_path / "out") == 1
    assert "compare.html is a directory" in capsys.readouterr().err
    assert not (tmp_path / "out" / "sweep.jsonl").exists()


def test_models_without_a_sweep_take_no_flags_of_one(folder, capsys):
    assert main(["compare", str(folder / "tiny"), "--fresh"]) == 2
    assert "belong to a --sweep" in capsys.readouterr().err
    assert main(["compare"]) == 2
    assert "no model to measure" in capsys.readouterr().err
