"""Clusters of local features, and the optimal transport between two sets of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def cluster_centres(tokens: torch.Tensor, clusters: int, rounds: int = 10) -> torch.Tensor:
    """Centres of a k-means clustering, differentiable through the means.

    Starts are chosen farthest first from the token nearest to the mean, so that nothing is random.
    Assignments carry no gradient.

    Args:
        tokens: (k, T, d).
        clusters: at most T are made.
        rounds: of Lloyd's algorithm.

    Returns:
        (k, min(clusters, T), d).
    """
    clusters = min(clusters, tokens.shape[1])
    with torch.no_grad():
        centres = _spread_starts(tokens.detach(), clusters)
        members = _members(tokens.detach(), centres)
        for _ in range(rounds):
            centres = _means(tokens.detach(), members, centres)
            again = _members(tokens.detach(), centres)
            if torch.equal(again, members):
                break
            members = again
    return _means(tokens, members, centres)


def transport_similarity(
    source: torch.Tensor, target: torch.Tensor, *, temperature: float = 0.1, rounds: int = 100
) -> torch.Tensor:
    """Similarity under the entropic optimal transport plan of cost 1 - cosine: (k, n, d), (k, m, d) -> (k,).

    Both sides have uniform weights. The plan (Sinkhorn, in logarithms) carries no gradient, the cosines do.
    The result lies in [-1, 1].
    """
    similarity = F.normalize(source, dim=-1) @ F.normalize(target, dim=-1).transpose(1, 2)
    with torch.no_grad():
        scaled = (similarity - 1) / temperature
        n, m = scaled.shape[1:]
        rows = torch.full_like(scaled[:, :, 0], 1 / n).log()
        columns = torch.full_like(scaled[:, 0, :], 1 / m).log()
        v = torch.zeros_like(columns)
        for _ in range(rounds):
            u = rows - torch.logsumexp(scaled + v[:, None, :], dim=2)
            v = columns - torch.logsumexp(scaled + u[:, :, None], dim=1)
        plan = torch.exp(scaled + u[:, :, None] + v[:, None, :])
    return (plan * similarity).sum(dim=(1, 2))


def _spread_starts(tokens: torch.Tensor, clusters: int) -> torch.Tensor:
    batch = torch.arange(len(tokens), device=tokens.device)
    first = torch.linalg.vector_norm(tokens - tokens.mean(dim=1, keepdim=True), dim=2).argmin(dim=1)
    chosen = [tokens[batch, first]]
    gap = torch.linalg.vector_norm(tokens - chosen[0][:, None], dim=2)
    for _ in range(clusters - 1):
        chosen.append(tokens[batch, gap.argmax(dim=1)])
        gap = torch.minimum(gap, torch.linalg.vector_norm(tokens - chosen[-1][:, None], dim=2))
    return torch.stack(chosen, dim=1)


def _members(tokens: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    return torch.cdist(tokens, centres).argmin(dim=2)


def _means(tokens: torch.Tensor, members: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Means of each cluster's tokens; an empty cluster keeps its centre."""
    one_hot = F.one_hot(members, centres.shape[1]).to(tokens.dtype)
    counts = one_hot.sum(dim=1)[:, :, None]
    means = one_hot.transpose(1, 2) @ tokens / counts.clamp_min(1.0)
    return torch.where(counts > 0, means, centres)
