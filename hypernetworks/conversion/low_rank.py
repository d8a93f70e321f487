"""Matrices as products of two narrow ones, at a rank that is given or at the smallest that is good
enough."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Rank:
    """How narrow the factors are.

    Attributes:
        most: the largest rank; ``None`` for no limit.
        error: the largest error, as a share of the matrix (Frobenius norm); 0 for ``most`` itself.
    """

    most: int | None = None
    error: float = 0.0

    @property
    def is_full(self) -> bool:
        """Whether nothing is left out."""
        return self.most is None and not self.error


FULL = Rank()


@dataclass(frozen=True)
class Factors:
    """``up @ down``, nearly the matrix.

    Attributes:
        up: ``(outer, rank)``.
        down: ``(rank, inner)``.
        error: what is left out, as a share of the matrix (Frobenius norm).
    """

    up: torch.Tensor
    down: torch.Tensor
    error: float

    @property
    def rank(self) -> int:
        """Columns of ``up``."""
        return self.up.shape[1]


def factorised(matrix: torch.Tensor, rank: Rank) -> Factors:
    """The best factors of a matrix, with singular values spread evenly over both, so that fp16
    holds them.

    By the eigenvectors of ``M M^T`` in float64, which takes a fraction of the time of torch's SVD,
    and is exact to 1e-8 of the largest singular value.

    Args:
        matrix: ``(outer, inner)``, fp32, on the CPU.
    """
    # squares lose half the digits, which float64 has to spare
    precise = matrix.double()
    wide = precise.shape[0] <= precise.shape[1]
    gram = precise @ precise.T if wide else precise.T @ precise
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)

    chosen = _chosen(values, rank)
    basis, strength = vectors[:, :chosen], values[:chosen].pow(0.25)
    # singular values of zero would divide by it
    strength = strength.clamp(min=max(1e-4 * float(strength[0]), 1e-30))
    if wide:
        up, down = basis * strength, (basis.T @ precise) / strength[:, None]
    else:
        up, down = (precise @ basis) / strength, basis.T * strength[:, None]

    total = float(values.sum())
    error = (float(values[chosen:].sum()) / total) ** 0.5 if total else 0.0
    return Factors(up.float(), down.float(), error)


def _chosen(values: torch.Tensor, rank: Rank) -> int:
    """How many of the squared singular values, which fall, are kept: at least one."""
    most = min(rank.most or len(values), len(values))
    total = float(values.sum())
    if not rank.error or not total:
        return most
    left = (total - values.cumsum(0)).clamp(min=0) / total
    enough = (left.sqrt() <= rank.error).nonzero()
    return min(most, int(enough[0]) + 1 if len(enough) else len(values))
