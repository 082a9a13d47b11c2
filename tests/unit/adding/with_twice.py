"""Everything about one run with one more certificate, as JSON on standard output; run as a program by the test.

The catalogue is a constant that all rooms read when they are imported: so the entry is added first, in a process of its
own, which is what a line more in ``CATALOGUE`` amounts to.
"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

from twice import TWICE

from smoothcert.catalogue import certificates

certificates.CATALOGUE = (*certificates.CATALOGUE, TWICE)

import pyarrow as pa  # noqa: E402  # behind the entry, as the rooms below are
import pyarrow.parquet as pq  # noqa: E402

from smoothcert.audit.audit import audit_run  # noqa: E402
from smoothcert.catalogue.page import page  # noqa: E402
from smoothcert.cli.main import app  # noqa: E402
from smoothcert.datasets import write_demo_data  # noqa: E402
from smoothcert.sql import Query  # noqa: E402
from smoothcert.store import CERTIFICATES, RunDirectory  # noqa: E402
from smoothcert.summary.summary import summarise  # noqa: E402
from smoothcert.tracking import figures  # noqa: E402

JOB = """
name: twice
data: {{format: parquet, uri: "{here}/digits", limit: 8}}
encoder: {{model: "bundled:digits-clip", slots: 4, chunk: 16, threads: 1}}
certify:
  sigma: 0.25
  alpha: 0.01
  pilot_draws: 15
  max_draws: 160
  radii: [0.03125, 0.0625]
  cosines: [0.3, 0.5]
  targets: [{{certificate: twice, radius: 0.03125, cosine: 0.3}}]
attacks:
  - {{attack: pgd, norm: l2, budgets: 0.05, subjects: smoothed, steps: 1, eot_draws: 2, evaluate_draws: 8}}
executor: {{pairs_per_unit: 8}}
output: {{runs: "{here}", run: mine}}
tracking: {{enabled: false}}
"""


def findings(run: RunDirectory) -> list[str]:
    """What the audit says, as ``rule: detail``."""
    return [
        f"{finding.rule}: {detail}" for finding in audit_run(run).findings for _, detail in finding.listed
    ]


def raise_stored(run: RunDirectory, root: Path) -> None:
    """Raise the first bound of every row by 0.05, in the committed file itself."""
    (file,) = root.rglob("certificates/*.parquet")
    table = pq.read_table(file)
    raised = [[(values[0] or 0.0) + 0.05, *values[1:]] for values in table["twice"].to_pylist()]
    place = table.schema.get_field_index("twice")
    column = pa.array(raised, table.schema.field(place).type)
    pq.write_table(table.set_column(place, table.schema.field(place), column), file)


def main(here: Path) -> None:
    """The run, and what each room says of the new certificate."""
    job = here / "job.yaml"
    job.write_text(JOB.format(here=here))
    write_demo_data(here / "digits", "parquet")
    with redirect_stdout(sys.stderr):
        try:
            app(["attack", str(job)])
        except SystemExit as ended:
            assert not ended.code, ended.code
    run = RunDirectory.open(str(here / "mine"))
    with Query([run]) as query:
        told = {
            "rows": query.sql("SELECT * EXCLUDE (run_id) FROM certificates").to_pylist(),
            "bounds": query.sql("SELECT * FROM bounds WHERE certificate = 'twice'").to_pylist(),
            "shares": query.sql("SELECT * FROM certified_share WHERE certificate = 'twice'").to_pylist(),
            "sql": query.sql("SELECT twice_bound(0.95, 0.05, 0.25) AS found").to_pylist(),
            "attacked": query.sql("SELECT pair_id, certified_to_clean FROM attacks").to_pylist(),
        }
    summary = summarise(run.url)
    told["summary"] = json.loads(summary.to_json())
    told["metrics"] = figures.metrics(summary)
    told["column"] = next(each.described() for each in CERTIFICATES.columns if each.name == "twice")
    told["page"] = page()
    told["honest"] = findings(run)
    raise_stored(run, here / "mine")
    told["raised"] = findings(RunDirectory.open(run.url))
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
