import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.datasets.captions import captions_from
from smoothcert.errors import CaptionError


@pytest.mark.parametrize(
    "value, expected",
    [
        ("a cat", ("a cat",)),
        (" a cat\n", ("a cat",)),
        ("Größe 猫".encode(), ("Größe 猫",)),
        (["a", None, "", " ", "b"], ("a", "b")),
        (("a",), ("a",)),
    ],
)
def test_captions(value, expected):
    assert captions_from(value, "column 'c'") == expected


@pytest.mark.parametrize(
    "value, said",
    [
        (None, "is missing"),
        ("", "is empty"),
        ("  \n", "is empty"),
        ([], "is empty"),
        ([None, ""], "is empty"),
        (b"caf\xe9", r"not valid UTF-8 \(byte 3\)"),
        ("caf\udce9", "not valid UTF-8"),
        ("\ud83d", "not valid UTF-8"),
        (["fine", b"\xff"], "not valid UTF-8"),
        (7, "holds int 7, not text"),
        ([["deep"]], "not text"),
    ],
)
def test_bad_captions_say_where_and_what(value, said):
    with pytest.raises(CaptionError, match=f"column 'c' .*{said}") as caught:
        captions_from(value, "column 'c'")
    assert caught.value.remedy and caught.value.stage == "caption"


@given(st.text())
def test_any_text_is_kept_or_refused(text):
    try:
        assert captions_from(text, "c") == (text.strip(),) and text.strip()
    except CaptionError:
        assert not text.strip() or any(0xD800 <= ord(c) < 0xE000 for c in text)


def test_a_byte_order_mark_is_no_part_of_a_caption():
    assert captions_from(b"\xef\xbb\xbfa dog\r\n", "c") == captions_from("\ufeffa dog", "c") == ("a dog",)
    with pytest.raises(CaptionError, match="is empty"):
        captions_from("\ufeff ", "c")
