"""FOA (Jia et al. 2025, 2505.21494): M-Attack, with clustered patch features matched by optimal transport."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from smoothcert.attacks.mattack import MAttack, MAttackSettings
from smoothcert.attacks.norms import Norm
from smoothcert.attacks.objectives.base import Objective
from smoothcert.attacks.subjects import Subject
from smoothcert.attacks.transport import cluster_centres, transport_similarity
from smoothcert.encoders.base import Encoder
from smoothcert.errors import EncoderError


@dataclass(frozen=True, slots=True, kw_only=True)
class FOASettings(MAttackSettings):
    """Settings of ``FOA``.

    Attributes:
        clusters: local clusters an image.
        local_weight: of the local similarity against the global cosine.
        temperature: of the entropic transport.
        balance: temperature of the softmax that gives slower-improving surrogates more weight.
    """

    clusters: int = 5
    local_weight: float = 0.2
    temperature: float = 0.1
    balance: float = 1.0

    def __post_init__(self) -> None:
        MAttackSettings.__post_init__(self)
        self.need_at_least(1, "clusters")
        self.need_at_least(0, "local_weight")
        self.need_positive("temperature", "balance")


class FOA(MAttack):
    """Global cosine plus local transport on crops, with more weight on surrogates that improve more slowly.

    The published budget is 16/255 with 300 steps of 1/255. Every surrogate must have patch features.
    """

    settings: FOASettings

    def check(self, subject: Subject, objective: Objective, norm: Norm) -> None:
        """See ``Attack.check``."""
        super().check(subject, objective, norm)
        for encoder in tuple(self.settings.surrogates) or (subject.encoder,):
            probe = torch.zeros((1, 3, *encoder.input_size), device=encoder.device)
            try:
                with torch.no_grad():
                    encoder.encode_patches(probe)
            except EncoderError as exc:
                raise EncoderError(
                    f"attack '{self.name}' needs patch features, but encoder '{encoder.name}' has none",
                    remedy="use a CLIP or SigLIP encoder, or the attack 'm-attack'",
                ) from exc

    def similarity(self, encoder: Encoder, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Global cosine plus weighted local transport similarity: (k,)."""
        settings = self.settings
        with torch.no_grad():
            wanted = cluster_centres(encoder.encode_patches(target), settings.clusters)
        local = cluster_centres(encoder.encode_patches(source), settings.clusters)
        near = transport_similarity(local, wanted, temperature=settings.temperature)
        return super().similarity(encoder, source, target) + settings.local_weight * near

    def weights(self, now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Softmax of L_t / L_{t-1}, times the number of surrogates: (n, k).

        L is what a surrogate still lacks, 1 + local_weight - similarity, so that it falls towards 0 and the
        ratio is high where a surrogate improves slowly. Equal weights at the first step.
        """
        most = 1 + self.settings.local_weight
        ratio = (most - now) / (most - before).clamp_min(1e-6)
        ratio = torch.where(torch.isnan(before), 1.0, ratio)
        return torch.softmax(ratio / self.settings.balance, dim=0) * len(now)
