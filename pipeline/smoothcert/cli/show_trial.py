"""What ``plan`` shows of a trial: the share decided against draws, the cheapest rule, and how many draws are enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from smoothcert.cli.terminal import Terminal

if TYPE_CHECKING:
    from smoothcert.job import CertifySection
    from smoothcert.work.certify.trial import Trial

_STEPS = 5
_ALL = "all of them"


def show_trials(
    terminal: Terminal, certify: CertifySection, rules: list[tuple[Trial, list[Trial]]], together: Trial
) -> None:
    """Print a trial of each target, each with those of the same statement under other rules.

    Args:
        terminal: where to.
        certify: of the job.
        rules: by target of the job.
        together: all targets of the job at once, as the job draws.
    """
    steps = [max(2, certify.max_draws >> (_STEPS - 1 - i)) for i in range(_STEPS)]
    terminal.say(
        f"targets    tried on {len(together.draws)} pairs, with other noise: share decided after so many fresh draws"
    )
    columns = "".join(f"{f'{step:,}':>7}" for step in steps)
    named = [
        [own.targets[0].name, *(f"  or {other.targets[0].name}" for other in others)] for own, others in rules
    ]
    width = max(len(name) for names in [[_ALL], *named] for name in names) + 1
    terminal.say(f"           {'':{width}}{columns}  certified  draws for each")

    def line(name: str, trial: Trial) -> None:
        shares = "".join(f"{trial.decided_after(step):7.0%}" for step in steps)
        each = "-" if not trial.certified.any() else f"{trial.draws_each:,.0f}"
        terminal.say(f"           {name:{width}}{shares}  {trial.certified.mean():9.0%}  {each:>14}")

    for names, (own, others) in zip(named, rules, strict=True):
        for name, trial in zip(names, (own, *others), strict=True):
            line(name, trial)
    if len(rules) > 1:
        line(_ALL, together)
    for own, others in rules:
        best = min([own, *others], key=lambda trial: trial.draws_each)
        if best is not own and best.draws_each < own.draws_each:
            terminal.say(
                f"           cheapest for {own.targets[0].name}: {best.targets[0].name}; it is another certificate, "
                "perhaps of another rule of decision: see docs/guarantees.md",
            )
    _recommend(terminal.say, certify, together)


def _recommend(say: Callable[[str], None], certify: CertifySection, together: Trial) -> None:
    enough, decided = together.enough(), together.decided.mean()
    if not enough:
        say(
            f"           none of these pairs is decided by {certify.max_draws:,} draws: raise certify.max_draws, or "
            "ask for less",
        )
    elif enough < certify.max_draws:
        say(
            f"           recommended: certify.max_draws={enough} decides {together.decided_after(enough):.0%} of these "
            f"pairs, {certify.max_draws:,} decide {decided:.0%}{_rest(decided)}",
        )
    else:
        say(
            f"           recommended: as many draws as certify.max_draws={certify.max_draws:,} or more; they decide "
            f"{decided:.0%} of these pairs{_rest(decided)}",
        )


def _rest(decided: float) -> str:
    return "" if decided == 1.0 else "; the others need more, or another target"
