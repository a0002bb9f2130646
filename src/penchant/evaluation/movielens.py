"""MovieLens folders as streams: films as the catalogue, ratings as events at their own times.

Harper and Konstan, "The MovieLens Datasets: History and Context" (2015).
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from penchant.errors import ConfigurationError
from penchant.evaluation.stream import UNKNOWN_TIME, Listing, Moment, Stream, arranged
from penchant.importing import Row, movielens_click, movielens_item, open_rows
from penchant.profile.signals import Action, signal_weight
from penchant.settings import ProfileSettings
from penchant.streams.client import InvalidEvent
from penchant.streams.interpret import action_weights, embedded_text

__all__ = ["read_movielens"]

LIKED = 4.0  # the least rating of a positive event

Read = TypeVar("Read")


def read_movielens(folder: Path, settings: ProfileSettings) -> Stream:
    """The stream of a folder with `movies.csv` and `ratings.csv`.

    A film's text is the one that the import gives to be embedded; when it was released is known to the year.

    Raises:
        ConfigurationError: a file is missing, or has a row that is none of MovieLens'.
    """
    for name in ("movies.csv", "ratings.csv"):
        if not (folder / name).is_file():
            raise ConfigurationError(f"{folder} is no MovieLens folder: it has no {name}")
    weights, scale = action_weights(settings), (settings.rating_low, settings.rating_high)

    def listing(row: Row) -> Listing:
        item = movielens_item(row)
        year = item.attributes.get("year")
        return Listing(
            item=item.item_id,
            text=embedded_text(item.title, item.text, item.tags),
            categories=item.tags,
            released=year_ms(int(year)) if year else UNKNOWN_TIME,
        )

    def moment(row: Row) -> Moment:
        click = movielens_click(row)
        value, at = float(click.value or 0.0), click.at
        weight = signal_weight(Action.RATE, value=value, dwell_ms=None, weights=weights, rating_range=scale)
        return Moment(at if isinstance(at, int) else 0, click.user_id, click.item_id, weight, value >= LIKED)

    return arranged(read(folder / "ratings.csv", moment), read(folder / "movies.csv", listing))


def read(path: Path, convert: Callable[[Row], Read]) -> Iterator[Read]:
    """What each row of a file says."""
    with open_rows(path) as rows:
        for row in rows.rows:
            try:
                yield convert(row)
            except InvalidEvent as error:
                raise ConfigurationError(f"{path.name}:{row.line}: {error}") from None


def year_ms(year: int) -> int:
    """When a year began, epoch milliseconds; `UNKNOWN_TIME` for none of the calendar's."""
    return round(datetime(year, 1, 1, tzinfo=UTC).timestamp() * 1_000) if year else UNKNOWN_TIME
