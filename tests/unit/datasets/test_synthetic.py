"""Synthetic scenes: what a caption says is what is to be seen, and shards do not depend on how many there are."""

import itertools

import numpy as np
import pytest

from smoothcert.datasets import decode_image, write_synthetic
from smoothcert.datasets.synthetic import COLOURS, PLACES, RELATIONS, SHAPES, SIZES, draw_scenes
from smoothcert.errors import JobError

FORMATS = ["parquet", "webdataset", "manifest"]


@pytest.fixture(scope="module")
def scenes():
    return draw_scenes(np.random.default_rng(0), 1200, 48)


def pixels_of(image, colour):
    """(x, y) of a colour's pixels in shares of the side."""
    y, x = np.nonzero((image == COLOURS[colour]).all(axis=-1))
    return np.stack([x, y], axis=-1) / 48 + 0.5 / 48


def named(caption):
    """[(size, colour, shape), ...] and what stands around them."""
    words = caption.split()
    objects = [words[i + 1 : i + 4] for i, word in enumerate(words) if word == "a"]
    return objects, caption


def test_objects_are_where_the_caption_says(scenes):
    images, captions, labels = scenes
    for image, caption, label in zip(images, captions, labels, strict=True):
        objects, _ = named(caption)
        assert label == objects[0][2]
        colours = [colour for _, colour, _ in objects]
        seen = set((image @ [65536, 256, 1]).ravel().tolist())
        assert seen == {0, *(int(np.dot(COLOURS[c], [65536, 256, 1])) for c in colours)}
        if len(objects) == 1:
            place = caption[caption.index(" in the ") + 1 :]
            box = pixels_of(image, colours[0])
            middle = (box.min(axis=0) + box.max(axis=0)) / 2
            np.testing.assert_allclose(middle, PLACES[place], atol=0.09)
        elif colours[0] != colours[1]:
            first, second = (pixels_of(image, colour).mean(axis=0) for colour in colours)
            relation = next(r for r in RELATIONS if f" {r} " in caption)
            axis, sign = {"left of": (0, 1), "right of": (0, -1), "above": (1, 1), "below": (1, -1)}[relation]
            assert sign * (second - first)[axis] > 0.25


def test_sizes_and_shapes_differ_as_named(scenes):
    images, captions, _ = scenes
    areas, filled = {}, {}
    for image, caption in zip(images, captions, strict=True):
        objects, _ = named(caption)
        if len(objects) == 1:
            size, colour, shape = objects[0]
            points = pixels_of(image, colour)
            areas.setdefault((shape, size), []).append(len(points))
            width, height = points.max(axis=0) - points.min(axis=0) + 1 / 48
            filled.setdefault((shape, size), []).append(len(points) / (width * height * 48**2))
    assert set(areas) == set(itertools.product(SHAPES, SIZES))
    for shape in SHAPES:
        assert min(areas[shape, "large"]) > max(areas[shape, "small"])
    share = {shape: np.mean(filled[shape, "large"]) for shape in SHAPES}
    assert share["square"] == pytest.approx(1) and 0.72 < share["circle"] < 0.85  # pi / 4
    assert max(share["triangle"], share["diamond"], share["cross"]) < 0.68


def test_every_word_is_used(scenes):
    text = " ".join(scenes[1])
    for word in [*SHAPES, *COLOURS, *SIZES, *PLACES, *RELATIONS]:
        assert word in text
    assert len(set(scenes[1])) > 600


@pytest.mark.parametrize("format", FORMATS)
def test_shards_read_back(tmp_path, source, read_all, format):
    written = write_synthetic(tmp_path, format, pairs=1100, pairs_per_shard=520, size=16, seed=3)
    assert written.files == tuple(f"synthetic-{i:06d}" + written.files[0][16:] for i in range(3))
    pairs = read_all(source(format, str(tmp_path)), 400)
    assert len(pairs) == written.pairs == 1100
    images, captions, labels = draw_scenes(np.random.default_rng((3, 0, 0)), 500, 16)
    for i in (0, 499):
        np.testing.assert_array_equal(decode_image(pairs[i].image, max_pixels=256), images[i])
        assert (pairs[i].captions, pairs[i].label) == ((captions[i],), labels[i])
    assert len({pair.captions for pair in pairs}) > 500


@pytest.mark.parametrize("format", ["parquet", "webdataset"])
def test_more_pairs_leave_earlier_shards_as_they_are(tmp_path, format):
    few = write_synthetic(tmp_path / "few", format, pairs=1200, pairs_per_shard=600, size=8)
    write_synthetic(tmp_path / "many", format, pairs=1900, pairs_per_shard=600, size=8)
    for name in few.files:
        assert (tmp_path / "few" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()
    other = write_synthetic(tmp_path / "other", format, pairs=600, pairs_per_shard=600, size=8, seed=1)
    assert (tmp_path / "other" / other.files[0]).read_bytes() != (
        tmp_path / "few" / few.files[0]
    ).read_bytes()


@pytest.mark.parametrize(
    "options, said",
    [
        ({"pairs": 0}, "pairs=0"),
        ({"size": 4}, "size=4"),
        ({"seed": -1}, "seed=-1"),
        ({"pairs_per_shard": 0}, "shard=0"),
    ],
)
def test_numbers_out_of_range_are_named(tmp_path, options, said):
    with pytest.raises(JobError, match=f"{said} is too small(.|\n)*or more"):
        write_synthetic(tmp_path, "parquet", **({"pairs": 1} | options))
