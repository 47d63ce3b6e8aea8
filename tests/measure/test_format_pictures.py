"""Pictures of the format report: every dot has its name, and what is rounded already is said to be."""

import numpy as np
import pytest

from scrimp.measure.format_charts import energy_scatter, error_scatter
from scrimp.measure.format_page import page
from scrimp.measure.format_report import ROUNDED, Subject, rows
from scrimp.measure.svg import horizontal, labels, vertical


def test_names_that_crowd_each_other_are_put_farther_off_at_a_line():
    x, y = horizontal(0, 10), vertical(0, 60)
    dots = [(200.0, 150.0 + 3 * i) for i in range(5)]
    drawn = labels([(*at, f"name{i}") for i, at in enumerate(dots)], dots, x, y)
    assert all(f">name{i}<" in drawn for i in range(5))
    assert 1 <= drawn.count("<path") <= 4


def test_every_format_of_a_short_report_is_named_in_every_picture():
    names = ("nf4:g64", "mxfp4", "int4:g64", "int4:g32", "q4_k", "ternary:row", "posit8_1")
    found = rows(names)
    for picture in (error_scatter(found, on=False, bounds=True), energy_scatter(found)):
        assert all(f">{name}<" in picture for name in names)


@pytest.mark.parametrize(("stored", "rounded"), [("F32", False), ("BF16, F32", False), ("Q4_1, Q8_0", True),
                                                 ("int4:g64", True)])  # fmt: skip
def test_a_report_on_rounded_weights_says_so(stored, rounded):
    w = np.random.default_rng(0).normal(size=(32, 64)).astype(np.float32)
    subject = Subject("m", stored, w.size, (("w", w),))
    assert subject.rounded is rounded
    found = rows(["int4:g64"], ("gaussian", "laplace", "student_t"), subject)
    assert (ROUNDED in page(found, subject)) is rounded
