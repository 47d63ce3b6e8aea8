"""Recipes: what they mean, and hostile ones in one line."""

import tomllib
from pathlib import Path

import pytest
from made_pictures import RECIPE

from scrimp.errors import Refused, ScrimpError, UsageError
from scrimp.train.qat.recipe_file import parse_recipe, read

RECIPES = sorted((Path(__file__).resolve().parents[3] / "recipes").glob("*.toml"))


def recipe(more="", text=RECIPE):
    return parse_recipe(tomllib.loads(text + more), Path("folder"), "name")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_of_the_project_are_recipes(path):
    assert read(path).schedule.epochs > 1


def test_a_recipe_says_how_every_operation_is_stored_in_every_epoch():
    text = RECIPE.replace(
        "epochs = 6", 'epochs = 9\nprogressive = [["int8:row", 2], ["int4:row", 3]]\nfreeze = { "fc*" = 7 }'
    )
    text = text.replace('format = "ternary:row"', 'format = "ternary:row"\nlayers = { out = { format = "int6:row" } }')
    found = recipe(text=text)
    wider = [*["int8:row (lsq)"] * 2, *["int4:row (lsq)"] * 3]
    assert [found.at("fc1", epoch).spelled for epoch in range(7)] == ["float", *wider, "ternary:row (seq)"]
    assert [found.at("out", epoch).spelled for epoch in (0, 1, 3)] == ["float", "int8:row (lsq)", "int6:row (lsq)"]
    assert (found.frozen("fc1", 6), found.frozen("fc1", 7), found.frozen("out", 8)) == (False, True, False)


def test_paths_are_relative_to_the_file():
    found = recipe('\n[distillation]\nteacher = "t"\n')
    assert found.distillation is not None
    assert found.distillation.teacher == Path("folder/t")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[data]", "[dta]", "nothing is called 'dta'"),
        ('set = "mnist"', "", "data.set is missing"),
        ('set = "mnist"', 'set = "mnits"', "data.set is 'mnits'"),
        ('size = "8x8"', 'size = "8"', "data.size"),
        ('size = "8x8"', 'size = "999x8"', "data.size"),
        ('size = "8x8"', "size = 8", "it takes a string"),
        ('size = "8x8"', 'size = "8x8"\ndirectory = "a\\u0000b"', "no path"),
        ('name = "mlp"', 'name = "vgg9"', "model.name"),
        ("hidden = [24, 16]", "hidden = [24, 0]", "model.hidden"),
        ("hidden = [24, 16]", 'hidden = "wide"', "it takes a list"),
        ("hidden = [24, 16]", "hidden = [true]", "model.hidden"),
        ('format = "ternary:row"', "", "weights.format is missing"),
        ('format = "ternary:row"', 'format = "ternay:row"', "no known format"),
        ('format = "ternary:row"', 'format = "ternary:row"\nrule = "octav"', "can't choose scales"),
        ('format = "ternary:row"', 'format = "ternary:row"\nlayers = { fc1 = 3 }', "it takes a table"),
        ('format = "ternary:row"', 'format = "ternary:row"\nlayers = { fc1 = { frmat = "x" } }', "fc1.frmat"),
        ("epochs = 6", "", "schedule.epochs is missing"),
        ("epochs = 6", "epochs = 0", "are possible"),
        ("epochs = 6", "epochs = true", "it takes a whole number"),
        ("epochs = 6", "epochs = 1", "are over before"),
        ("rate = 1e-2", "rate = nan", "are possible"),
        ("rate = 1e-2", "rate = inf", "are possible"),
        ("rate = 1e-2", "rate = -1", "are possible"),
        ("rate = 1e-2", 'optimizer = "lion"', "schedule.optimizer"),
        ("rate = 1e-2", 'progressive = [["int4:row"]]', "a format and its epochs"),
        ("rate = 1e-2", "progressive = 4", "it takes a list"),
        ("rate = 1e-2", 'freeze = { "fc*" = "x" }', "it takes a whole number"),
        ("[schedule]", "[distillation]\n[schedule]", "distillation.teacher is missing"),
        ("[schedule]", '[distillation]\nteacher = "t"\nsoft = 2\n[schedule]', "are possible"),
        ("[schedule]", '[activations]\nkind = "int4"\n[schedule]', "activations.kind"),
        ("[schedule]", "[augmentation]\ncrop = 2.5\n[schedule]", "it takes a whole number"),
        ("[schedule]", "[augmentation]\nrotate = 400\n[schedule]", "are possible"),
        ("[data]", "seed = -1\n[data]", "are possible"),
        ("[data]", "data = 4\n[dat]", "it takes a table"),
    ],
)  # fmt: skip
def test_what_there_is_not_is_told_in_one_line(old, new, words):
    assert old in RECIPE
    with pytest.raises(ScrimpError) as told:
        recipe(text=RECIPE.replace(old, new, 1))
    assert words in str(told.value)
    assert isinstance(told.value, UsageError)
    assert told.value.hint
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("content", [b"", b"epochs", b"\xff\xfe", b"a = " + b"[" * 5000, b"a = " + b"9" * 5000])
def test_files_that_are_no_recipes(tmp_path, content):
    path = tmp_path / "r.toml"
    path.write_bytes(content)
    with pytest.raises((Refused, UsageError)) as told:
        read(path)
    assert str(path) in str(told.value)


def test_a_large_file_is_not_read(tmp_path):
    path = tmp_path / "r.toml"
    path.write_bytes(b"#" * (1 << 21))
    with pytest.raises(Refused, match="no recipe"):
        read(path)
