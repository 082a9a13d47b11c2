"""Run directories in commands that are shown to be copied."""

import shlex
from pathlib import Path

import pytest

from smoothcert.cli.options import shorten_url, typed_url


@pytest.mark.parametrize(
    "url",
    ["runs/a-1b", "s3://bucket/runs/a", "my runs/a", "runs/[x]/a", "runs/it's", "runs/a?b", "runs/$HOME"],
)
def test_a_shell_reads_the_same_directory(url, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    absolute = url if "://" in url else f"{Path.cwd()}/{url}"
    assert shorten_url(absolute) == url
    assert shlex.split(typed_url(absolute)) == [url]
    assert typed_url("runs/a-1b") == "runs/a-1b"
