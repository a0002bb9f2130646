"""What came of making a store anew."""

from collections import Counter

from msgspec import Struct, field

__all__ = ["Summary", "Tally"]


class Tally(Struct, kw_only=True):
    """What has been done so far.

    Attributes:
        passes: over the old store.
        items: written.
        profiles: written.
        refused: parts that the new encoders have no use for, by modality and reason.
        unavailable: parts that could not be had again, likewise.
        items_s: how long items took, in seconds.
        profiles_s: likewise.
    """

    passes: int = 0
    items: int = 0
    profiles: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    unavailable: Counter[str] = field(default_factory=Counter)
    items_s: float = 0.0
    profiles_s: float = 0.0


class Summary(Struct, frozen=True, kw_only=True):
    """What came of it all.

    Attributes:
        tally: what was done.
        embedded: slices that were embedded anew.
        taken: slices that were taken over as they were.
        calibration: fingerprint of the new store's; empty: it has too few items.
        seconds: all in all.
    """

    tally: Tally
    embedded: tuple[str, ...]
    taken: tuple[str, ...]
    calibration: str
    seconds: float
