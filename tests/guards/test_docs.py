"""Generated pages are what the code says today."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

from scrimp.train.qat.recipe import Augmentation, Data, Distillation, Schedule

ROOT = Path(__file__).resolve().parents[2]


def test_generated_pages_are_current():
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "generate_docs.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_key_of_a_recipe_is_told():
    page = (ROOT / "docs" / "recipes.md").read_text("utf-8")
    for kind in (Data, Augmentation, Schedule, Distillation):
        for one in fields(kind):
            table = kind.__name__.lower()
            assert f"`{table}.{one.name}`" in page or f"`{one.name}`" in page, f"{table}.{one.name}"
