"""The commands of README and docs, typed one after the other as they stand, over jobs made small: each does its work.

What a page calls by a name of its own (``runs/my-job-…``) stands for a run that is there. Jobs are those of ``jobs/``
and of the pages, with few pairs and few draws. What is not typed here is named below with the reason.
"""

from __future__ import annotations

import os
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from smoothcert.cli.main import app
from smoothcert.store import RunDirectory

ROOT = Path(__file__).parents[2]
pages = SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "unit" / "test_docs.py")))

STAND_INS = {
    "runs/REFERENCE": "runs/a",
    "runs/digits-…": "runs/a",
    "runs/my-job-…": "runs/a",
    "runs/digits-1a2b3c4d": "runs/a",
    "runs/digits-5e6f7a8b": "runs/b",
    "runs/c": "runs/second",  # of first-run.md, which comes before
}
"""What pages call runs, and the runs that are there."""
NOT_TYPED = {
    "make demo": "typed by whoever reads the README first; its commands are those of first-run.md and studies.md",
    "make test": "is what runs this",
}
CODES = {"monitor": {0, 1}}
"""Exit codes that are an answer; else 0. With so few draws a night may well certify less."""
SMALL = {
    "data": {"limit": 12},
    "certify": {"pilot_draws": 8, "max_draws": 64, "alpha": 0.05},
    "encoder": {"threads": 1, "slots": 8, "chunk": 16},
    "tracking": {"enabled": False},
}
BLUR = "import torch\n\n\ndef blur(encoder, sigma):\n    return torch.nn.AvgPool2d(3, stride=1, padding=1)\n"


def shrink(data: dict[str, Any]) -> dict[str, Any]:
    """A job with few pairs and few draws."""
    for section, fields in SMALL.items():
        data[section] = {**data.get(section, {}), **fields}
    if "targets" not in data["certify"]:
        data["certify"] |= {"radii": [0.125, 0.25], "cosines": [0.8]}
    if "retrieval" in data:
        data["retrieval"]["candidates"] = 8
    if "train" in data:
        data["data"]["limit"] = 40
        data["train"] = {**data["train"], "steps": 2, "purifier": {"channels": [8], "patch": 4}}
    return data


def smoothcert(*words: str) -> tuple[int, str]:
    """Exit code and what was said; an error is none of the codes that are an answer."""
    done = CliRunner().invoke(app, list(words))
    failed = done.exception is not None and not isinstance(done.exception, SystemExit)
    return (-1 if failed else done.exit_code), f"{done.output}\n{done.exception}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory like a clone of the repository, in which two runs are finished."""
    where, before = tmp_path_factory.mktemp("clone"), Path.cwd()
    (where / "jobs").mkdir()
    for job in (ROOT / "jobs").glob("digits*.yaml"):
        small = shrink(yaml.safe_load(job.read_text(encoding="utf-8")))
        (where / "jobs" / job.name).write_text(yaml.safe_dump(small))
    (where / "my-job.yaml").write_text((where / "jobs" / "digits.yaml").read_text())
    (study,) = [
        text for page, text in pages.blocks("yaml") if page == "docs/studies.md" and "digits-sigma" in text
    ]
    shorter = shrink(yaml.safe_load(study))
    shorter["study"]["grid"]["certify.sigma"] = [0.25]
    (where / "my-study.yaml").write_text(yaml.safe_dump(shorter))
    (where / "my_parts.py").write_text(BLUR)
    os.chdir(where)
    assert smoothcert("demo-data", "demo/digits", "--format", "parquet")[0] == 0
    for name, sigma in (("a", 0.25), ("b", 0.5)):
        code, said = smoothcert(
            "certify", "jobs/digits.yaml", "--set", f"output.run={name}", "--set", f"certify.sigma={sigma}"
        )
        assert code == 0, said
    yield where
    os.chdir(before)


