"""What augmentation does to bytes."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from scrimp.pictures.pictures import resize  # noqa: E402
from scrimp.train.qat.augment import Augmenter  # noqa: E402
from scrimp.train.qat.recipe import Augmentation  # noqa: E402


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (40, 12, 10, 3), dtype=np.uint8)


def changed(images, seed=0, fill=128, size=None, **how):
    return Augmenter(Augmentation(**how), fill, size)(images, np.random.default_rng(seed))


def test_nothing_changes_nothing(images):
    assert changed(images) is images


def test_crops_are_parts_of_the_padded_picture(images):
    made = changed(images, crop=2, flip=True)
    places = set()
    for before, after in zip(images, made, strict=True):
        padded = np.pad(before, ((2, 2), (2, 2), (0, 0)), constant_values=128)
        found = [(row, column, flip) for row in range(5) for column in range(5) for flip in (False, True)
                 if (padded[row : row + 12, column : column + 10][:, :: -1 if flip else 1] == after).all()]  # fmt: skip
        assert len(found) == 1
        places.add(found[0])
    assert len(places) > 20
    assert {flip for _, _, flip in places} == {False, True}


def test_a_cut_out_square_is_zeros(images):
    made = changed(np.minimum(images, 127), cutout=4, fill=128)
    gone = (made == 128).all(axis=3)
    assert (gone.sum(axis=(1, 2)) <= 16).all()
    assert (gone.sum(axis=(1, 2)) >= 4).all()
    assert (gone.sum(axis=(1, 2)) == 16).any()


def test_the_same_random_numbers_make_the_same_pictures(images):
    how = {"rotate": 20, "scale": 0.2, "shear": 5, "shift": 2, "elastic": 1, "crop": 2, "flip": True}
    np.testing.assert_array_equal(changed(images, **how), changed(images, **how))
    assert (changed(images, **how) != changed(images, seed=1, **how)).any()


def test_a_shift_moves_a_point_as_far_as_it_says():
    image = np.zeros((200, 15, 15, 1), np.uint8)
    image[:, 7, 7] = 200
    made = changed(image, fill=0, shift=3).astype(float)[..., 0]
    centre = [(made * np.arange(15)[:, None]).sum((1, 2)) / made.sum((1, 2)),
              (made * np.arange(15)[None, :]).sum((1, 2)) / made.sum((1, 2))]  # fmt: skip
    assert 2.5 < max(abs(part - 7).max() for part in centre) <= 3.02  # bytes are rounded
    np.testing.assert_allclose(made.sum((1, 2)), 200, atol=2)


def test_a_turn_keeps_the_middle():
    image = np.zeros((50, 15, 15, 1), np.uint8)
    image[:, 7, 1:14] = 200
    made = changed(image, fill=0, rotate=30)[..., 0].astype(float)
    assert (made[:, 7, 7] >= 199).all()
    moment = [np.arctan2((row[:, 10] * np.arange(15)).sum() / row[:, 10].sum() - 7, 3) for row in made]
    assert 20 < np.degrees(max(moment)) < 31
    assert -31 < np.degrees(min(moment)) < -20


def test_resizing_after_it_is_the_rule_of_all_pictures(images):
    np.testing.assert_array_equal(changed(images, size=(7, 9)), resize(images, 7, 9))


def test_what_is_outside_is_zero():
    image = np.full((20, 12, 12, 1), 128, np.uint8)
    assert (changed(image, shift=4, rotate=40, elastic=2) == 128).all()
