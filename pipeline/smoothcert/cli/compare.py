"""``smoothcert compare``: two runs of the same pairs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from smoothcert.cli.tables import print_table
from smoothcert.cli.terminal import Terminal

if TYPE_CHECKING:
    from smoothcert.summary.comparison import ChangedPair, ComparedFigure, PairedComparison


def compare(
    first: Annotated[str, typer.Argument(metavar="RUN_A", help="Run directory.", show_default=False)],
    second: Annotated[
        str, typer.Argument(metavar="RUN_B", help="The run to compare with it.", show_default=False)
    ],
    claim: Annotated[
        str | None,
        typer.Option(help="Also list pairs that gained or lost this share, by its name in the table."),
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, help="How many of each are listed.")] = 10,
    every: Annotated[bool, typer.Option("--all", help="Show figures that are 0 in both runs too.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare two runs of the same data, pair by pair.

    Shown are every figure of both, the difference B - A with its 95% interval, and how many pairs gained or lost what
    is claimed. Shares come with the p-value of McNemar's exact test. Each interval and p-value is of its figure alone.
    """
    from smoothcert.store import RunDirectory
    from smoothcert.summary.comparison import changed_pairs, compare_runs

    runs = (RunDirectory.open(first), RunDirectory.open(second))
    found = compare_runs(*runs)
    changed = changed_pairs(*runs, claim, pairs) if claim is not None else []
    if json_:
        more = {} if claim is None else {"changed_pairs": [asdict(each) for each in changed]}
        typer.echo(json.dumps({**found.as_mapping(), **more}))
        return
    _print(Terminal(), found, changed, every)


def _print(terminal: Terminal, found: PairedComparison, changed: list[ChangedPair], every: bool) -> None:

    terminal.say(f"A  {found.first}")
    terminal.say(f"B  {found.second}")
    for name, old, new in found.changed:
        terminal.say(f"   {name}: {old} in A, {new} in B")
    if not found.changed:
        terminal.say("   nothing differs between jobs, data, encoders and code")
    terminal.say(
        f"{found.both:,} pairs are in both, {found.quarantined_in_one:,} of them quarantined in one; "
        f"{found.in_one:,} are in one only"
    )
    if not found.finished:
        terminal.say(
            ("no intervals: ", "yellow"), "a run still goes on; they are for a fixed number of pairs"
        )
    shown = [each for each in found.figures if every or each.first or each.second]
    header = ("figure", "pairs", "A", "B", "B - A", "95% interval", "gained", "lost", "p")
    print_table(
        terminal, "", header, [(each.figure, *_cells(each)) for each in shown], left=header[:1], whole=header
    )
    if len(shown) < len(found.figures):
        terminal.say(f"{len(found.figures) - len(shown)} more figures are 0 in both (--all shows them)")
    for pair in changed:
        label = "" if pair.label is None else f"  [{pair.label}]"
        terminal.say(f"{pair.change:<7} {pair.pair_id}{label}  {(pair.caption or '')[:60]}")


def _cells(each: ComparedFigure) -> tuple[str, ...]:
    share = each.kind == "share"

    def number(value: float | None, sign: str = "") -> str:
        if value is None:
            return "-"
        return f"{value:{sign}.1%}" if share else f"{value:{sign}.3f}"

    interval = "-" if each.low is None else f"{number(each.low, '+')} to {number(each.high, '+')}"
    return (
        f"{each.pairs:,}",
        number(each.first),
        number(each.second),
        number(each.difference, "+"),
        interval,
        "" if each.gained is None else f"{each.gained:,}",
        "" if each.lost is None else f"{each.lost:,}",
        "" if each.p_value is None else "<0.001" if each.p_value < 0.001 else f"{each.p_value:.3f}",
    )
