import errno
import os

import botocore.exceptions
import pyarrow as pa
import pytest

from smoothcert.errors import RunDirectoryError, StoreError
from smoothcert.storage.foreign_errors import translate, translation_for
from smoothcert.storage.steady import is_transient

CASES = [
    (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "full", False),
    (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "quota", False),
    (OSError(errno.EROFS, "x"), "read-only", False),
    (PermissionError(errno.EACCES, "x"), "denied", False),
    (FileNotFoundError("x"), "does not exist", False),
    (NotADirectoryError(errno.ENOTDIR, "x"), "a directory is needed, or the reverse", False),
    (OSError(errno.ENAMETOOLONG, "x"), "too long", False),
    (TimeoutError("x"), "in time", True),
    (ConnectionResetError("x"), "connection", True),
    (OSError(errno.EREMOTEIO, "x"), "failed to serve", True),
    (OSError(errno.EBUSY, "SlowDown"), "failed to serve", True),
    (botocore.exceptions.NoCredentialsError(), "no credentials", False),
    (botocore.exceptions.EndpointConnectionError(endpoint_url="http://x"), "connection", True),
    (botocore.exceptions.ReadTimeoutError(endpoint_url="http://x"), "in time", True),
    (botocore.exceptions.ClientError({"Error": {"Code": "X"}}, "PutObject"), "refused", False),
    (pa.ArrowInvalid("x"), "Parquet", False),
    (ImportError("Install s3fs"), "not installed", False),
    (OSError("odd"), "reported an error", False),
]


@pytest.mark.parametrize(("error", "said", "transient"), CASES, ids=lambda case: type(case).__name__)
def test_each_kind_gets_its_words(error: BaseException, said: str, transient: bool) -> None:
    ours = translate(error, "write", "s3://bucket/run")
    assert isinstance(ours, StoreError)
    assert said in str(ours) and "s3://bucket/run" in str(ours) and ours.remedy
    assert is_transient(error) is transient


def test_every_line_of_the_table_is_reached() -> None:
    from smoothcert.storage.foreign_errors import TABLE

    reached = {id(translation_for(error)) for error, _, _ in CASES}
    missing = [rule.what for rule in TABLE if id(rule) not in reached]
    assert not missing


def test_bugs_and_our_own_errors_pass_through() -> None:
    for error in (ValueError("x"), KeyError("x"), ZeroDivisionError(), RunDirectoryError("x")):
        assert translate(error, "read", "p") is error
