"""A UNet in the shape of CompVis' latent diffusion, as webuis run it: the same names, the same
calls, a few channels.

What matters to a hypernetwork is faithful: ``input_blocks``, ``middle_block`` and ``output_blocks``
numbered as in SD1, a transformer with ``attn1`` (no context given: it attends to itself) and
``attn2`` (the text), and attention that calls ``to_k(context)`` and ``to_v(context)`` separately.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

CHANNELS = (8, 16, 32, 32)
CONTEXT = 12
HEADS = 2


class CrossAttention(nn.Module):
    """Attention from ``x`` to ``context``; without one, to ``x`` itself."""

    def __init__(self, query_dim: int, context_dim: int | None = None) -> None:
        super().__init__()
        self.to_q = nn.Linear(query_dim, query_dim, bias=False)
        self.to_k = nn.Linear(context_dim or query_dim, query_dim, bias=False)
        self.to_v = nn.Linear(context_dim or query_dim, query_dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(query_dim, query_dim), nn.Dropout(0.0))

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        """``(batch, positions, query_dim)``, ``(batch, tokens, context_dim)`` -> ``(batch,
        positions, query_dim)``."""
        context = x if context is None else context
        query, key, value = self.to_q(x), self.to_k(context), self.to_v(context)
        query, key, value = (
            t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (query, key, value)
        )
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.to_out(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class BasicTransformerBlock(nn.Module):
    """Self-attention, cross-attention, feed-forward; each on a normalised residual stream."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attn1 = CrossAttention(dim)
        self.attn2 = CrossAttention(dim, CONTEXT)
        self.ff = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """``(batch, positions, dim)`` -> the same."""
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context=context)
        return x + self.ff(self.norm3(x))  # type: ignore[no-any-return]


class SpatialTransformer(nn.Module):
    """A transformer over the positions of a picture."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, dim)
        self.proj_in = nn.Conv2d(dim, dim, 1)
        self.transformer_blocks = nn.ModuleList([BasicTransformerBlock(dim)])
        self.proj_out = nn.Conv2d(dim, dim, 1)

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """``(batch, dim, height, width)`` -> the same."""
        height = x.shape[-2]
        hidden = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            hidden = block(hidden, context)
        return x + self.proj_out(hidden.transpose(1, 2).unflatten(2, (height, -1)))  # type: ignore[no-any-return]


class ResBlock(nn.Module):
    """A residual block that knows the time."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(4, inner), nn.SiLU(), nn.Conv2d(inner, outer, 3, padding=1)
        )
        self.emb_layers = nn.Linear(4, outer)
        self.skip_connection = nn.Conv2d(inner, outer, 1)

    def forward(self, x: torch.Tensor, emb: torch.Tensor) -> torch.Tensor:
        """``(batch, inner, height, width)`` -> ``(batch, outer, height, width)``."""
        return self.skip_connection(x) + self.in_layers(x) + self.emb_layers(emb)[..., None, None]  # type: ignore[no-any-return]


class Downsample(nn.Conv2d):
    """Halves height and width."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, stride=2, padding=1)


class Upsample(nn.Conv2d):
    """Doubles height and width."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(batch, channels, height, width)`` -> twice the height and width."""
        return super().forward(F.interpolate(x, scale_factor=2.0))


class TimestepEmbedSequential(nn.Sequential):
    """Hands the time to residual blocks and the context to transformers."""

    def forward(self, x: torch.Tensor, emb: torch.Tensor, context: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """One block of the UNet."""
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, emb)
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, context)
            else:
                x = layer(x)
        return x


class SmallUNet(nn.Module):
    """SD1's UNet in small: 12 input blocks, a middle block, 12 output blocks; attention in 16 of
    them. With fewer channels given, it has fewer levels of blocks."""

    def __init__(self, levels: tuple[int, ...] = CHANNELS) -> None:
        super().__init__()
        self.input_blocks = nn.ModuleList(
            [TimestepEmbedSequential(nn.Conv2d(4, levels[0], 3, padding=1))]
        )
        skips, channels = [levels[0]], levels[0]
        for level, outer in enumerate(levels):
            for _ in range(2):
                self.input_blocks.append(_block(channels, outer, level < 3))
                channels = outer
                skips.append(channels)
            if level < len(levels) - 1:
                self.input_blocks.append(TimestepEmbedSequential(Downsample(channels)))
                skips.append(channels)
        self.middle_block = TimestepEmbedSequential(
            ResBlock(channels, channels), SpatialTransformer(channels), ResBlock(channels, channels)
        )
        self.output_blocks = nn.ModuleList()
        for level, outer in reversed(list(enumerate(levels))):
            for i in range(3):
                block = _block(channels + skips.pop(), outer, level < 3)
                channels = outer
                if level and i == 2:
                    block.append(Upsample(channels))
                self.output_blocks.append(block)
        self.out = nn.Conv2d(channels, 4, 3, padding=1)

    def forward(
        self, x: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor
    ) -> torch.Tensor:
        """``(batch, 4, height, width)``, ``(batch,)``, ``(batch, tokens, CONTEXT)`` -> the shape of
        ``x``."""
        phases = timesteps[:, None] * timesteps.new_tensor([0.1, 0.01])
        emb = torch.cat([phases.sin(), phases.cos()], dim=-1).to(x.dtype)
        kept = []
        for block in self.input_blocks:
            x = block(x, emb, context)
            kept.append(x)
        x = self.middle_block(x, emb, context)
        for block in self.output_blocks:
            x = block(torch.cat([x, kept.pop()], dim=1), emb, context)
        return self.out(x)  # type: ignore[no-any-return]


def _block(inner: int, outer: int, attends: bool) -> TimestepEmbedSequential:
    return TimestepEmbedSequential(
        ResBlock(inner, outer), *([SpatialTransformer(outer)] if attends else [])
    )
