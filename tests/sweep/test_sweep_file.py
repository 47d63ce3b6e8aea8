"""A sweep file is read whole and checked whole, before anything is run: one sentence says what is wrong, and where."""

import pytest

from scrimp.errors import Refused, ScrimpError, UsageError
from scrimp.sweep import file
from scrimp.sweep.file import read


def write(tmp_path, text):
    path = tmp_path / "sweep.toml"
    path.write_text(text, encoding="utf-8")
    return path


GRID = 'model = "m"\n[grid]\nformats = ["int4:g64", "nf4"]\nsizes = ["60MB", 70000000]\nmethods = ["rtn", "gptq"]\n'


def test_a_grid_is_every_goal_with_every_method_and_rows_come_after_it(tmp_path):
    sweep = read(write(tmp_path, GRID + '[[row]]\nformat = "int2"\n[[row]]\nname = "mine"\nkl = 1\nmethod = "hqq"\n'))
    assert [cell.name for cell in sweep.cells] == [
        "int4:g64 rtn", "int4:g64 gptq", "nf4 rtn", "nf4 gptq", "60MB rtn", "60MB gptq", "70000000 rtn",
        "70000000 gptq", "int2", "mine",
    ]  # fmt: skip
    assert (sweep.cells[3].wish.format, sweep.cells[3].wish.method) == ("nf4", "gptq")
    assert sweep.cells[6].wish.size_bytes == 70_000_000
    assert (sweep.cells[9].wish.kl, sweep.cells[9].wish.method) == (1, "hqq")
    assert sweep.setting.model == sweep.setting.reference == "m"


def test_what_all_share_yields_to_what_a_row_says(tmp_path):
    sweep = read(write(tmp_path, GRID + '[all]\nembedding = "int8:g64"\nrules = ["*.o_proj=int8"]\n'
                                        '[[row]]\nformat = "int2"\nembedding = "f16"\n'))  # fmt: skip
    assert {cell.wish.embedding for cell in sweep.cells[:8]} == {"int8:g64"}
    assert sweep.cells[8].wish.embedding == "f16"
    assert sweep.cells[8].wish.rules == ["*.o_proj=int8"]


def test_calibration_reaches_only_what_calibrates_and_its_text_is_beside_the_file(tmp_path):
    (tmp_path / "own.txt").write_text("w1 w2", encoding="utf-8")
    (tmp_path / "valid.txt").write_text("w3", encoding="utf-8")
    calibration = '[calibration]\ntext = "own.txt"\nwindows = 4\nprefix = "original"\n'
    evaluation = '[evaluation]\ntext = "valid.txt"\ncontext = 8\nmax_tokens = 64\n'
    sweep = read(write(tmp_path, GRID + calibration + evaluation))
    rtn, gptq = sweep.cells[:2]
    assert (rtn.wish.calibrate, rtn.wish.calibrate_windows, rtn.prefix) == (None, None, "")
    assert (gptq.wish.calibrate, gptq.wish.calibrate_windows, gptq.prefix) == ("w1 w2", 4, "original")
    assert (sweep.setting.text, sweep.setting.context, sweep.setting.max_tokens) == ("w3", 8, 64)


