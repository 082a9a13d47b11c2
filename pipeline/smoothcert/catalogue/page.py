"""``docs/certificates.md``, written from the catalogue.

python -m smoothcert.catalogue.page            writes it
python -m smoothcert.catalogue.page --check    fails if it is stale
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

from smoothcert.catalogue.answer_metrics import ANSWER_METRICS
from smoothcert.catalogue.answers import ANSWER_CERTIFICATES
from smoothcert.catalogue.certificate import Certificate
from smoothcert.catalogue.certificates import CATALOGUE, sql_functions
from smoothcert.catalogue.evidence import BESIDE
from smoothcert.catalogue.metrics import METRICS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "certificates.md"

_HEAD = """# Every certificate

Written by `make schemas` from `smoothcert.catalogue`. What they promise, in words, and with which probability:
[guarantees.md](guarantees.md). Each speaks of every perturbation of the canonical input within an l2 radius, under
Gaussian noise. What it follows from stands in the same row, each confidence bound at the level given here or at a
larger one; `smoothcert audit` computes all of them anew.

"""


def page() -> str:
    """The text of the page."""
    tables = [
        _table(
            ("certificate", "rule", "bounds", "columns", "follows from", "level of each bound", "source"),
            [_facts(each) for each in CATALOGUE],
        ),
        "What a column says:\n",
        _table(
            ("column", "meaning"),
            [(f"`{form.column}`", form.meaning) for each in CATALOGUE for form in each.forms],
        ),
        "Of [answers](answers.md), in the table `answers`:\n",
        _table(
            ("certificate", "rule", "bounds", "columns", "follows from", "level of each bound", "source"),
            [_facts(each) for each in ANSWER_CERTIFICATES],
        ),
        _table(
            ("column", "meaning"),
            [(f"`{form.column}`", form.meaning) for each in ANSWER_CERTIFICATES for form in each.forms],
        ),
        "In SQL each can be had at any radius or cosine:\n",
        _table(
            ("function", "of"),
            [
                (f"`{name}({', '.join(certificate.arguments(form))})`", f"`{form.column}`")
                for name, (certificate, form) in sql_functions().items()
            ],
        ),
        "Figures of a run besides, in summary.json (`metrics`) and in MLflow, each with a 95% interval:\n",
        _table(
            ("metric", "kind", "meaning", "only with"),
            [
                (f"`{name}`", each.kind, each.meaning, f"`{each.needs}`" if each.needs else "")
                for name, each in METRICS.items()
            ],
        ),
        "Of the answers of multimodal models ([answers.md](answers.md)), `answers_<metric>/<subject>` and by kind of "
        "question, without intervals:\n",
        _table(
            ("metric", "values", "meaning", "where", "only with"),
            [
                (
                    f"`{name}`",
                    f"0 to {each.largest:g}",
                    each.meaning,
                    {"column": "column", "derived": "view", "set": "summary"}[each.kind],
                    f"`answer.{each.needs}`" if each.needs else "",
                )
                for name, each in ANSWER_METRICS.items()
            ],
        ),
    ]
    return _HEAD + "\n".join(tables)


def _facts(certificate: Certificate) -> tuple[str, ...]:
    ranked = any(each.ranked for each in certificate.basis)
    return (
        f"`{certificate.name}`",
        certificate.rule,
        f"`{certificate.quantity.attacked}`" if certificate.quantity.attacked else certificate.quantity.name,
        ", ".join(f"`{form.column}`" for form in certificate.forms),
        ", ".join(f"`{each.column}`" for each in certificate.basis),
        _level(certificate.share_of_alpha) + ("/k" if ranked else "") + _beside(certificate),
        certificate.source,
    )


def _beside(certificate: Certificate) -> str:
    return f", {BESIDE} of it for `{certificate.beside}`" if certificate.beside else ""


def _level(share: Fraction) -> str:
    over = "" if share.denominator == 1 else f"/{share.denominator}"
    return f"{'' if share.numerator == 1 else share.numerator}alpha{over}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m smoothcert.catalogue.page", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the page is stale")
    check = parser.parse_args(arguments).check
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page():
        return 0
    if check:
        print(f"stale: {PAGE}\nrun: python -m smoothcert.catalogue.page")
        return 1
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote: {PAGE}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
