"""What attacks achieve on the bundled encoder, beside what is certified: python tests/benchmarks/attack_digits.py.

Held-out digits. Prints attack success on the bare encoder and on the smoothed one (sigma 0.25 and 0.5) at the same
budgets; certified, attacked and clean cosines at three radii with the audit's verdict; the verdict on a copy of a run
whose bounds were raised by 0.05; and PGD's success with 1, 4, 16 and 64 EOT draws. Nothing is asserted. Runs resume
where --runs names a directory that is kept. How fast the batch is: tests/benchmarks/attacks.py.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from smoothcert.datasets import DIGIT_NAMES, write_demo_data
from smoothcert.job import parse_job
from smoothcert.runtime.attack_driver import AttackDriver
from smoothcert.runtime.audit import audit_run
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import Monitor
from smoothcert.store import Query, RunDirectory

RADII = (0.25, 0.5, 1.0)
"""Shares of sigma at which certificates are attacked."""


def run_job(
    options: argparse.Namespace, name: str, sigma: float, attacks: list[dict[str, Any]]
) -> RunDirectory:
    """Certify and attack; the same name resumes."""
    job = {
        "name": name,
        "data": {"format": "parquet", "uri": str(options.runs / "data"), "limit": options.pairs},
        "encoder": {"model": "bundled:digits-clip", "device": options.device, "threads": options.threads},
        "certify": {"sigma": sigma, "max_draws": options.draws, "radii": [sigma * share for share in RADII]},
        "zero_shot": {"labels": list(DIGIT_NAMES), "prompts": ["a photo of the digit {label}"]},
        "attacks": attacks,
        "executor": {"pairs_per_unit": 64},
        "output": {"runs": str(options.runs)},
        "tracking": {"enabled": False},
    }
    started = time.perf_counter()
    driver = Driver(parse_job(json.dumps(job)))
    attack_driver = AttackDriver(driver)
    attack_driver.check()
    certified = driver.certify(Monitor(on_result=lambda result: None))
    report = attack_driver.run(Monitor(on_result=lambda result: None))
    print(
        f"# {name}: {certified.rows} of {certified.pairs} pairs certified, {report.units - report.missing} of "
        f"{report.units} attack units done, {time.perf_counter() - started:.0f} s"
    )
    return driver.run


def show(run: RunDirectory, sql: str) -> None:
    """Print a result as aligned columns."""
    with Query([run]) as query:
        rows = query.sql(sql).to_pylist()
    if not rows:
        return
    cells = [list(rows[0])] + [
        ["-" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()]
        for row in rows
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    print()


def raise_bounds(run: RunDirectory, copy: Path) -> RunDirectory:
    """A copy of a run whose angular and fcsb bounds are 0.05 too large."""
    shutil.copytree(run.url, copy)
    for path in (copy / "certificates").glob("*.parquet"):
        table = pq.read_table(path)
        for name in ("angular", "fcsb"):
            place = table.schema.get_field_index(name)
            field = table.schema.field(place)
            raised = [row and [v and min(v + 0.05, 1.0) for v in row] for row in table[name].to_pylist()]
            table = table.set_column(place, field, pa.array(raised, field.type))
        pq.write_table(table, path)
    return RunDirectory.open(str(copy))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--draws", type=int, default=500, help="certify draws")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--eot-draws", type=int, default=64)
    parser.add_argument("--evaluate-draws", type=int, default=1000)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.5, 1.0, 2.0])
    parser.add_argument("--sigmas", type=float, nargs="+", default=[0.25, 0.5])
    parser.add_argument("--masking-draws", type=int, nargs="*", default=[1, 4, 16, 64])
    parser.add_argument("--masking-pairs", type=int, default=64)
    parser.add_argument("--attacks", nargs="+", default=["pgd", "apgd", "square"])
    parser.add_argument("--square-steps", type=int, default=100)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--runs", type=Path, default=None, help="keep runs here, and resume them")
    options = parser.parse_args()
    options.runs = options.runs or Path(tempfile.mkdtemp(prefix="attack-digits-"))
    if not (options.runs / "data").exists():
        write_demo_data(str(options.runs / "data"), "parquet")
    smoothed = {"eot_draws": options.eot_draws, "evaluate_draws": options.evaluate_draws}
    success = {
        "attack": "pgd",
        "norm": "l2",
        "objective": "classification",
        "steps": options.steps,
        "budgets": options.budgets,
        **smoothed,
    }
    last: RunDirectory | None = None
    for sigma in options.sigmas:
        audits = [
            {
                "attack": name,
                "norm": "l2",
                "objective": "divergence",
                "steps": options.square_steps if name == "square" else options.steps,
                "budgets": [sigma * share for share in RADII],
                "subjects": ["smoothed"],
                "settings": {"early_stop": False},
                "keep": 4,
                **smoothed,
            }
            for name in options.attacks
        ]
        run = last = run_job(options, f"sigma-{sigma:g}", sigma, [success, *audits])
        print(f"attack success rate, sigma {sigma:g} where smoothed, 95% intervals")
        show(
            run,
            "SELECT attack, norm, budget, subject, successes, pairs, quarantined, success_rate, rate_low, rate_high "
            "FROM attack_success WHERE objective = 'classification' AND attack <> 'worst case'",
        )
        print("cosines of the smoothed encoder, the worst attack on each pair")
        show(
            run,
            "SELECT reference, radius, pairs, certified_pairs, certified_cosine, attacked_cosine_of_certified, "
            "attacked_cosine, clean_cosine FROM robustness_gap",
        )
        print("\n".join(audit_run(run).lines()) + "\n")
    if last is not None:
        copy = raise_bounds(last, Path(tempfile.mkdtemp(prefix="attack-digits-")) / "raised")
        print("the same run with angular and fcsb bounds raised by 0.05")
        print("\n".join(audit_run(copy).lines()[:6]) + "\n")
    if options.masking_draws:
        options.pairs = options.masking_pairs
        sigma = options.sigmas[0]
        masking = [
            success | {"eot_draws": draws, "subjects": ["smoothed"]}
            for draws in sorted(set(options.masking_draws))
        ]
        run = run_job(options, "masking", sigma, masking)
        print(f"PGD's success on the smoothed encoder (sigma {sigma:g}) by EOT draws of each step")
        show(
            run,
            "SELECT budget, eot_draws, count(*) FILTER (success) AS successes, count(*) AS pairs, "
            "successes / count(*) AS rate, avg(margin) AS mean_margin FROM attacks GROUP BY budget, eot_draws "
            "ORDER BY budget, eot_draws",
        )
    print(f"runs are in {options.runs}")


if __name__ == "__main__":
    main()