@pytest.mark.parametrize(("text", "error", "message"), [
    ("", UsageError, "no model is named"),
    ("model = ", Refused, "is no TOML: Invalid value (at end of document)"),
    ('model = "m"\nmodel = "n"', Refused, "is no TOML: Cannot overwrite a value"),
    ('model = "m"', UsageError, "nothing to compress"),
    ("model = 3", UsageError, "model is 3"),
    ('model = "m"\ngird = {}', UsageError, "nothing is called 'gird'"),
    ('model = "m"\ngrid = 1', UsageError, "grid is 1"),
    ('model = "m"\n[grid]\nformats = "int4"', UsageError, "grid.formats is 'int4'"),
    ('model = "m"\n[grid]\nformats = ["int4"]', UsageError, "grid.methods is missing"),
    ('model = "m"\n[grid]\nformats = ["int44"]\nmethods = ["rtn"]', UsageError, "'int44' with 'rtn'"),
    ('model = "m"\n[grid]\nformats = ["int4"]\nmethods = ["rtnn"]', UsageError, "'rtnn' is no known method"),
    ('model = "m"\n[grid]\nformats = [4]\nmethods = ["rtn"]', UsageError, "format is 4"),
    ('model = "m"\n[grid]\nformats = [["int4"]]\nmethods = ["rtn"]', UsageError, "format is ['int4']"),
    ('model = "m"\n[grid]\nsizes = ["big"]\nmethods = ["rtn"]', UsageError, "'big' is not a size"),
    ('model = "m"\n[grid]\nsizes = [true]\nmethods = ["rtn"]', UsageError, "size is True"),
    ('model = "m"\n[[row]]\nformat = "int4"\nbits = 4', UsageError, "row 1: Give exactly one of"),
    ('model = "m"\n[[row]]\nformat = "int4"\n[[row]]\nformt = "int4"', UsageError, "row 2: nothing is called 'formt'"),
    ('model = "m"\n[[row]]\nbits = nan', UsageError, "out of range"),
    ('model = "m"\n[[row]]\nformat = "int4"\nrules = "x"', UsageError, "rules is 'x'"),
    ('model = "m"\n[[row]]\nformat = "int4"\nrules = [1]', UsageError, "rules is [1]"),
    ('model = "m"\n[[row]]\nformat = "int4"\nkeep = "yes"', UsageError, "keep is 'yes'"),
    ('model = "m"\n[[row]]\nformat = "int4"\nname = "a\\u001b[2Jb"', UsageError, "name is no line of text"),
    ('model = "m"\nrow = [1]', UsageError, "row 1 is no table"),
    ('model = "m"\n[evaluation]\ncontext = true', UsageError, "evaluation.context is True"),
    ('model = "m"\n[evaluation]\ncontext = 1.5', UsageError, "evaluation.context is 1.5"),
    ('model = "m"\n[calibration]\nwindow = 4', UsageError, "nothing is called 'calibration.window'"),
    ('model = "m"\n[[row]]\nname = "a"\nsize = 9\n[[row]]\nname = "a"\nformat = "int3"', UsageError, "two cells"),
    ('model = "m"\nx = ' + "[" * 5000, Refused, "sweep.toml"),
    (f'model = "m"\n[grid]\nformats = [{"1," * 3000}]\nmethods = [{"1," * 3000}]', UsageError, "9,000,000 cells"),
])  # fmt: skip
def test_what_cannot_be_is_one_sentence_with_its_key(tmp_path, text, error, message):
    with pytest.raises(error) as caught:
        read(write(tmp_path, text))
    assert message in caught.value.message
    assert str(tmp_path) in caught.value.message, "the file is named"
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_texts_that_are_not_there_or_no_text_are_known_at_once(tmp_path):
    with pytest.raises(OSError, match=r"gone\.txt"):
        read(write(tmp_path, GRID + '[evaluation]\ntext = "gone.txt"\n'))
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(Refused, match="not UTF-8"):
        read(write(tmp_path, GRID + '[calibration]\ntext = "bytes"\n'))
    (tmp_path / "sweep.toml").write_bytes(b"model = '\xff'")
    with pytest.raises(ScrimpError, match="not UTF-8"):
        read(tmp_path / "sweep.toml")


def test_the_example_of_the_docstring_is_a_sweep(tmp_path):
    example = file.__doc__.split("::\n", 1)[1].split("Paths are")[0].replace("\n    ", "\n")
    for name in ("own.txt", "valid.txt"):
        (tmp_path / name).write_text("w1", encoding="utf-8")
    assert len(read(write(tmp_path, example)).cells) == 7
