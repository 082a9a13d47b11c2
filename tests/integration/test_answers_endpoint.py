"""An endpoint behind a whole run: down at start, dying in the middle, resumed without paying twice; a judge there."""

from __future__ import annotations

import json
import runpy
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from smoothcert.answerers import chat
from smoothcert.datasets import write_synthetic
from smoothcert.datasets.shape_questions import write_shape_questions

alike = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "test_answers.py")))
played = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "unit/answerers/test_endpoint.py")))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("endpoint")
    written = write_synthetic(here / "shapes", "manifest", pairs=2, size=32, seed=3)
    write_shape_questions(str(here / "all.jsonl"), written)
    lines = (here / "all.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line)["kind"] in ("count", "size")]
    (here / "questions.jsonl").write_text("\n".join(kept) + "\n")
    return here


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch):
    for name in ("SMOOTHCERT_API_KEY", "SMOOTHCERT_JUDGE_KEY"):
        monkeypatch.setenv(name, played.KEY)
    monkeypatch.setattr(chat, "PAUSE_S", 0.01)
    made = played.Service()
    yield made
    made.close()


def write_job(here: Path, url: str, run: str, **answer: Any) -> Path:
    job = yaml.safe_load(alike.write_job(here).read_text())
    job["encoder"] = {"model": "bundled:digits-clip", "slots": 2, "chunk": 8, "threads": 1}
    job["certify"] |= {"max_draws": 8, "pilot_draws": 2}
    job["output"]["run"] = run
    job["answer"] = {
        "model": "eye-1",
        "endpoint": url,
        "retries": 0,
        "parallel": 1,
        "timeout_s": 5,
        "questions": str(here / "questions.jsonl"),
        "subjects": ["bare", "vote"],
        "vote": {"pilot_draws": 2, "max_draws": 3},
        "max_new_tokens": 9,
        **answer,
    }
    path = here / f"{run}.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def asked_of(service: Any) -> Counter[str]:
    return Counter(json.dumps(body["messages"], sort_keys=True) for _, body in service.seen)


def test_one_that_dies_is_asked_for_the_rest_alone(shapes: Path, service: Any) -> None:
    job = write_job(shapes, service.url, "dies")
    service.replies = [played.said("one")] * 9 + [(400, {}, b"out of credit")]
    code, said = alike.smoothcert("certify", str(job))
    assert code != 0 and "answers 400: out of credit" in said and played.KEY not in said
    before = len(service.seen)
    assert before == 10
    service.replies = []
    code, said = alike.smoothcert("certify", str(job))
    assert code == 0, said
    rows = alike.rows_of(shapes, "dies")
    questions = len((shapes / "questions.jsonl").read_text().splitlines())
    assert Counter(row["subject"] for row in rows) == {"bare": questions, "vote": questions}
    asked = asked_of(service)
    assert sum(asked.values()) == questions * (1 + 2 + 3) + 1  # the one that it refused to answer
    assert sorted(asked.values())[-2:] == [1, 2]
    files = [path for path in (shapes / "dies").rglob("*") if path.is_file()]
    assert not any(played.KEY.encode() in path.read_bytes() for path in files)


def test_one_that_is_down_is_said_before_any_work(shapes: Path, service: Any) -> None:
    job = write_job(shapes, "http://127.0.0.1:9/v1", "down")
    code, said = alike.smoothcert("certify", str(job))
    assert code != 0 and "answer.endpoint='http://127.0.0.1:9/v1' cannot be reached" in said
    assert not list((shapes / "down").rglob("*.parquet"))


def test_a_judge_that_replies_in_prose_is_said_before_any_work(shapes: Path, service: Any) -> None:
    judge = {"endpoint": service.url, "model": "eye-1", "retries": 0}
    job = write_job(shapes, service.url, "prose", judge=judge)
    service.replies = [played.said("What a lovely answer!")]
    code, said = alike.smoothcert("certify", str(job))
    assert code != 0 and "replies 'What a lovely answer!'" in said and len(service.seen) == 1


def test_plan_says_what_it_costs(shapes: Path, service: Any) -> None:
    price = {"prompt_per_1k": 0.5, "answer_per_1k": 2.0, "image_tokens": 100}
    judge = {"endpoint": service.url, "model": "eye-1", "retries": 0}
    job = write_job(shapes, service.url, "cost", price=price, judge=judge)
    code, said = alike.smoothcert("plan", str(job), "--no-probe")
    assert code == 0, said
    said = " ".join(said.split())
    questions = [json.loads(line) for line in (shapes / "questions.jsonl").read_text().splitlines()]
    count = len(questions)
    answers = count * (1 + 2 + 3)
    assert f"questions {count} about 2 images" in said and f"about {count} about these pairs" in said
    assert f"answers {answers} (bare {count}, vote {count * 5})" in said
    letters = sum(len(each["question"]) for each in questions) / count
    prompts = round(letters / 4 * answers)
    money = ((prompts + 100 * answers) * 0.5 + 9 * answers * 2.0) / 1000
    assert f"about {prompts:,} tokens of prompts and {100 * answers:,} of images" in said
    assert f"at most about {money:,.2f} at the endpoint" in said
    assert f"judge {2 * count} requests" in said
    assert service.seen == [] and not (shapes / "cost").exists()
