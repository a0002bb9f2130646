"""Interest vectors: views of a set of signals and of the items' current vectors.

For a horizon with half-life H,

    v_H(now) = sum_i w_i * 2^(-(now - t_i) / H) * x_item(i),

kept divided by sum_i |w_i| * 2^(-(now - t_i) / H), the horizon's *mass*: a weighted mean, bounded whatever the
user's history. The mix is

    interest = unit(rho * unit(v_short) + (1 - rho) * unit(v_long)),   rho = mass_short / (mass_short + k),

so that the short one fades while the user is away.

Decay is counted from the newest signal that counts, which changes no mean, and only the mass is taken at the moment
asked for: else the short view of a user who was away for a year would be lost to underflow.

The sums of a set that a few signals have joined and left are had from those before (`advanced`): decay is one factor
for all that was there. Rounding is all that this may add, and where it could show, the sums are to be made anew.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from scipy.sparse import coo_array

from penchant.profile.signals import Signal

__all__ = ["Change", "Horizons", "Sums", "Views", "advanced", "interest_views", "sums_of", "views_of"]

Floats = NDArray[np.float64]
Times = NDArray[np.int64]
Vectors = NDArray[np.float32]

# A mean of unit vectors shorter than this is what rounding has left of interests that cancel: it has no direction.
CANCELLED = 1e-12
NEVER = -(2**62)  # the time of no signal
# What sums may have lost of their greatest size, by cancelling or leaving, before rounding could show: it adds some
# 2^-53 of that size a step, and single precision, in which views are kept, sees 2^-24 of what is left.
LEAST_LEFT = 1e-4
MOST_STEPS = 256
MOST_DENSE = 2**12  # entries of a matrix that is not worth being sparse


class Horizons(Struct, frozen=True, kw_only=True):
    """Half-lives in milliseconds, and the short mass at which the mix is half short."""

    short_ms: float
    long_ms: float
    short_share_at: float

    def shares(self, ages_ms: NDArray[Any]) -> Floats:
        """What is left of weights so many milliseconds old: shape (2, n), short and long."""
        shares: Floats = np.exp2(-ages_ms / np.array([[self.short_ms], [self.long_ms]]))
        return shares


class Views(Struct, frozen=True, kw_only=True, eq=False):
    """The interest vectors of n users.

    Attributes:
        vectors: short, long, and the mix of each, shape (n, 3, d).
        short_mass: of weights, shape (n,); so `long_mass`, and
        rho: the short view's share of the mix.
        sound: what is stored of them would be the same if the sums had been made anew; shape (n,).
    """

    vectors: Vectors
    short_mass: Floats
    long_mass: Floats
    rho: Floats
    sound: NDArray[np.bool_]

    @property
    def short(self) -> Vectors:
        """Those of the short horizon, shape (n, d)."""
        return self.vectors[:, 0]

    @property
    def long(self) -> Vectors:
        """Those of the long horizon, shape (n, d)."""
        return self.vectors[:, 1]

    @property
    def interest(self) -> Vectors:
        """The mixes, shape (n, d)."""
        return self.vectors[:, 2]


class Sums(Struct, frozen=True, kw_only=True, eq=False):
    """Decayed sums of n users' signals, short and long, as of each user's newest signal that counts.

    Attributes:
        newest: its time, epoch milliseconds, shape (n,); `NEVER` where none counts.
        vectors: of weights times items, shape (2, n, d).
        masses: of absolute weights, shape (2, n).
        peaks: the largest that masses have been, decayed as they are, shape (2, n).
    """

    newest: Times
    vectors: Floats
    masses: Floats
    peaks: Floats

    @classmethod
    def together(cls, parts: Sequence["Sums"]) -> "Sums":
        """Those of many, side by side."""
        return cls(
            newest=np.concatenate([part.newest for part in parts]),
            vectors=np.concatenate([part.vectors for part in parts], axis=1),
            masses=np.concatenate([part.masses for part in parts], axis=1),
            peaks=np.concatenate([part.peaks for part in parts], axis=1),
        )

    def of(self, user: int) -> "Sums":
        """Those of one user, a copy: nothing of the others is kept in memory by it."""
        one = slice(user, user + 1)
        return Sums(
            newest=self.newest[one].copy(),
            vectors=self.vectors[:, one].copy(),
            masses=self.masses[:, one].copy(),
            peaks=self.peaks[:, one].copy(),
        )


class Change(Struct, frozen=True, gc=False):
    """What has joined and left a user's set."""

    added: Sequence[Signal]
    removed: Sequence[Signal]


