"""What attacks achieve on the bundled encoder, beside what is certified: python tests/benchmarks/attack_digits.py.

Held-out digits, the same pairs throughout. It prints, as it goes:

1. attack success on the bare encoder by l2 budget, and the smallest budget at which it is 90% or more;
2. at that budget, the smoothed encoder (sigma 0.25 and 0.5) beside the bare one;
3. PGD's success on the smoothed encoder with 1, 4, 16 and 64 EOT draws a step;
4. for every attack that works in l2: certified, attacked and clean cosines at three radii, and the audit's verdict;
5. the audit's verdict on a copy of that run whose angular and fcsb bounds were raised by 0.05.

Nothing is asserted. Every outcome on a smoothed subject is judged on --evaluate-draws fresh draws. About 25 minutes on
two free CPU cores with the defaults; a run that was stopped resumes where --runs names a directory that is kept. How
fast the batch is: tests/benchmarks/attacks.py.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from smoothcert.audit.audit import audit_run
from smoothcert.datasets import DIGIT_NAMES, write_demo_data
from smoothcert.job import parse_job
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import Monitor
from smoothcert.runtime.progress import Progress
from smoothcert.sql import Query
from smoothcert.store import RunDirectory

RADII = (0.25, 0.5, 1.0)
"""Shares of sigma at which certificates are attacked."""
PROGRESS_S = 60.0

Section = dict[str, Any]

AUDITS: dict[str, Section] = {
    "pgd": {"objective": "divergence", "steps": 10, "keep": 4},
    "apgd": {"objective": "divergence", "reference": "smoothed", "steps": 10},
    "fab": {"objective": "divergence", "steps": 5},
    "cw": {"objective": "divergence", "steps": 5, "settings": {"weights": 2}},
    "square": {"objective": "divergence", "steps": 40},
    "autoattack": {"objective": "classification", "steps": 5},
    "apgd-t": {
        "objective": "classification",
        "reference": "predicted",
        "steps": 5,
        "settings": {"targets": 2},
    },
}
"""Every attack that works in l2, with about ten queries a pair that need gradients; autoattack is APGD-CE and APGD-DLR
where the subject is random. The clean feature, the smoothed one (angular certificate) and the predicted class (class
certificate) are each left by some."""


def say(text: str) -> None:
    """Print now, also into a file."""
    print(text, flush=True)


def run_job(options: argparse.Namespace, name: str, sigma: float, attacks: list[Section]) -> RunDirectory:
    """Certify and attack; the same name resumes, and attacks that were made are not made again."""
    job = {
        "name": name,
        "data": {"format": "parquet", "uri": str(options.runs / "data"), "limit": options.pairs},
        "encoder": {
            "model": "bundled:digits-clip",
            "device": options.device,
            "threads": options.threads,
            "slots": 32,
        },
        "certify": {"sigma": sigma, "max_draws": options.draws, "radii": [sigma * share for share in RADII]},
        "zero_shot": {"labels": list(DIGIT_NAMES), "prompts": ["a photo of the digit {label}"]},
        "attacks": attacks,
        "executor": {"pairs_per_unit": 64},
        "output": {"runs": str(options.runs), "run": name},
        "tracking": {"enabled": False},
    }
    started = time.perf_counter()
    driver = Driver(parse_job(json.dumps(job)))
    driver.check()
    certified = driver.work("certification", Monitor(on_result=lambda result: None))
    monitor = Monitor(on_result=lambda result: None, on_progress=progress_line(name), stop=threading.Event())
    report = driver.work("attacks", monitor)
    say(
        f"# {name}: {certified.done} of {certified.pairs} pairs certified, {report.done} of {report.pairs} attacked "
        f"(each counted once for every attack), {time.perf_counter() - started:.0f} s"
    )
    return driver.run


def progress_line(name: str) -> Any:
    """Says once a minute how far a job is."""
    started = last = time.perf_counter()

    def line(progress: Progress) -> None:
        nonlocal last
        now = time.perf_counter()
        if now - last >= PROGRESS_S:
            last = now
            say(
                f"# {name}: {progress.pairs} outcomes' pairs, {progress.draws / (now - started):,.0f} images/s, "
                f"{now - started:.0f} s"
            )

    return line


def show(run: RunDirectory, sql: str) -> None:
    """Print a result as aligned columns."""
    rows = select(run, sql)
    if not rows:
        return
    cells = [list(rows[0])] + [
        ["-" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()]
        for row in rows
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    for line in cells:
        say("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    say("")


def select(run: RunDirectory, sql: str) -> list[dict[str, Any]]:
    """Rows of a query."""
    with Query([run]) as query:
        return list(query.sql(sql).to_pylist())


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


def breaking_budget(options: argparse.Namespace, bare: Section) -> float:
    """The smallest l2 budget at which nine bare predictions in ten are wrong (else the largest)."""
    run = run_job(options, f"sigma-{options.sigmas[0]:g}", options.sigmas[0], [bare])
    say("attack success rate of PGD on the bare encoder, by l2 budget")
    where = "WHERE subject = 'bare' AND attack = 'pgd' AND objective = 'classification'"
    show(
        run,
        "SELECT budget, pairs, clean_accuracy, robust_accuracy, wrong_under_attack, wrong_under_attack_low, "
        f"wrong_under_attack_high FROM attack_success {where}",
    )
    rates = select(
        run, f"SELECT budget, wrong_under_attack AS rate FROM attack_success {where} ORDER BY budget"
    )
    return float(next((row["budget"] for row in rates if row["rate"] >= 0.9), rates[-1]["budget"]))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--draws", type=int, default=500, help="certify draws")
    parser.add_argument("--steps", type=int, default=20, help="of the PGD whose success is shown")
    parser.add_argument("--eot-draws", type=int, default=64, help="of the PGD whose success is shown")
    parser.add_argument("--audit-eot-draws", type=int, default=16, help="of the attacks on certificates")
    parser.add_argument("--evaluate-draws", type=int, default=1000)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.5, 0.75, 1.0, 1.1, 1.2, 1.3, 1.5, 2.0])
    parser.add_argument("--sigmas", type=float, nargs="+", default=[0.25, 0.5])
    parser.add_argument("--masking-draws", type=int, nargs="*", default=[1, 4, 16, 64])
    parser.add_argument("--masking-pairs", type=int, default=64)
    parser.add_argument("--attacks", nargs="+", default=list(AUDITS), choices=list(AUDITS))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--runs", type=Path, default=None, help="keep runs here, and resume them")
    options = parser.parse_args()
    logging.basicConfig(level="WARNING")
    started = time.perf_counter()
    options.runs = options.runs or Path(tempfile.mkdtemp(prefix="attack-digits-"))
    if not (options.runs / "data").exists():
        write_demo_data(str(options.runs / "data"), "parquet")
    smoothed = {"norm": "l2", "subjects": ["smoothed"], "evaluate_draws": options.evaluate_draws}
    pgd = {"attack": "pgd", "objective": "classification", "steps": options.steps}
    bare = pgd | {"norm": "l2", "subjects": ["bare"], "budgets": options.budgets}
    budget = breaking_budget(options, bare)
    say(f"budget from here on: l2 {budget:g}\n")
    success = pgd | smoothed | {"eot_draws": options.eot_draws, "budgets": [budget]}
    for sigma in options.sigmas:
        run = run_job(options, f"sigma-{sigma:g}", sigma, [bare, success])
        say(f"attack success rate at l2 {budget:g}: bare, and smoothed with sigma {sigma:g}")
        show(
            run,
            "SELECT subject, pairs, quarantined, clean_accuracy, robust_accuracy, success_among_right, "
            "wrong_under_attack, median_l2 FROM attack_success JOIN (SELECT attack_id, subject, budget, "
            "median(perturbation_l2) FILTER (success) AS median_l2 FROM attacks GROUP BY ALL) "
            "USING (attack_id, subject, budget) "
            f"WHERE budget = {budget!r}::DOUBLE AND attack = 'pgd' AND objective = 'classification'",
        )
    sigma = options.sigmas[0]
    if options.masking_draws:
        show_masking(options, sigma, success)
    audits = [
        {"attack": name, "budgets": [sigma * share for share in RADII], "eot_draws": options.audit_eot_draws}
        | smoothed
        | AUDITS[name]
        | {"settings": {"early_stop": False, **AUDITS[name].get("settings", {})}}
        for name in options.attacks
    ]
    run = run_job(options, f"sigma-{sigma:g}", sigma, [bare, success, *audits])
    show_audit(run, sigma)
    say(f"runs are in {options.runs}; {time.perf_counter() - started:.0f} s in all")


def show_masking(options: argparse.Namespace, sigma: float, success: Section) -> None:
    """PGD's success on fewer pairs, by the draws behind each of its gradients."""
    few = argparse.Namespace(**{**vars(options), "pairs": options.masking_pairs})
    masking = [success | {"eot_draws": draws} for draws in sorted(set(options.masking_draws))]
    run = run_job(few, "masking", sigma, masking)
    say(f"PGD's success on the smoothed encoder (sigma {sigma:g}) by EOT draws of each step")
    show(
        run,
        "SELECT budget, eot_draws, count(*) FILTER (success) AS successes, count(*) AS pairs, "
        "successes / count(*) AS rate, avg(margin) AS mean_margin FROM attacks GROUP BY budget, eot_draws "
        "ORDER BY budget, eot_draws",
    )


