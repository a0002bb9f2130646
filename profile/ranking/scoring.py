"""A user's candidates with what is known of them, and what each signal accounts for of their scores by features."""

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.profile.affinity import is_positive, positives
from penchant.profile.cache import Content
from penchant.profile.interest import Horizons
from penchant.profile.ranking.behaviour import age, evidence, familiarity, log_popularity, transition_terms
from penchant.profile.ranking.candidates import Candidates
from penchant.profile.ranking.explanation import content_parts, transition_parts
from penchant.profile.ranking.features import View, counted, deviations, past_in, standardised, view_shares, views_of
from penchant.profile.signals import Signal
from penchant.profile.store.base import SparseVector

__all__ = ["Known", "Request", "request_of"]

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]


class Known(Struct, frozen=True, kw_only=True, eq=False):
    """What the rows say of the candidates of a batch.

    Attributes:
        places: by item, which row of `figures` is its.
        figures: as `Rows.figures` gives them.
        after: by item, as `Rows.after` gives it.
    """

    places: Mapping[str, int]
    figures: Floats
    after: Mapping[str, SparseVector]


class Request(Struct, frozen=True, kw_only=True, eq=False):
    """One user's n candidates, as they are scored and explained: everything of one reading of items and rows.

    Attributes:
        items: the candidates.
        vectors: their content, shape (n, d).
        features: shape (F, n), those of content first.
        evidence: how far each feature can be relied on, shape (F,).
        counted: the k signals of the user that count, newest first.
        shares: what they count in each view, shape (3, k).
        views: of content, by slice.
        recent: the items that transitions start from, in order.
        terms: what each of those adds to the feature of transitions, shape (r, n).
        new: which candidates are new.
    """

    items: Sequence[str]
    vectors: Vectors
    features: Vectors
    evidence: Floats
    counted: Sequence[Signal]
    shares: Floats
    views: Mapping[str, View]
    recent: Mapping[str, None]
    terms: Floats
    new: frozenset[str]

    def scored(self) -> Vectors:
        """Features standardised among the candidates, and as loud as they can be relied on: shape (F, n)."""
        return standardised(self.features) * self.evidence[:, None].astype(np.float32)

    def told(
        self, weights: Floats, signals: Sequence[Signal], chosen: NDArray[np.int64]
    ) -> tuple[Sequence[Signal], Floats]:
        """The signals that the features are sums over, and what each accounts for of chosen candidates' scores.

        Args:
            weights: of the features, shape (F,).
            signals: of the user, all.
            chosen: which t candidates to explain.

        Returns:
            s signals, and shape (t, s).
        """
        weights = weights * self.evidence
        spread = deviations(self.features).astype(np.float64)
        scales = np.divide(weights, spread, out=np.zeros_like(weights), where=spread > 0)
        of_content = len(self.views) * len(self.shares)
        parts = content_parts(self.shares, self.views, chosen, scales[:of_content])
        # Transitions start from the newest positive signal on each item, whether the item has content or not.
        places: dict[str, int] = {}
        for place, signal in enumerate(self.counted):
            if signal.item_id in self.recent and signal.item_id not in places and is_positive(signal):
                places[signal.item_id] = place
                if len(places) == len(self.recent):
                    break
        without = []
        if len(places) < len(self.recent):
            liked = {signal.item_id: signal for signal in positives(signals)}
            without = [liked[item_id] for item_id in self.recent if item_id not in places]
            places |= {signal.item_id: len(self.counted) + place for place, signal in enumerate(without)}
            parts = np.concatenate([parts, np.zeros((len(chosen), len(without)))], axis=1)
        started_from = [places[item_id] for item_id in self.recent]
        parts[:, started_from] += transition_parts(self.terms, chosen, scales[of_content])
        return [*self.counted, *without], parts


def request_of(
    signals: Sequence[Signal],
    candidates: Candidates,
    content: Content,
    compared: Mapping[str, Vectors],
    known: Known,
    *,
    horizons: Horizons,
    now_ms: int,
) -> Request | None:
    """What a list is made from; None where there is nothing to choose from.

    Args:
        signals: of the user, all.
        candidates: of the user.
        content: of those, and of the signals' items.
        compared: by slice, the rows of `content` as ranking compares them.
        known: what the rows say of the candidates.
        horizons: half-lives.
        now_ms: the moment of the list, epoch milliseconds.
    """
    items = [item_id for item_id in candidates.listed_at if item_id in content.rows]
    if not items:
        return None
    rows = np.array([content.rows[item_id] for item_id in items], np.intp)
    known_signals = counted(signals, content.rows)
    past = past_in(known_signals, content.rows)
    shares = np.stack(view_shares(past, horizons))
    views = {name: views_of(shares, vectors[past.rows], vectors[rows]) for name, vectors in compared.items()}
    figures = known.figures[[known.places[item_id] for item_id in items]]
    after = [known.after.get(item_id) if item_id in candidates.following else None for item_id in items]
    terms = transition_terms(candidates.recent, candidates.masses, after, figures, now_ms=now_ms)
    popularity = log_popularity(figures, now_ms)
    by_horizon = evidence(popularity)
    of_content = np.concatenate([view.features for view in views.values()])
    ages = age([candidates.listed_at[item_id] for item_id in items], now_ms)
    behaviour = np.stack([terms.sum(axis=0), *popularity, ages]).astype(np.float32)
    return Request(
        items=items,
        vectors=content.vectors[rows],
        features=np.concatenate([of_content, behaviour]),
        evidence=np.concatenate(
            [np.full(len(of_content), familiarity(len(past.rows))), by_horizon[-1:], by_horizon, [1.0]]
        ),
        counted=known_signals,
        shares=shares,
        views=views,
        recent=dict.fromkeys(item_id for item_id, _ in candidates.recent),
        terms=terms,
        new=candidates.new & content.rows.keys(),
    )
