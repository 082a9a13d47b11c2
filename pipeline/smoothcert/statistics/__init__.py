"""Confidence bounds, sequential tests and claims about whole datasets (docs/theory.md section 3).

numpy and scipy only.
"""

from smoothcert.statistics.betting import Bets, bets_for, choose_bets
from smoothcert.statistics.bounds import Method, lower_bound, vote_share_bound
from smoothcert.statistics.drops import first_alarm, log_evidence
from smoothcert.statistics.eigenvalue import eigenvalue_upper_bound, fix_ball, largest_eigenvalue
from smoothcert.statistics.intervals import mean_interval, quantile_ranks, share_interval
from smoothcert.statistics.paired import PairedDifference, mcnemar, mean_difference, share_difference
from smoothcert.statistics.quantiles import percentile_bound, quantile_rank
from smoothcert.statistics.selection import ebh, nested_radius, simultaneous_alpha
from smoothcert.statistics.sequential import CERTIFIED, REFUTED, UNDECIDED, SequentialTest

__all__ = [
    "Bets",
    "CERTIFIED",
    "Method",
    "PairedDifference",
    "REFUTED",
    "SequentialTest",
    "UNDECIDED",
    "bets_for",
    "choose_bets",
    "ebh",
    "eigenvalue_upper_bound",
    "first_alarm",
    "fix_ball",
    "largest_eigenvalue",
    "log_evidence",
    "lower_bound",
    "mcnemar",
    "mean_difference",
    "mean_interval",
    "quantile_ranks",
    "nested_radius",
    "percentile_bound",
    "quantile_rank",
    "share_difference",
    "share_interval",
    "simultaneous_alpha",
    "vote_share_bound",
]
