"""Who takes part in a fit: this process alone, or several that each compute a share of every batch.

All members run the same loop. What they must agree on goes through a ``Team``: totals over a batch, the sum of their
gradients, whether to stop, and what one of them writes for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.distributed as dist


class PeerFailedError(Exception):
    """The first member failed at what it does for all, and says itself why."""


class Team(Protocol):
    """The members of a fit, as one of them sees it.

    Attributes:
        size: how many there are.
        rank: which one this is; 0 is the first, which writes, and is heard by the watcher.
    """

    @property
    def size(self) -> int:
        """See there."""

    @property
    def rank(self) -> int:
        """See there."""

    def total(self, own: torch.Tensor) -> torch.Tensor:
        """The sum over all members, the same on each; the gradient is that of the own part.

        So the sum over members of the gradients of any function of totals is its gradient. Nothing that has a gradient
        through one total may go into another.
        """

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its sum over all members."""

    def agree(self, value: bool) -> bool:
        """What the first member says."""

    def do_once(self, action: Callable[[], None]) -> None:
        """Let the first member do something, and wait for it.

        Raises:
            PeerFailedError: it failed; on the first member what it raised.
        """


class Alone:
    """A team of one."""

    size, rank = 1, 0

    def total(self, own: torch.Tensor) -> torch.Tensor:
        """See ``Team.total``."""
        return own

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """See ``Team.add_up``."""

    def agree(self, value: bool) -> bool:
        """See ``Team.agree``."""
        return value

    def do_once(self, action: Callable[[], None]) -> None:
        """See ``Team.do_once``."""
        action()


ALONE = Alone()


class ProcessTeam:
    """The processes of torch's default process group.

    Args:
        device: where the group's backend wants its tensors: a GPU for NCCL; None: any.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.size, self.rank = dist.get_world_size(), dist.get_rank()
        self._device = device

    def total(self, own: torch.Tensor) -> torch.Tensor:
        """See ``Team.total``."""
        found: torch.Tensor = _Total.apply(own, self)  # type: ignore[no-untyped-call]
        return found

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """See ``Team.add_up``: all of one type in one message."""
        for kind in dict.fromkeys(tensor.dtype for tensor in tensors):
            some = [tensor for tensor in tensors if tensor.dtype == kind]
            whole = self.sum(torch.cat([tensor.flatten() for tensor in some]))
            parts = torch.split(whole, [tensor.numel() for tensor in some])
            for tensor, part in zip(some, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def agree(self, value: bool) -> bool:
        """See ``Team.agree``."""
        said = torch.tensor([int(value)], device=self._device)
        dist.broadcast(said, src=0)
        return bool(said.item())

    def do_once(self, action: Callable[[], None]) -> None:
        """See ``Team.do_once``."""
        failure: Exception | None = None
        if self.rank == 0:
            try:
                action()
            except Exception as exc:
                failure = exc
        if self.agree(failure is not None):
            raise PeerFailedError("the first process of this training failed") if failure is None else failure

    def sum(self, own: torch.Tensor) -> torch.Tensor:
        """The sum over all members, without a gradient."""
        sent = own.detach().clone() if self._device is None else own.detach().to(self._device, copy=True)
        dist.all_reduce(sent)
        return sent.to(own.device)


class _Total(torch.autograd.Function):
    """Forwards the sum over all members, backwards the gradient of the own part."""

    @staticmethod
    def forward(ctx: Any, own: torch.Tensor, team: ProcessTeam) -> torch.Tensor:
        return team.sum(own)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0], None


def share_of(team: Team, count: int) -> slice:
    """Which of so many rows are this member's; none where there are fewer rows than members before it need."""
    return slice(team.rank * count // team.size, (team.rank + 1) * count // team.size)
