"""What ranking costs: 5,000 items for 256 users at once, feature by feature.

    python -m tests.bench.ranking

All features of all pairs, standardised among each user's candidates, weighted and summed; no store and no broker.
Users have full sets of signals, on items by Zipf's law. Figures are medians of a few rounds in one process.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np

from penchant.profile.interest import Horizons
from penchant.profile.ranking.features import (
    BEHAVIOUR,
    CONTENT,
    Past,
    content_features,
    content_names,
    standardised,
)
from penchant.profile.ranking.priors import prior_weights

USERS, ITEMS, SIGNALS = 256, 5_000, 192
SLICES = {"text": 384, "graph": 64}
HORIZONS = Horizons(short_ms=8 * 3_600_000, long_ms=50 * 86_400_000, short_share_at=3.0)
ROUNDS = 7


def milliseconds(work: Callable[[], object]) -> float:
    """How long a round takes, median; one round before that for what is made once."""
    work()
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return 1_000 * statistics.median(took)


def main() -> None:
    """Measures, and prints a table."""
    rng = np.random.default_rng(0)
    slices = {name: rng.standard_normal((ITEMS, d), np.float32) for name, d in SLICES.items()}
    slices = {name: one / np.linalg.norm(one, axis=1, keepdims=True) for name, one in slices.items()}
    popular = 1 / np.arange(1, ITEMS + 1)
    pasts = [
        Past(
            rows=rng.choice(ITEMS, SIGNALS, replace=False, p=popular / popular.sum()),
            weights=rng.choice([-2.0, 0.5, 2.0], SIGNALS),
            ages=np.sort(rng.exponential(2 * HORIZONS.long_ms, SIGNALS)),
            positive=rng.random(SIGNALS) < 0.5,
        )
        for _ in range(USERS)
    ]
    behaviour = rng.exponential(size=(len(BEHAVIOUR), USERS, ITEMS)).astype(np.float32)
    names = (*content_names(slices), *BEHAVIOUR)
    weights = prior_weights(names).at(0).astype(np.float32)
    features = np.concatenate([content_features(pasts, slices, slices, HORIZONS), behaviour])

    def scored() -> list[np.ndarray]:
        # One user after the other, as the worker does: theirs fit into a core's cache.
        return [weights @ standardised(features[:, user]) for user in range(USERS)]

    rows = {
        f"{name} ({len(CONTENT)} features)": milliseconds(
            lambda name=name: content_features(pasts, {name: slices[name]}, {name: slices[name]}, HORIZONS)
        )
        for name in slices
    }
    rows |= {
        "content, all slices": milliseconds(lambda: content_features(pasts, slices, slices, HORIZONS)),
        "standardised, weighted and summed": milliseconds(scored),
    }
    total = rows["content, all slices"] + rows["standardised, weighted and summed"]
    print(f"{USERS} users, {ITEMS:,} items, {len(names)} features")  # noqa: T201  what it is run for
    for name, took in {**rows, "in all": total, "per feature": total / len(names)}.items():
        print(f"{name:40} {took:8.1f} ms")  # noqa: T201  as above


if __name__ == "__main__":
    main()