def typed() -> list[tuple[str, str]]:
    """(page, line) of every command behind a prompt, in the order of the pages."""
    return [
        (page, line[2:])
        for page, text in pages.blocks("console")
        for line in text.replace("\\\n", " ").splitlines()
        if line.startswith("$ ")
    ]


@pytest.mark.parametrize(("page", "line"), [each for each in typed() if each[1] not in NOT_TYPED])
def test_commands_of_the_pages_do_their_work(page: str, line: str, place: Path) -> None:
    program, *words = shlex.split(line, comments=True)
    assert program == "smoothcert", f"{page}: neither typed here, nor said why not"
    words = [STAND_INS.get(word, word) for word in words]
    if words[0] == "demo-data" and Path(words[1]).exists():
        words[1] += "-again"  # of another page
    if "first.yaml" in words and words[0] in ("certify", "plan"):
        few = [(f"{section}.{field}", value) for section, of in SMALL.items() for field, value in of.items()]
        words += [f"--set={field}={value}" for field, value in few]
    if words[0] == "monitor" and "--history" not in words:
        words += ["--pairs=10"]
    code, said = smoothcert(*words)
    assert code in CODES.get(words[0], {0}), f"{page}: {line}\n{said}"


DIGITS = {"format": "parquet", "uri": "demo/digits"}
NIGHTLY = ROOT / "infra" / "nightly"


def recipes() -> Iterator[tuple[str, dict[str, Any], list[str]]]:
    """(name, job, words after ``smoothcert``) of both recipes for every night."""
    config, cronjob = yaml.safe_load_all((NIGHTLY / "cronjob.yaml").read_text(encoding="utf-8"))
    (container,) = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    yield "cronjob", yaml.safe_load(config["data"]["job.yaml"]), list(container["args"])
    workflow = yaml.safe_load((NIGHTLY / "workflow.yaml").read_text(encoding="utf-8"))
    (command,) = [
        step["run"]
        for step in workflow["jobs"]["monitor"]["steps"]
        if step.get("run", "").startswith("smoothcert ")
    ]
    words = shlex.split(command.replace("${{ vars.REFERENCE_RUN }}", "s3://example-bucket/runs/reference"))[
        1:
    ]
    yield "workflow", yaml.safe_load((ROOT / words[1]).read_text(encoding="utf-8")), words


@pytest.mark.parametrize(("name", "job", "words"), list(recipes()), ids=["cronjob", "workflow"])
def test_the_recipes_for_every_night_do_their_work(
    name: str, job: dict[str, Any], words: list[str], place: Path
) -> None:
    """As they stand, but for the encoder, the pairs and the place of the runs."""
    small = shrink(
        {**job, "data": DIGITS, "encoder": {"model": "bundled:digits-clip"}, "output": {"runs": name}}
    )
    small.pop("executor", None)
    (place / f"{name}.yaml").write_text(yaml.safe_dump(small))
    assert smoothcert("certify", f"{name}.yaml", "--set", "output.run=reference")[0] == 0
    words[1] = f"{name}.yaml"
    words = [word.replace("s3://example-bucket/runs", name) for word in words]
    code, said = smoothcert(*words, "--pairs=10", "--night=2026-11-30")
    assert code in CODES["monitor"], said
    assert (place / name / f"{job['name']}.monitor" / "nights" / "2026-11-30.parquet").is_file()


def test_what_they_leave_is_there(place: Path) -> None:
    for name in (
        "report.html",
        "three.html",
        "first.html",
        "nights.csv",
        "out.csv",
        "first.yaml",
    ):
        assert (place / name).stat().st_size > 0
    assert (place / "runs" / "digits.monitor" / "trend.html").is_file()
    first, second = (RunDirectory.open(f"runs/{name}").info for name in ("first", "second"))
    assert [target.name for target in first.job.certify.targets] == ["class@0.25"]
    assert (first.job.certify.sigma, second.job.certify.sigma) == (0.25, 0.5)
