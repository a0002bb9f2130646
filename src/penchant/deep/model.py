"""A model of attention over slices, and over what a user liked last.

*An item*: each slice it has is projected to a common dimension; the slices attend to each other (one pre-norm block
of Vaswani et al., "Attention Is All You Need", NeurIPS 2017), and their mean is the item's fused vector. Slices that
are absent are masked: nothing that the model knows of them counts.

*A user*: each candidate looks at the fused vectors of what the user liked last, as candidates do in Zhou et al., "Deep
Interest Network" (KDD 2018), here through heads of cross-attention with an embedding of each liked item's rank and one
of its age. One more place to look at is learned and everyone's: what is liked when nothing that this user liked is
near. What a candidate sees is the user's vector as far as it is concerned, and its score is their dot product.

So that scores depend on contents alone, nothing in the model belongs to any one item or user: what comes up tomorrow
is fused by the same parameters.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.encoders.base import extra

__all__ = ["AGES", "DeepFusion", "Form", "Fused", "age_buckets", "initial"]

Vectors = NDArray[np.float32]
Codes = NDArray[np.int64]
Parameters = Mapping[str, Any]  # torch.Tensor by name

AGES = 32  # buckets: of seconds, by powers of two; the last begins at 34 years
WIDER = 2  # hidden units of the item's block, in dimensions
QUIET = 0.2  # of what is added to a slice at first, against the slice


class Form(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What shapes the parameters.

    Attributes:
        slices: dimensions by name, in order.
        dimension: common to all slices, and the fused vector's.
        heads: of each attention; they share the dimension.
        remembered: how many liked items a candidate looks at.
    """

    slices: dict[str, int]
    dimension: int = 64
    heads: int = 2
    remembered: int = 20

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the parameters, by name."""
        width, wide = self.dimension, WIDER * self.dimension
        return {
            **{f"slice.{name}.map": (size, width) for name, size in self.slices.items()},
            **{f"slice.{name}.kind": (width,) for name in self.slices},
            "item.attend": (width, 3 * width),
            "item.attended": (width, width),
            "item.up": (width, wide),
            "item.up_bias": (wide,),
            "item.down": (wide, width),
            "item.bias": (width,),
            "user.query": (width, width),
            "user.key": (width, width),
            "user.value": (width, width),
            "user.out": (width, width),
            "user.rank": (self.remembered, width),
            "user.age": (AGES, width),
            "user.anyone_key": (width,),
            "user.anyone_value": (width,),
        }


class Fused(Struct, frozen=True, eq=False):
    """A catalogue of m items, computed once: what a request needs of it.

    Attributes:
        vectors: the items' fused vectors, zeros for those without any slice; torch, shape (m, dimension).
        queries: how they look at what was liked: torch, shape (heads, m, dimension / heads).
        views: how they judge what they see: torch, shape (heads, m, dimension / heads).
    """

    vectors: Any
    queries: Any
    views: Any


class DeepFusion:
    """The model.

    Args:
        form: of the parameters.
        parameters: torch tensors of float32 by name, of the form's shapes.

    Raises:
        ConfigurationError: torch is not installed.
    """

    def __init__(self, form: Form, parameters: Parameters) -> None:
        self.form, self.parameters = form, parameters
        self._torch = extra("torch", what="Deep fusion")

    def fuse(self, slices: Mapping[str, Vectors]) -> Vectors:
        """The items' fused vectors, shape (n, dimension); zeros for items without any slice.

        Args:
            slices: by name, unit vectors of n items, shape (n, d); zeros where one lacks it.
        """
        with self._torch.inference_mode():
            found: Vectors = self.fused(self.tensors(slices)).numpy()
        return found

    def catalogue(self, slices: Mapping[str, Vectors]) -> Fused:
        """What requests need of a catalogue; `slices` as for `fuse`."""
        with self._torch.inference_mode():
            return self.prepared(self.fused(self.tensors(slices)))

    def scores(self, targets: Fused, known: Fused, liked: Codes, ages_ms: NDArray[np.int64]) -> Vectors:
        """Of items for one user, shape (m,).

        Args:
            targets: the items to score, m of them.
            known: those among which is what the user liked.
            liked: their places there, the last first; those beyond `remembered` count for nothing.
            ages_ms: how long ago, shape as `liked`.
        """
        torch, kept = self._torch, self.form.remembered
        buckets = torch.from_numpy(age_buckets(ages_ms[:kept]))[None]
        with torch.inference_mode():
            remembered = known.vectors[torch.from_numpy(liked[:kept])][None]
            present = torch.ones(buckets.shape, dtype=torch.bool)
            found: Vectors = self.judged(targets, remembered, buckets, present)[0].numpy()
        return found

    def tensors(self, slices: Mapping[str, Vectors]) -> dict[str, Any]:
        """The form's slices as torch has them."""
        return {name: self._torch.from_numpy(np.ascontiguousarray(slices[name])) for name in self.form.slices}

    def fused(self, slices: Mapping[str, Any], *, drop: float = 0.0) -> Any:
        """`fuse` in torch, with the share `drop` of what is computed left out at random, for training."""
        torch, of = self._torch, self.parameters
        functional = torch.nn.functional
        present = torch.stack([slices[name].any(1) for name in self.form.slices], 1)
        tokens = torch.stack(
            [slices[name] @ of[f"slice.{name}.map"] + of[f"slice.{name}.kind"] for name in self.form.slices], 1
        )
        tokens = functional.dropout(tokens, drop)
        width, heads = self.form.dimension, self.form.heads
        mixed = functional.layer_norm(tokens, (width,)) @ of["item.attend"]
        query, key, value = (
            part.unflatten(2, (heads, width // heads)).transpose(1, 2) for part in mixed.split(width, 2)
        )
        # An item without any slice looks at all of them, lest there be nothing to divide by; it is zero in the end.
        visible = (present | ~present.any(1, keepdim=True))[:, None, None]
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        tokens = tokens + attended.transpose(1, 2).flatten(2) @ of["item.attended"]
        hidden = functional.gelu(functional.layer_norm(tokens, (width,)) @ of["item.up"] + of["item.up_bias"])
        tokens = tokens + functional.dropout(hidden, drop) @ of["item.down"] + of["item.bias"]
        weights = present.to(tokens.dtype) / present.sum(1, keepdim=True).clamp(min=1)
        mean = (tokens * weights[:, :, None]).sum(1)
        return functional.layer_norm(mean, (width,)) * present.any(1, keepdim=True)

    def prepared(self, fused: Any) -> Fused:
        """Fused vectors, shape (m, dimension), and what candidates need besides."""
        of = self.parameters
        return Fused(fused, self.by_head(fused @ of["user.query"]), self.by_head(fused @ of["user.out"]))

    def judged(self, candidates: Fused, remembered: Any, ages: Any, present: Any) -> Any:
        """Scores of c candidates for b users: torch, shape (b, c).

        Args:
            candidates: to judge.
            remembered: fused vectors of what each user liked, the last first: shape (b, k, dimension).
            ages: buckets, shape (b, k).
            present: which of them are there: shape (b, k).
        """
        torch, of, width = self._torch, self.parameters, self.form.dimension
        placed = remembered + of["user.rank"][: remembered.shape[1]] + of["user.age"][ages]
        anyone = (of["user.anyone_key"].expand(len(placed), 1, width), of["user.anyone_value"])
        keys = self.by_head(torch.cat([placed @ of["user.key"], anyone[0]], 1))
        values = self.by_head(torch.cat([remembered @ of["user.value"], anyone[1].expand(len(placed), 1, width)], 1))
        depth = keys.shape[-1]
        shown = torch.cat([present, present.new_ones(len(present), 1)], 1)
        looks = torch.einsum("hcd,bhkd->bhck", candidates.queries, keys) / depth**0.5
        shares = looks.masked_fill(~shown[:, None, None], -torch.inf).softmax(-1)
        # A candidate's dot product with each value first: the sum over what it sees is the dot product with the user.
        told = torch.einsum("hcd,bhkd->bhck", candidates.views, values) / width**0.5
        return (shares * told).sum((1, 3))

    def by_head(self, vectors: Any) -> Any:
        """Vectors taken apart: shape (..., heads, n, dimension / heads) of (..., n, dimension)."""
        heads = self.form.heads
        return vectors.unflatten(-1, (heads, self.form.dimension // heads)).transpose(-2, -3)


def age_buckets(ages_ms: NDArray[np.int64]) -> Codes:
    """Buckets of ages: by powers of two of seconds; what is of the future counts as of now."""
    seconds = np.maximum(ages_ms, 0) / 1_000
    found: Codes = np.minimum(np.log2(1 + seconds).astype(np.int64), AGES - 1)
    return found


def initial(form: Form, seed: int) -> dict[str, Any]:
    """Where learning starts: fused vectors are random projections, and a candidate is drawn to what is like it.

    The same seed gives the same parameters. A random projection keeps cosines (Johnson and Lindenstrauss, 1984), and
    keys that are made as queries are make attention a kernel over them, so that all begins with a sensible memory.
    """
    torch = extra("torch")
    source = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in form.shapes().items():
        if len(shape) == 1:
            found[name] = torch.zeros(shape)
        else:
            found[name] = torch.randn(shape, generator=source) * spread(name, shape[0])
    found["user.key"], found["user.value"] = found["user.query"].clone(), found["user.out"].clone()
    return found


def spread(name: str, inputs: int) -> float:
    """The standard deviation that a matrix starts with, for outputs of about one (slices are unit rows)."""
    if name.startswith("slice."):
        return 1.0
    if name in {"item.attended", "item.down", "user.rank", "user.age"}:
        return QUIET / math.sqrt(inputs)
    return 1 / math.sqrt(inputs)