def show_audit(run: RunDirectory, sigma: float) -> None:
    """Certificates under attack, the verdict, and that on raised bounds."""
    radii = ", ".join(f"{sigma * share!r}::DOUBLE" for share in RADII)
    say(f"cosines of the smoothed encoder (sigma {sigma:g}), the worst attack on each pair")
    show(
        run,
        "SELECT reference, radius, pairs, certified_pairs, certified_cosine, attacked_cosine_of_certified, "
        f"attacked_cosine, clean_cosine FROM robustness_gap WHERE radius IN ({radii})",
    )
    say("violations by attack and radius")
    show(
        run,
        "SELECT attack, budget, count(*) AS pairs, count(certified_cosine) AS certified, "
        "count(*) FILTER (violation) AS violations, min(cosine_to_smoothed_ucb - certified_to_smoothed) AS closest "
        f"FROM attacks WHERE subject = 'smoothed' AND budget IN ({radii}) GROUP BY ALL ORDER BY ALL",
    )
    say("\n".join(audit_run(run).lines()) + "\n")
    copy = raise_bounds(run, Path(tempfile.mkdtemp(prefix="attack-digits-")) / "raised")
    say("the same run with angular and fcsb bounds raised by 0.05")
    for finding in (raised := audit_run(copy)).findings:
        say(f"  {finding.rule}: {finding.count:,} rows, e.g. {finding.listed[0]}")
    say(f"  sound: {raised.sound}, {raised.violated_pairs} pairs beaten\n")


if __name__ == "__main__":
    main()