def interest_views(
    users: Sequence[Sequence[Signal]],
    as_of: Sequence[int],
    rows: Mapping[str, int],
    vectors: Vectors,
    horizons: Horizons,
) -> Views:
    """Computes the views of many users at once.

    Args:
        users: each user's signals.
        as_of: the moment of each user's views, epoch milliseconds; no signal may be later.
        rows: which row of `vectors` holds an item; items without one do not count.
        vectors: shape (m, d), the items' content.
        horizons: the half-lives.
    """
    return views_of(sums_of(users, rows, vectors, horizons), as_of, horizons)


def sums_of(users: Sequence[Sequence[Signal]], rows: Mapping[str, int], vectors: Vectors, horizons: Horizons) -> Sums:
    """The sums of many users' signals; arguments as of `interest_views`.

    They are taken in double precision: where likes and dislikes nearly cancel, the unit vectors amplify.
    """
    signals = Counted.of(users, rows)
    newest = np.full(len(users), NEVER, np.int64)
    np.maximum.at(newest, signals.users, signals.times)
    sums = np.zeros((2, len(users), vectors.shape[1]))
    masses = signals.add_to(sums, newest, vectors, horizons)
    return Sums(newest=newest, vectors=sums, masses=masses, peaks=masses)


def advanced(
    sums: Sums, changes: Sequence[Change], rows: Mapping[str, int], vectors: Vectors, horizons: Horizons
) -> tuple[Sums, NDArray[np.bool_]]:
    """The sums of sets that signals have joined and left.

    Args:
        sums: of the n sets as they were; they are used up.
        changes: of each.
        rows: as of `interest_views`: those of the items of `changes`, and where those before were the same.
        vectors: likewise.
        horizons: likewise.

    Returns:
        The sums, and of which users they hold, shape (n,): where the newest signal has left, they do not.
    """
    added = Counted.of([change.added for change in changes], rows)
    removed = Counted.of([change.removed for change in changes], rows)
    newest = sums.newest.copy()
    np.maximum.at(newest, added.users, added.times)
    fade = horizons.shares(newest - sums.newest)
    sums.vectors.__imul__(fade[:, :, None])
    masses = sums.masses * fade + added.without(removed).add_to(sums.vectors, newest, vectors, horizons)
    holds = sums.newest > NEVER
    holds[removed.users[removed.times >= sums.newest[removed.users]]] = False
    peaks = np.maximum(sums.peaks * fade, masses)
    return Sums(newest=newest, vectors=sums.vectors, masses=masses, peaks=peaks), holds


def views_of(sums: Sums, as_of: Sequence[int], horizons: Horizons) -> Views:
    """The views of many users.

    Args:
        sums: of their signals.
        as_of: the moment of each user's views, epoch milliseconds; no signal may be later.
        horizons: the half-lives.
    """
    rests = np.where(sums.newest > NEVER, np.array(as_of, np.int64) - sums.newest, 0)
    means = divided(sums.vectors, sums.masses)
    masses = sums.masses * horizons.shares(rests)
    rho = masses[0] / (masses[0] + horizons.short_share_at)
    lengths = lengths_of(means)
    shares = np.divide((rho, 1 - rho), lengths, out=np.zeros_like(lengths), where=lengths > CANCELLED)
    mix = means[0] * shares[0][:, None]
    mix += means[1] * shares[1][:, None]
    mixed = lengths_of(mix)
    left = np.minimum(lengths * sums.masses, sums.masses) >= LEAST_LEFT * sums.peaks
    vectors = np.empty((len(mix), 3, mix.shape[1]), np.float32)
    vectors[:, 0], vectors[:, 1] = means
    vectors[:, 2] = divided(mix, np.where(mixed > CANCELLED, mixed, 0))
    return Views(
        vectors=vectors,
        short_mass=masses[0],
        long_mass=masses[1],
        rho=rho,
        sound=left.all(axis=0) & ((mixed >= LEAST_LEFT) | (sums.newest == NEVER)),
    )


