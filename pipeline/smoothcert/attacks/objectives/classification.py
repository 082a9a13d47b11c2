"""Classification margin: make another zero-shot class win."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F

from smoothcert.attacks.objectives.base import PER_PAIR, Objective
from smoothcert.errors import JobError

ClassLoss = Literal["ce", "dlr", "dlr-targeted"]


@dataclass(frozen=True, slots=True)
class ClassificationMargin(Objective):
    """Make the predicted class differ from the label; success: another class has a strictly higher logit.

    Logits are cosines between the feature and the class features; CE multiplies them by ``logit_scale``.

    Attributes:
        class_features: (C, d), one a class, C >= 2.
        labels: int64 (B,), the class to leave.
        kind: ``ce`` (cross-entropy, shown as the log-odds log(exp(CE) - 1) of a wrong class: the same order
            and the same gradient direction, but it does not vanish where CLIP's scale saturates the
            softmax), ``dlr`` (difference of logits ratio, Croce and Hein 2020, equation 6; it needs 3
            classes, with 2 the plain logit difference is used), or ``dlr-targeted`` (equation 7, 4 classes).
        targets: int64 (B,), the class to reach with ``dlr-targeted``. Success stays untargeted.
        logit_scale: multiplies cosines under CE; CLIP's is 100.
    """

    name: ClassVar[str] = "classification"

    class_features: torch.Tensor
    labels: torch.Tensor = field(metadata=PER_PAIR)
    kind: ClassLoss = "ce"
    targets: torch.Tensor | None = field(default=None, metadata=PER_PAIR)
    logit_scale: float = 100.0

    def __post_init__(self) -> None:
        classes = len(self.class_features)
        if classes < 2:
            raise JobError(
                f"objective '{self.name}' needs at least two classes, not {classes}",
                remedy="give at least two labels",
            )
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < classes:
            raise JobError(
                f"objective '{self.name}': labels from {int(self.labels.min())} to {int(self.labels.max())} "
                f"do not fit {classes} classes",
                remedy="give each pair a label that the zero-shot section names",
            )
        if self.kind == "dlr-targeted" and self.targets is None:
            raise JobError(
                f"objective '{self.name}': 'dlr-targeted' needs targets", remedy="use rival_targets()"
            )

    def with_loss(self, kind: ClassLoss, targets: torch.Tensor | None = None) -> ClassificationMargin:
        """The same goal, searched with another loss."""
        return replace(self, kind=kind, targets=targets)

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Cosines with the class features: (B, C)."""
        return F.normalize(features, dim=-1) @ F.normalize(self.class_features, dim=-1).T

    def rival_targets(self, features: torch.Tensor, rank: int) -> torch.Tensor:
        """The ``rank``-th best class besides the label (1 is the nearest rival): (B,)."""
        rivals = self.logits(features).scatter(1, self.labels[:, None], -torch.inf)
        return rivals.topk(rank, dim=1).indices[:, -1]

    def loss(self, features: torch.Tensor) -> torch.Tensor:
        """CE, DLR or targeted DLR, whichever ``kind`` says."""
        logits = self.logits(features)
        if self.kind == "ce":
            scaled = logits * self.logit_scale
            others = scaled.scatter(1, self.labels[:, None], -torch.inf)
            return torch.logsumexp(others, dim=1) - scaled.gather(1, self.labels[:, None])[:, 0]
        ordered = logits.sort(dim=1, descending=True).values
        own = logits.gather(1, self.labels[:, None])[:, 0]
        if self.kind == "dlr-targeted" and self.targets is not None:
            gain = logits.gather(1, self.targets[:, None])[:, 0] - own
            if logits.shape[1] < 4:
                return gain
            return gain / (ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2).clamp_min(1e-12)
        gain = -self._gap(logits)
        return gain if logits.shape[1] < 3 else gain / (ordered[:, 0] - ordered[:, 2]).clamp_min(1e-12)

    def margin(self, features: torch.Tensor) -> torch.Tensor:
        """Logit of the label minus the best other logit."""
        return self._gap(self.logits(features))

    def _gap(self, logits: torch.Tensor) -> torch.Tensor:
        own = logits.gather(1, self.labels[:, None])[:, 0]
        return own - logits.scatter(1, self.labels[:, None], -torch.inf).amax(dim=1)


@dataclass(frozen=True, slots=True)
class RivalMargin(Objective):
    """Make one given class beat the label: what targeted FAB steps towards.

    Attributes:
        class_features: (C, d).
        labels: int64 (B,).
        rivals: int64 (B,).
    """

    name: ClassVar[str] = "rival"

    class_features: torch.Tensor
    labels: torch.Tensor = field(metadata=PER_PAIR)
    rivals: torch.Tensor = field(metadata=PER_PAIR)

    def loss(self, features: torch.Tensor) -> torch.Tensor:
        """Minus the margin."""
        return -self.margin(features)

    def margin(self, features: torch.Tensor) -> torch.Tensor:
        """Cosine with the label's class feature minus cosine with the rival's."""
        unit = F.normalize(self.class_features, dim=-1)
        gap = unit[self.labels] - unit[self.rivals]
        return (F.normalize(features, dim=-1) * gap).sum(-1)
