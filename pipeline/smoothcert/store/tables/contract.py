"""Writes ``schemas/`` or checks that it is fresh: ``python -m smoothcert.store.tables.contract [--check]``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from smoothcert.job import JOB_SCHEMA_VERSION, job_json_schema, study_json_schema
from smoothcert.store.tables.registry import TABLES

SCHEMAS = Path(__file__).resolve().parents[4] / "schemas"
"""Where a checkout keeps the published schemas."""


def make_documents() -> dict[str, str]:
    """File name and text of everything that is published."""
    documents = {table.file_name: table.described() for table in TABLES.values()}
    documents[f"job.v{JOB_SCHEMA_VERSION}.json"] = job_json_schema()
    documents[f"study.v{JOB_SCHEMA_VERSION}.json"] = study_json_schema()
    return {
        name: json.dumps(data, indent=2, ensure_ascii=False) + "\n"
        for name, data in sorted(documents.items())
    }


def stale(directory: Path) -> list[str]:
    """Names of files that differ from the code: missing, changed, or no longer published in this version."""
    expected = make_documents()
    wrong = [
        name
        for name, text in expected.items()
        if not (directory / name).is_file() or (directory / name).read_text(encoding="utf-8") != text
    ]
    return sorted(wrong)


def write(directory: Path) -> list[str]:
    """Write what is stale and return the names."""
    directory.mkdir(parents=True, exist_ok=True)
    expected = make_documents()
    names = stale(directory)
    for name in names:
        (directory / name).write_text(expected[name], encoding="utf-8")
    return names


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m smoothcert.store.tables.contract", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only check; fail if a file is out of date")
    parser.add_argument("--directory", type=Path, default=SCHEMAS, help="default: schemas/ of this checkout")
    options = parser.parse_args(arguments)
    names = stale(options.directory) if options.check else write(options.directory)
    for name in names:
        print(f"{'stale' if options.check else 'wrote'}: {options.directory / name}")
    if options.check and names:
        print("run: python -m smoothcert.store.tables.contract")
    return 1 if options.check and names else 0


if __name__ == "__main__":
    raise SystemExit(main())
