"""A run over folders of images: classes are certified, and nothing is said about captions."""

from pathlib import Path

from smoothcert.datasets import load_digits_pairs
from smoothcert.job import parse_job
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import Monitor
from smoothcert.sql import Query

JOB = """
name: folders
data: {{format: imagefolder, uri: "{uri}"}}
encoder: {{model: "bundled:digits-clip", threads: 1}}
certify: {{sigma: 0.25, max_draws: 60, radii: [0.1]}}
zero_shot: {{labels: [zero, one, two, three, four, five, six, seven, eight, nine]}}
output: {{runs: "{runs}"}}
tracking: {{enabled: false}}
"""


def test_folders_of_images_are_certified(tmp_path: Path) -> None:
    for number, (image, _, label) in zip(range(6), load_digits_pairs("test"), strict=False):
        (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "data" / label / f"{number}.png")
    driver = Driver(parse_job(JOB.format(uri=tmp_path / "data", runs=tmp_path / "runs")))
    report = driver.work("certification", Monitor(lambda result: None))
    assert report.missing == 0 and report.done == 6
    with Query([driver.run]) as query:
        rows = query.sql("SELECT * FROM certificates").to_pylist()
    assert all(row["status"] == "ok" and row["label"] == row["pair_id"].split("#")[0] for row in rows)
    assert all(row["caption"] is None and row["caption_similarity"] is None for row in rows)
    assert sum(row["clean_label"] == row["label"] for row in rows) >= 4
