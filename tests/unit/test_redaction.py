import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smoothcert.redaction import redact, without_secrets, without_secrets_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://me:hunter2@mlflow:5000", "http://mlflow:5000"),
        ("https://ghp_token@host/data.csv", "https://host/data.csv"),
        ("s3://key:secret@bucket/a/*.tar", "s3://bucket/a/*.tar"),
        ("https://host/x.tar?X-Amz-Signature=abc&X-Amz-Credential=def", "https://host/x.tar"),
        ("s3://AKIA:wJalr/xyz+1@bucket/a.tar", "s3://bucket/a.tar"),
        ("abfss://me:pw@account.example/x", "abfss://account.example/x"),
        ("az://box/x.csv?sv=2024&sig=abc%3D", "az://box/x.csv"),
        ("https://host/x#access_token=abc", "https://host/x"),
        ("simplecache::s3://key:secret@bucket/x", "simplecache::s3://bucket/x"),
        ("postgresql+psycopg2://mlflow:p%40ss@db:5432/mlflow", "postgresql+psycopg2://db:5432/mlflow"),
        ("cannot reach http://a:b@c/api?token=x in 3 s", "cannot reach http://c/api in 3 s"),
        ('{"uri": ["https://a:b@c/x?sig=d", "https://e/f"]}', '{"uri": ["https://c/x", "https://e/f"]}'),
    ],
)
def test_credentials_go(text: str, expected: str) -> None:
    assert without_secrets(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/img-?.tar",
        "s3://bucket/shard-??.tar",
        "s3://bucket/user@example/x.tar",
        "memory://runs/a",
        "abfss://container@account.dfs.core.windows.net/x.tar",
        "http://host:5000/a@b",
        "http://[::1]:5000/a@b",
        "s3://arn:aws:s3:us-west-2:123:accesspoint/name/a@b",
        "zip://a.zip::s3://bucket/x@y",
        "a photo of a {label}",
        "angular>=0.8@0.25",
        "runs/a?b=c",
        "me@example.com",
    ],
)
def test_the_rest_stays(text: str) -> None:
    assert without_secrets(text) == text


def test_structures_are_cleaned_at_every_depth() -> None:
    dirty = {"data": {"uri": ["s3://k:s@b/x", "y"], "limit": 3}, "on": True, "none": None}
    assert redact(dirty) == {"data": {"uri": ["s3://b/x", "y"], "limit": 3}, "on": True, "none": None}


WORDS = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=8, max_size=20)


@settings(max_examples=50)
@given(
    user=WORDS, password=WORDS, value=WORDS, scheme=st.sampled_from(["https", "s3", "abfs", "mysql+pymysql"])
)
def test_no_part_of_a_secret_is_left(user: str, password: str, value: str, scheme: str) -> None:
    text = without_secrets(f"see {scheme}://{user}:Z!{password}@host:1/path?k=Z!{value} now")
    assert "Z!" not in text
    assert text == f"see {scheme}://host:1/path now"


def test_a_message_keeps_no_part_of_its_urls_credentials() -> None:
    url = "https://me:p%40ss!@host:1/x?token=T0K"
    said = "pool(host='host'): url: /x?token=T0K/api refused for me:p@ss! (password p%40ss!)"
    text = without_secrets_of(said, url)
    assert not any(secret in text for secret in ("T0K", "p@ss", "p%40ss"))
    assert "host='host'" in text and "refused" in text
    assert without_secrets_of("plain", "http://[broken") == "plain"


@settings(max_examples=50)
@example("://?a=b,c@")
@given(st.text())
def test_twice_is_once(text: str) -> None:
    assert without_secrets(without_secrets(text)) == without_secrets(text)
