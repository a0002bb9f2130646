"""Interest vectors: views of a set of signals and of the items' current vectors.

For a horizon with half-life H,

    v_H(now) = sum_i w_i * 2^(-(now - t_i) / H) * x_item(i),

kept divided by sum_i |w_i| * 2^(-(now - t_i) / H), the horizon's *mass*: a weighted mean, bounded whatever the
user's history. The mix is

    interest = unit(rho * unit(v_short) + (1 - rho) * unit(v_long)),   rho = mass_short / (mass_short + k),

so that the short one fades while the user is away.

Decay is counted from the newest signal that counts, which changes no mean, and only the mass is taken at the moment
asked for: else the short view of a user who was away for a year would be lost to underflow.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from scipy.sparse import csr_array

from penchant.profile.signals import Signal

__all__ = ["Horizons", "Views", "interest_views"]

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]

# A mean of unit vectors shorter than this is what rounding has left of interests that cancel: it has no direction.
CANCELLED = 1e-12


class Horizons(Struct, frozen=True, kw_only=True):
    """Half-lives in milliseconds, and the short mass at which the mix is half short."""

    short_ms: float
    long_ms: float
    short_share_at: float


class Views(Struct, frozen=True, kw_only=True):
    """The interest vectors of n users: `short`, `long`, `interest` of shape (n, d), masses and rho of shape (n,)."""

    short: Vectors
    long: Vectors
    interest: Vectors
    short_mass: Floats
    long_mass: Floats
    rho: Floats


def interest_views(
    users: Sequence[Sequence[Signal]],
    as_of: Sequence[int],
    rows: Mapping[str, int],
    vectors: Vectors,
    horizons: Horizons,
) -> Views:
    """Computes the views of many users at once, as one sparse-times-dense product for each horizon.

    Sums are taken in double precision: where likes and dislikes nearly cancel, the unit vectors amplify.

    Args:
        users: each user's signals.
        as_of: the moment of each user's views, epoch milliseconds; no signal may be later.
        rows: which row of `vectors` holds an item; items without one do not count.
        vectors: shape (m, d), the items' content.
        horizons: the half-lives.
    """
    indptr, columns, weights, ages, rests = signal_arrays(users, as_of, rows)
    used, columns = np.unique(columns, return_inverse=True)  # of the rows there may be many more
    content = vectors[used].astype(np.float64)
    shape = (len(users), len(content))
    starts = np.asarray(indptr)

    def view(half_life_ms: float) -> tuple[Floats, Floats]:
        decayed = weights * np.exp2(-ages / half_life_ms)
        sums = csr_array((decayed, columns, starts), shape=shape) @ content
        mass = csr_array((np.abs(decayed), columns, starts), shape=shape) @ np.ones(len(content))
        return divided(sums, mass), mass * np.exp2(-rests / half_life_ms)

    short, short_mass = view(horizons.short_ms)
    long, long_mass = view(horizons.long_ms)
    rho = short_mass / (short_mass + horizons.short_share_at)
    interest = unit(rho[:, None] * unit(short) + (1 - rho[:, None]) * unit(long))
    return Views(
        short=short.astype(np.float32),
        long=long.astype(np.float32),
        interest=interest.astype(np.float32),
        short_mass=short_mass,
        long_mass=long_mass,
        rho=rho,
    )


def signal_arrays(
    users: Sequence[Sequence[Signal]], as_of: Sequence[int], rows: Mapping[str, int]
) -> tuple[list[int], NDArray[np.int64], Floats, Floats, Floats]:
    """The signals that count, of all users, as one CSR matrix.

    Returns:
        Index pointer and columns; weights; ages before each user's newest (ms); and how long before the user's
        moment that one was (ms).
    """
    indptr, columns, weights, ages, rests = [0], [], [], [], []
    for signals, moment in zip(users, as_of, strict=True):
        counted = [signal for signal in signals if counts(signal, rows)]
        newest = max((signal.time for signal in counted), default=moment)
        columns += [rows[signal.item_id] for signal in counted]
        weights += [signal.weight for signal in counted]
        ages += [newest - signal.time for signal in counted]
        rests.append(moment - newest)
        indptr.append(len(columns))
    return (
        indptr,
        np.array(columns, np.int64),
        np.array(weights, float),
        np.array(ages, float),
        np.array(rests, float),
    )


def counts(signal: Signal, rows: Mapping[str, int]) -> bool:
    """Whether a signal says anything: it has a weight, and its item a vector."""
    return signal.weight != 0 and signal.item_id in rows


def unit(rows: Floats) -> Floats:
    """Rows scaled to unit length; zeros where they are cancelled."""
    lengths = np.linalg.norm(rows, axis=1)
    return divided(rows, np.where(lengths > CANCELLED, lengths, 0))


def divided(rows: Floats, by: Floats) -> Floats:
    """Rows divided by one number each; by zero gives zeros."""
    return np.divide(rows, by[:, None], out=np.zeros_like(rows), where=by[:, None] > 0)
