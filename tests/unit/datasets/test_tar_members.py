"""read_members against Python's own tarfile, in every format and cut at every byte."""

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcert.datasets.tar_members import DamagedTarError, read_members

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def packed(files, format=tarfile.PAX_FORMAT, **options):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format, **options) as archive:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def members(data, start=0):
    return list(read_members(io.BytesIO(data), start, len(data)))


def contents(data, start=0):
    return [(m.name, data[m.data : m.data + m.size]) for m in members(data, start) if not m.problem]


names = st.text("abz0./-é猫 ", min_size=1, max_size=200).filter(
    lambda n: n.strip("/. ") and not n.endswith("/")
)
files = st.lists(st.tuples(names, st.binary(max_size=1500)), max_size=6)


@settings(max_examples=150)
@given(files, st.sampled_from(FORMATS))
def test_members_are_those_of_tarfile(files, format):
    try:
        data = packed(files, format)
    except ValueError:  # ustar cannot hold every long name
        return
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        expected = [(m.name, archive.extractfile(m).read()) for m in archive.getmembers()]
    assert [(name.rstrip("/"), content) for name, content in contents(data)] == expected
    # and from any member on
    for number, member in enumerate(members(data)):
        assert contents(data, member.start) == contents(data)[number:]


@pytest.mark.parametrize("format", FORMATS)
def test_a_cut_archive_gives_what_is_before_the_cut_and_one_problem(format):
    long = "folder/" * 12 + "b.png"
    files = [("a.png", b"x" * 700), (long, b"y" * 600), ("c.txt", b"z")]
    data = packed(files, format)
    whole = members(data)
    for length in range(1, whole[-1].data + 512):
        got = members(data[:length])
        complete = [m for m in whole if m.data + m.size <= length]
        assert got[: len(complete)] == complete
        rest = got[len(complete) :]
        (cut,) = rest
        assert f"at byte {length}" in cut.problem
        if cut.name:
            assert (cut.name, cut.start) == (whole[len(complete)].name, whole[len(complete)].start)
        else:
            assert cut.start <= length


def test_joined_archives_are_read_to_the_end():
    first, second = packed([("a.png", b"1")]), packed([("b.png", b"2")])
    assert contents(first + second) == [("a.png", b"1"), ("b.png", b"2")]
    assert contents(first + b"\1padding of some backup tool" * 40) == [("a.png", b"1")]


def test_what_is_no_file_is_a_problem_and_folders_are_nothing():
    stream = io.BytesIO()
    kinds = [("d", tarfile.DIRTYPE), ("a.png", tarfile.SYMTYPE), ("b.png", tarfile.LNKTYPE)]
    kinds += [("c.png", tarfile.FIFOTYPE), ("d.png", tarfile.CHRTYPE), ("e.png", b"V")]
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, kind in kinds:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "x"
            archive.addfile(entry)
    assert [(m.name, m.problem, m.link) for m in members(stream.getvalue())] == [
        ("a.png", "it is a symbolic link, not a file", ""),
        ("b.png", "", "x"),
        ("c.png", "it is a device or a pipe, not a file", ""),
        ("d.png", "it is a device or a pipe, not a file", ""),
        ("e.png", "its kind 'V' is unknown", ""),
    ]


def test_sizes_beyond_octal():
    entry = tarfile.TarInfo("big.png")
    entry.size = 9 << 30
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        header = entry.tobuf(format)
        (member,) = members(header)
        assert (member.name, member.size) == ("big.png", 9 << 30)
        assert f"{member.data + (9 << 30) - len(header)} bytes too early" in member.problem


@pytest.mark.parametrize(
    "data, said",
    [
        (b"\x1f\x8b" + bytes(600), "gzip"),
        (b"PAR1" + bytes(600), "does not begin a tar archive"),
        (packed([("a.png", b"1")])[:1024] + b"\7" * 512, "byte 1024: a header is damaged"),
        (packed([("a.png", b"1")]).replace(b"a.png", b"b.png"), "does not begin a tar archive"),
    ],
)
def test_damage_is_not_skipped(data, said):
    with pytest.raises(DamagedTarError, match=said):
        members(data)


@given(files, st.data())
def test_flipped_bytes_never_raise_anything_else(files, draw):
    data = bytearray(packed(files))
    for _ in range(3):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        members(bytes(data))
    except DamagedTarError:
        pass
