"""Every multimodal family as a tiny random model through a whole run: certified features, and answers.

The features are those of the family's tower, the answers those of its language model; that x is what the family's own
processor makes is ``tests/unit/encoders/test_towers.py``, that answers are transformers' own ``tests/unit/answerers``.

Answers are made as an actor on Ray makes them: by a session that is opened from the pickled ``Opening``, with models of
its own, and whose units are submitted one by one. What Ray adds to that knows of no family: a process, which
``cluster/test_answers.py`` starts for one of them. With SMOOTHCERT_ALL_FAMILIES=1 it starts one for each (ten minutes).
"""

from __future__ import annotations

import io
import json
import os
import pickle
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from smoothcert.job.reading import parse_job
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import Monitor
from smoothcert.sql import Query
from smoothcert.store import RunDirectory
from smoothcert.work.answer.inputs import AnswerInputs
from smoothcert.work.tasks import Phase

alike = SimpleNamespace(
    **runpy.run_path(str(Path(__file__).parents[1] / "unit/answerers/test_pretrained.py"))
)
SIGMA = 0.1


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("families"))


def write_pictures(here: Path) -> Path:
    (here / "images/thing").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(2):
        pixels = rng.integers(70, 185, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(here / f"images/thing/{number}.png")
    lines = [{"pair": f"{number}.png", "question": "what colour", "answers": ["w20"]} for number in range(2)]
    (here / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return here


def job_of(here: Path, family: str) -> str:
    path = alike.tiny_towers.build_tower(family, here / family)
    alike.write_tokenizer(path)
    return json.dumps(
        {
            "name": family,
            "data": {"format": "imagefolder", "uri": str(here / "images")},
            "encoder": {"model": str(path), "device": "cpu", "slots": 2, "chunk": 8},
            "certify": {"sigma": SIGMA, "alpha": 0.05, "pilot_draws": 8, "max_draws": 16, "radii": [0.05]},
            "output": {"runs": str(here / "runs"), "run": family},
            "tracking": {"enabled": False},
            "answer": {
                "model": str(path),
                "questions": str(here / "questions.jsonl"),
                "template": alike.TEMPLATE,
                "max_new_tokens": 3,
                "smooth_draws": 4,
                "vote": {"pilot_draws": 2, "max_draws": 6},
            },
        }
    )


def work_as_an_actor(driver: Driver, phase: Phase) -> None:
    for task in phase.tasks:
        task.begin(driver.run)
    session = pickle.loads(pickle.dumps(driver.opening()))()
    try:
        for unit in list(driver.units_left(phase, driver.run.commits.load())):
            session.submit(pickle.loads(pickle.dumps(unit))).result()
    finally:
        session.close()


@pytest.mark.parametrize("family", alike.FAMILIES)
def test_features_are_certified_and_questions_answered(family: str, pictures: Path) -> None:
    job = parse_job(job_of(pictures, family))
    driver = Driver(job)
    driver.check()
    certification, answers = driver.phases
    assert driver.work(certification.name, Monitor(lambda result: None)).missing == 0
    work_as_an_actor(driver, answers)
    assert driver.work(answers.name, Monitor(lambda result: None)).resumed == 2
    with Query([RunDirectory.open(str(pictures / "runs" / family))]) as query:
        certified = query.sql("SELECT * FROM certificates ORDER BY pair_id").to_pylist()
        said = query.sql("SELECT * FROM answers ORDER BY pair_id, subject").to_pylist()
    assert [row["status"] for row in certified] == ["ok"] * 2
    assert [row["subject"] for row in said] == ["bare", "smoothed", "vote"] * 2
    encoder, answerer = driver.encoder, driver.inputs.share(AnswerInputs).answerer
    for number, row in enumerate(certified):
        image = Image.open(io.BytesIO((pictures / f"images/thing/{number}.png").read_bytes()))
        x = torch.from_numpy(encoder.prepare(image))[None].float() / 255
        noisy = x + SIGMA * torch.randn((64, *x.shape[1:]), generator=torch.Generator().manual_seed(number))
        norm = float(encoder.encode_images(noisy).mean(0).norm())
        assert (
            0 <= row["smooth_norm_lcb"] <= norm + 0.1
        )  # 0.05 of wrong bounds; 64 draws are off by 0.1 far less often
        (bare,) = answerer.answer(x, ["what colour"], [0])
        assert said[3 * number]["answer"] == bare.text


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not os.environ.get("SMOOTHCERT_ALL_FAMILIES"), reason="set SMOOTHCERT_ALL_FAMILIES=1")
@pytest.mark.parametrize("family", alike.FAMILIES)
def test_rows_through_ray_are_those_of_one_process(family: str, tmp_path: Path) -> None:
    found = []
    job = json.loads(job_of(write_pictures(tmp_path), family))
    for executor in ({"kind": "local"}, {"kind": "ray", "workers": 1, "cpus_per_worker": 0.5}):
        job["executor"], job["output"]["run"] = executor, executor["kind"]
        driver = Driver(parse_job(json.dumps(job)))
        driver.check()
        for phase in driver.phases:
            assert driver.work(phase.name, Monitor(lambda result: None)).missing == 0
        with Query([RunDirectory.open(str(tmp_path / "runs" / executor["kind"]))]) as query:
            answers = query.sql(
                "SELECT pair_id, subject, answer, votes FROM answers ORDER BY ALL"
            ).to_pylist()
            norms = query.sql("SELECT smooth_norm_lcb FROM certificates ORDER BY pair_id").to_pylist()
            found.append((answers, [row["smooth_norm_lcb"] for row in norms]))
    (local, norms), (ray, theirs) = found
    assert ray == local and len(local) == 6
    assert np.allclose(norms, theirs, atol=1e-5, rtol=0)
