"""What one entry of the catalogue says: a certificate, and the forms in which it is stated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from smoothcert.catalogue.evidence import Evidence
from smoothcert.catalogue.quantities import Quantity

if TYPE_CHECKING:
    from smoothcert.catalogue.evidence import FloatArray

Function = Callable[..., "FloatArray"]


@dataclass(frozen=True, slots=True)
class Form:
    """One way to state a certificate, which is one column.

    Attributes:
        column: of the table ``certificates``, or of ``answers`` (catalogue/answers.py).
        function: pure and vectorised; its arguments are those of the certificate's ``basis``, then a radius (of a
            bound) or a cosine (of a radius at a cosine), then sigma. NaN where nothing is certified.
        sql: name of the function in SQL.
        meaning: of the column, for a reader who has never seen the code.
    """

    column: str
    function: Function
    sql: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """One certificate. It has a bound at every radius, perhaps the radius of every cosine too; or only a radius.

    Attributes:
        name: in views, targets, metrics and findings.
        rule: how draws become the decision that it is about.
        quantity: what it bounds from below.
        source: theorem, and where it is from.
        basis: what it follows from, in the order of its functions' arguments.
        share_of_alpha: level of each confidence bound of its basis; of a rank, split over the k ranks too.
        bound: the quantity's lower bound at a radius: a list column, one element for each radius of the job.
        radius_at: the radius up to which the quantity is at least a cosine: a list column, one for each cosine.
        radius: the radius up to which the quantity is above 0: a plain column.
        switch: field of the job's section ``certify`` without which there is none; empty where every job has it.
        beside: the certificate that has a part of its alpha, ``evidence.BESIDE``: a row has the better of both, so
            that it is never worse than that one at this part of alpha; empty for none.
        anywhere: whether a row's own numbers stand at ``share_of_alpha``, so that it can be had at any radius later.
        target: whether a job may have targets on it.
        figure: of a decision, what summary and MLflow call the share of pairs for which it holds up to a radius.
        right_figure: the same among labelled pairs whose class, the quantity's ``label``, is right; empty for none.
        leading: whether its figures are among the few that MLflow charts and leaderboards show; the others are in
            tables. One for each question that a reader asks, so that curves of several runs can be compared.
        norm: of the perturbations it speaks of.
        noise: of the draws.
    """

    name: str
    rule: Literal["mean", "vote", "percentile"]
    quantity: Quantity
    source: str
    basis: tuple[Evidence, ...]
    share_of_alpha: Fraction
    bound: Form | None = None
    radius_at: Form | None = None
    radius: Form | None = None
    switch: Literal["", "second_moment", "percentile"] = ""
    beside: str = ""
    anywhere: bool = False
    target: bool = False
    figure: str = ""
    right_figure: str = ""
    leading: bool = False
    norm: str = "l2"
    noise: str = "gaussian"

    def __post_init__(self) -> None:
        if (self.bound is None) == (self.radius is None):
            raise ValueError(f"certificate '{self.name}' needs either a bound or a radius")
        if self.radius is not None and not self.figure:
            raise ValueError(f"certificate '{self.name}' has a radius; name its figure")
        if self.right_figure and not self.quantity.label:
            raise ValueError(f"certificate '{self.name}' is about no class that could be right")
        if self.radius_at is not None and not self.quantity.cosine:
            raise ValueError(f"certificate '{self.name}' bounds no cosine; it has no radius at one")

    def holds_at(self, position: int, radius: float, columns: str = "{column}[{position}]") -> str:
        """SQL that is true of a row whose decision is certified at a radius of the job.

        Args:
            position: of the radius in the job, from 1 on.
            radius: the radius.
            columns: how an element of a list column is written.
        """
        if self.radius is not None:
            return f"{self.radius.column} >= {radius!r}::DOUBLE"
        assert self.bound is not None
        return columns.format(column=self.bound.column, position=position) + " > 0"

    @property
    def forms(self) -> Iterator[Form]:
        """Its columns."""
        yield from (form for form in (self.bound, self.radius_at, self.radius) if form is not None)

    def arguments(self, form: Form) -> tuple[str, ...]:
        """What one of its functions takes, by name."""
        basis = tuple(each.name for each in self.basis)
        if form is self.radius:
            return (*basis, "sigma")
        return (*basis, "radius" if form is self.bound else "cosine", "sigma")

    @property
    def single_mean(self) -> Evidence | None:
        """The one mean that it rests on, at the whole alpha; a target on it is a threshold of that mean."""
        only = self.basis[0]
        plain = len(self.basis) == 1 and only.kind == "mean" and self.share_of_alpha == 1
        return only if plain else None

    @property
    def single_quantile(self) -> Evidence | None:
        """The scores whose percentile it is about; a target on it is a threshold of how many of them are large."""
        only = self.basis[0]
        return only if len(self.basis) == 1 and only.kind == "quantiles" else None
