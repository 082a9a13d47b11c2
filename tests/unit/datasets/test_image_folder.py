"""Folders of images, one for each class."""

import pickle

import pytest

from smoothcert.datasets import decode_image
from smoothcert.errors import DecodeError, ReadError, SourceError


@pytest.fixture
def tree(folder, put, picture):
    names = [f"{name}/{i}.png" for name in ("zero", "one") for i in range(5)] + ["one/deep/x.JPG", "top.png"]
    for number, name in enumerate(names):
        put(f"{folder}/{name}", picture(number))
    put(f"{folder}/one/notes.txt", b"x")
    put(f"{folder}/one/.DS_Store", b"x")
    return folder


def test_every_image_is_a_pair_of_its_folder(tree, source, read_all, picture):
    data = source("imagefolder", tree)
    pairs = read_all(data, 3)
    assert len(pairs) == 12 and len(list(data.files())) == 4
    labels = {pair.pair_id: pair.label for pair in pairs}
    assert (
        labels["zero#0.png"] == "zero" and labels["one#4.png"] == "one" and labels["one/deep#x.JPG"] == "deep"
    )
    assert {pair.image for pair in pairs} == {picture(number) for number in range(12)}
    assert {pair.captions for pair in pairs} == {()} and list(data.captions()) == []
    assert data.labels().names.total() == 12 and data.labels().names["zero"] == 5
    told = {name.rpartition("/")[2] for entry in data.left_out() for name in entry.examples}
    assert told == {"notes.txt", ".DS_Store"}


def test_one_class_alone_keeps_its_name(tree, source, read_all):
    pairs = read_all(source("imagefolder", f"{tree}/zero"))
    assert [pair.pair_id for pair in pairs] == [f"zero#{i}.png" for i in range(5)]


def test_limit_and_only(tree, source, read_all):
    data = source("imagefolder", tree, limit=7)
    pairs = read_all(data, 2)
    assert len(pairs) == 7
    unit = list(data.units(2))[1]
    again = source("imagefolder", tree)
    wanted = pairs[3].pair_id
    assert [pair.pair_id for pair in again.read(pickle.loads(pickle.dumps(unit)), {wanted})] == [wanted]


def test_a_folder_that_changed_after_planning_is_refused(tmp_path, source, picture):
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(picture(i))
    first, *_ = source("imagefolder", str(tmp_path)).units(2)
    (tmp_path / "00.png").write_bytes(picture(9))
    with pytest.raises(SourceError, match="not those that were planned"):
        list(source("imagefolder", str(tmp_path)).read(first))


def test_overwritten_images_are_other_data(tmp_path, source, picture):
    (tmp_path / "a.png").write_bytes(picture(0))
    (before,) = source("imagefolder", str(tmp_path)).files()
    assert list(source("imagefolder", str(tmp_path)).files()) == [before]
    (tmp_path / "a.png").write_bytes(picture(0) + b"x")
    (now,) = source("imagefolder", str(tmp_path)).files()
    assert before.images.changed(now.images, moved=False) == [0]
    assert now.images.sizes.tolist() == [len(picture(0)) + 1]


def test_numbers_and_spelt_classes(tmp_path, source, read_all, picture):
    for name in ("1", "label=one two", "0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(picture(1))
    pairs = read_all(source("imagefolder", str(tmp_path), class_names=("zero", "one")))
    assert [pair.label for pair in pairs] == ["zero", "one", "one two"]
    pairs = read_all(source("imagefolder", str(tmp_path), columns={"label": None}))
    assert {pair.label for pair in pairs} == {None}


def test_a_glob_of_images_is_refused_with_the_remedy(tmp_path, source, picture):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(picture(i))
    with pytest.raises(SourceError, match="names 1 of the images(.|\n)*name the folder itself"):
        source("imagefolder", f"{tmp_path}/0.png").digest()
    assert len(list(source("imagefolder", f"{tmp_path}/*.png").files())) == 1


def test_bad_images_are_bad_pairs(tmp_path, source, read_all):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.png").write_bytes(b"no image")
    data = source("imagefolder", str(tmp_path))
    for pair in read_all(data):
        with pytest.raises(DecodeError):
            decode_image(pair.image, max_pixels=10)
    unit, *_ = data.units(9)
    (tmp_path / "b.png").unlink()
    assert isinstance(list(data.read(unit))[1].error, ReadError)