class Counted(Struct, frozen=True, eq=False):
    """Signals that say something, of many users: those with a weight whose item has a vector.

    Attributes:
        users: whose each is, shape (m,); so `rows` of the items, `weights` and `times`, and
        signs: -1 of those that are taken away.
    """

    users: NDArray[np.intp]
    rows: NDArray[np.intp]
    weights: Floats
    times: Times
    signs: Floats

    @classmethod
    def of(cls, users: Sequence[Sequence[Signal]], rows: Mapping[str, int]) -> "Counted":
        """Those among the users' signals."""
        found = [rows.get(signal.item_id, -1) for signals in users for signal in signals]
        places = np.array(found, np.intp)
        weights = np.array([signal.weight for signals in users for signal in signals], np.float64)
        times = np.array([signal.time for signals in users for signal in signals], np.int64)
        whose = np.repeat(np.arange(len(users)), [len(signals) for signals in users])
        counts = (places >= 0) & (weights != 0)
        return cls(whose[counts], places[counts], weights[counts], times[counts], np.ones(counts.sum()))

    def without(self, others: "Counted") -> "Counted":
        """These, and others to take away."""
        return Counted(
            np.concatenate([self.users, others.users]),
            np.concatenate([self.rows, others.rows]),
            np.concatenate([self.weights, others.weights]),
            np.concatenate([self.times, others.times]),
            np.concatenate([self.signs, -others.signs]),
        )

    def add_to(self, sums: Floats, newest: Times, vectors: Vectors, horizons: Horizons) -> Floats:
        """Adds the decayed signals to sums, as one sparse-times-dense product.

        Args:
            sums: by horizon and user, shape (2, n, d).
            newest: what decay is counted from, by user.
            vectors: what `rows` are of.
            horizons: the half-lives.

        Returns:
            Their masses, shape (2, n).
        """
        users = len(newest)
        if not len(self.users):
            return np.zeros((2, users))
        decayed = self.signs * self.weights * horizons.shares(newest[self.users] - self.times)
        positive = np.sign(self.weights)
        masses: Floats = np.stack([np.bincount(self.users, positive * one, users) for one in decayed])
        used, columns = np.unique(self.rows, return_inverse=True)
        content = vectors[used]
        span = occupied(content)
        rows, columns = np.concatenate([self.users, self.users + users]), np.concatenate([columns, columns])
        weighted: Any = np.zeros((2 * users, len(used)))
        if weighted.size <= MOST_DENSE:
            np.add.at(weighted, (rows, columns), decayed.ravel())
        else:
            weighted = coo_array((decayed.ravel(), (rows, columns)), shape=weighted.shape).tocsr()
        product = weighted @ content[:, span].astype(np.float64)
        sums[:, :, span] += product.reshape(2, users, -1)
        return masses


def occupied(content: Vectors) -> slice:
    """The components from the first to the last in which any vector is not zero: often those of one slice."""
    places = np.flatnonzero(content.any(axis=0))
    return slice(places[0], places[-1] + 1) if len(places) else slice(0, 0)


def lengths_of(rows: Floats) -> Floats:
    """Lengths of vectors along the last axis."""
    lengths: Floats = np.sqrt(np.einsum("...d,...d->...", rows, rows))
    return lengths


def divided(rows: Floats, by: Floats) -> Floats:
    """Vectors along the last axis divided by one number each; by zero gives zeros."""
    inverse = np.divide(1.0, by, out=np.zeros_like(by), where=by >= np.finfo(by.dtype).tiny)
    quotients: Floats = rows * inverse[..., None]
    return quotients
