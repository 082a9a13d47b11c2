"""Rows of pairs without draws, which a driver writes for a worker that died on them."""

from __future__ import annotations

from pathlib import Path

from smoothcert.datasets import Pair
from smoothcert.encoders import KnownEncoder
from smoothcert.errors import WorkerKilledError
from smoothcert.job import parse_job
from smoothcert.work.certify.task import CertifyTask
from smoothcert.work.inputs import Inputs

JOB = """
name: mini
data: {{format: imagefolder, uri: "{data}"}}
encoder: {{model: "bundled:digits-clip"}}
zero_shot: {{labels: [left, right], prompts: ["{{label}}"]}}
certify:
  sigma: 0.25
  targets:
    - {{certificate: vote, radius: 0.1}}
    - {{certificate: class_percentile, radius: 0.1, cosine: 0.0}}
    - {{certificate: class, radius: 0.1}}
"""


def test_targets_on_texts_do_not_keep_a_pair_from_being_quarantined(tmp_path: Path) -> None:
    encoder = KnownEncoder.rotating(1.0, input_size=(8, 8))
    inputs = Inputs(parse_job(JOB.format(data=tmp_path)), encoder)
    pair = Pair("data#0", "data", b"", ("a caption",), None, None)
    (row,) = CertifyTask().quarantine(inputs, "u0", pair, WorkerKilledError("gone"))
    assert (row.status, row.error_class, row.target_decision) == ("quarantined", "WorkerKilledError", None)
