"""A user's candidates with what is known of them, and what each signal accounts for of their scores by features."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.profile.cache import VOID, Content
from penchant.profile.interest import Horizons
from penchant.profile.profiles import Profile
from penchant.profile.ranking.behaviour import age, evidence, familiarity, log_popularity, transition_terms
from penchant.profile.ranking.candidates import Candidates
from penchant.profile.ranking.explanation import content_parts, transition_parts
from penchant.profile.ranking.features import View, centred, inverted, view_shares, views_of
from penchant.profile.ranking.history import History
from penchant.profile.store.base import SparseVector

__all__ = ["Gathered", "Request", "Requests"]

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]
Places = NDArray[np.intp]


class Gathered(Struct, frozen=True, kw_only=True, eq=False):
    """The users of a batch and their candidates, m of them, with what is known of those.

    Attributes:
        profiles: of the users; and by user
        histories: with rows of `content`,
        found: candidates, and
        now_ms: the moment of the list, epoch milliseconds.
        names: of the candidates.
        places: which of them an item is.
        listed_at: their versions' times, epoch milliseconds, shape (m,).
        rows: of their content, `VOID` where there is none, shape (m,).
        content: with the candidates' vectors.
        figures: as `Rows.figures` gives them, shape (m, ...).
        after: by item, as `Rows.after` gives it.
    """

    profiles: Sequence[Profile]
    histories: Sequence[History]
    found: Sequence[Candidates]
    now_ms: Sequence[int]
    names: Sequence[str]
    places: Mapping[str, int]
    listed_at: NDArray[np.int64]
    rows: Places
    content: Content
    figures: Floats
    after: Mapping[str, SparseVector]

    def with_content(self, user: int) -> Places:
        """Those of a user's candidates that have content."""
        places = np.array([self.places[item_id] for item_id in self.found[user].listed_at], np.intp)
        chosen: Places = places[self.rows[places] != VOID]
        return chosen

    def named(self, places: Places) -> list[str]:
        """The names of some candidates."""
        return [self.names[place] for place in places.tolist()]


class Request(Struct, frozen=True, kw_only=True, eq=False, dict=True):
    """One user's n candidates, as they are scored and explained: everything of one reading of items and rows.

    Attributes:
        items: the candidates.
        rows: of their content, shape (n,).
        features: shape (F, n), those of content first.
        evidence: how far each feature can be relied on, shape (F,).
        history: the user's; k of its signals count.
        shares: what they count in each view, shape (3, k).
        views: of content, by slice.
        terms: what each of the r recent items adds to the feature of transitions, shape (r, n).
    """

    items: Sequence[str]
    rows: Places
    features: Vectors
    evidence: Floats
    history: History
    shares: Floats
    views: Mapping[str, View]
    terms: Floats

    @cached_property
    def centred(self) -> tuple[Vectors, Vectors]:
        """The features less their mean among the candidates, and their deviations, 0 where one is flat."""
        return centred(self.features)

    def scored(self) -> Vectors:
        """Features standardised among the candidates, and as loud as they can be relied on: shape (F, n)."""
        above, spread = self.centred
        return above * (inverted(spread) * self.evidence.astype(np.float32))[:, None]

    def told(self, weights: Floats, chosen: Places) -> Floats:
        """What each of the history's signals accounts for of chosen candidates' scores: shape (t, signals).

        Args:
            weights: of the features, shape (F,).
            chosen: which t candidates to explain.
        """
        scales = weights * self.evidence * inverted(self.centred[1])
        of_content = len(self.views) * len(self.shares)
        history = self.history
        parts = np.zeros((len(chosen), len(history.signals)))
        parts[:, history.places] = content_parts(self.shares, self.views, chosen, scales[:of_content])
        parts[:, history.starts] += transition_parts(self.terms, chosen, scales[of_content])
        return parts


class Requests:
    """The requests of a batch of users, made one after the other.

    Args:
        gathered: the users, and what is known of their candidates.
        compared: by slice, the rows of `gathered.content` as ranking compares them.
        horizons: half-lives.
    """

    def __init__(self, gathered: Gathered, compared: Mapping[str, Vectors], *, horizons: Horizons) -> None:
        self._gathered = gathered
        self._compared = compared
        self._horizons = horizons
        self._chosen = [gathered.with_content(user) for user in range(len(gathered.found))]
        # What one number of each candidate gives is computed for all users at once.
        counts = [len(places) for places in self._chosen]
        self._ends = np.cumsum(counts).tolist()
        places = np.concatenate([np.zeros(0, np.intp), *self._chosen])
        moments = np.repeat(np.array(gathered.now_ms, np.int64), counts)
        self._popularity = log_popularity(gathered.figures[places], moments)
        self._ages = age(gathered.listed_at[places], moments)

    def of(self, user: int) -> Request | None:
        """What a user's list is made from; None where there is nothing to choose from."""
        gathered, places = self._gathered, self._chosen[user]
        if not len(places):
            return None
        history, candidates = gathered.histories[user], gathered.found[user]
        items, rows = gathered.named(places), gathered.rows[places]
        past = history.past
        shares = np.stack(view_shares(past, self._horizons))
        views = {name: views_of(shares, every[past.rows], every[rows]) for name, every in self._compared.items()}
        after = [gathered.after.get(item_id) if item_id in candidates.following else None for item_id in items]
        terms = transition_terms(
            history.recent, candidates.masses, after, gathered.figures[places], now_ms=gathered.now_ms[user]
        )
        mine = slice(self._ends[user] - len(places), self._ends[user])
        popularity, ages = self._popularity[:, mine], self._ages[mine]
        by_horizon = evidence(popularity)
        of_content = np.concatenate([view.features for view in views.values()])
        behaviour = np.stack([terms.sum(axis=0), *popularity, ages]).astype(np.float32)
        return Request(
            items=items,
            rows=rows,
            features=np.concatenate([of_content, behaviour]),
            evidence=np.concatenate(
                [np.full(len(of_content), familiarity(len(past.rows))), by_horizon[-1:], by_horizon, [1.0]]
            ),
            history=history,
            shares=shares,
            views=views,
            terms=terms,
        )
