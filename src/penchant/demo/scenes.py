"""The demo's script: who does what, and why it is worth watching."""

import random
from collections.abc import Sequence

from msgspec import Struct

from penchant.demo.pictures import picture
from penchant.demo.sounds import sound
from penchant.streams.events import Click, ClickAction, MediaKind, MediaUpload, Post

__all__ = ["USERS", "Scene", "Step", "build_scenes"]

USERS = ("ann", "ben", "cleo", "dev")

DAY_MS = 86_400_000
FIVE_WEEKS_MS = 35 * DAY_MS


class Step(Struct, frozen=True):
    """One event, the words for it, and what its content is called where a list names it."""

    says: str
    event: Click | Post | MediaUpload
    label: str = ""


class Scene(Struct, frozen=True, kw_only=True):
    """A user does something, and their list follows.

    Attributes:
        user: who.
        title: in a few words.
        story: what to look for.
        steps: one after the other.
    """

    user: str
    title: str
    story: str
    steps: Sequence[Step]


def build_scenes(now_ms: int) -> list[Scene]:
    """The script. The same every time, but for the time of day."""
    rng = random.Random(7)
    clicks = Clicks(now_ms)
    return [
        Scene(
            user="ann",
            title="Ann clicks",
            story="With each, what is near to it moves up. The order minds variety, too: scores need not fall.",
            steps=(
                clicks.step("ann", "sea-01", ClickAction.CLICK, "clicks “Harbour at slack water”"),
                clicks.step("ann", "sea-08", ClickAction.SAVE, "saves “North Sea crossing”"),
                clicks.step("ann", "sea-03", ClickAction.LIKE, "likes “Reading waves”"),
            ),
        ),
        Scene(
            user="ben",
            title="Ben liked bread, five weeks ago",
            story="These events come late. They count with the weight of the time at which they happened.",
            steps=(
                clicks.step("ben", "bread-01", ClickAction.LIKE, "liked “A starter from nothing”", ago=FIVE_WEEKS_MS),
                clicks.step("ben", "bread-02", ClickAction.LIKE, "liked “Rye, dark and slow”", ago=FIVE_WEEKS_MS),
                clicks.step("ben", "bread-05", ClickAction.SAVE, "saved “Brioche on Sunday”", ago=FIVE_WEEKS_MS),
            ),
        ),
        Scene(
            user="cleo",
            title="Cleo uploads a picture, without a word",
            story="It shows three snowy peaks. Only its colours and shapes can say so: see the image share.",
            steps=(
                Step(
                    "uploads a picture",
                    MediaUpload(
                        event_id="cleo-picture",
                        user_id="cleo",
                        kind=MediaKind.IMAGE,
                        data=picture("mountains", rng),
                        at=now_ms,
                    ),
                    "the picture",
                ),
            ),
        ),
        Scene(
            user="dev",
            title="Dev uploads a sound, without a word",
            story="A second and a half of chirping: see the audio share.",
            steps=(
                Step(
                    "uploads a sound",
                    MediaUpload(
                        event_id="dev-sound",
                        user_id="dev",
                        kind=MediaKind.AUDIO,
                        data=sound("birds", rng),
                        at=now_ms,
                    ),
                    "the sound",
                ),
            ),
        ),
        Scene(
            user="cleo",
            title="Cleo writes a post",
            story="Now words speak beside the picture: what has both rises above what is a picture alone.",
            steps=(
                Step(
                    "posts: “Three passes in two days …”",
                    Post(
                        event_id="cleo-post",
                        user_id="cleo",
                        text="Three passes in two days, ropes on the glacier, and the hut warden's soup: the best "
                        "long hike of the summer.",
                        at=now_ms + 1,
                    ),
                    "“Three passes …”",
                ),
            ),
        ),
        Scene(
            user="dev",
            title="Dev searches, in private",
            story="A search says something about him and is shown to nobody. His list serves both interests.",
            steps=(
                Step(
                    "searches for “programming 8-bit home computers”",
                    Post(
                        event_id="dev-search",
                        user_id="dev",
                        text="programming 8-bit home computers",
                        at=now_ms + 1,
                        recommendable=False,
                    ),
                    "“programming 8-bit …”",
                ),
            ),
        ),
        Scene(
            user="ben",
            title="Ben turns to jazz",
            story="Today's likes outweigh those of five weeks ago, event by event.",
            steps=(
                clicks.step("ben", "jazz-02", ClickAction.CLICK, "clicks “Comping”"),
                clicks.step("ben", "jazz-05", ClickAction.LIKE, "likes “Blue note”"),
                clicks.step("ben", "jazz-01", ClickAction.LIKE, "likes “Midnight at the cellar club”"),
                clicks.step("ben", "jazz-11", ClickAction.SAVE, "saves “Long-player, red”"),
            ),
        ),
    ]


class Clicks:
    """Numbers the clicks of the script, a millisecond apart."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms
        self._number = 0

    def step(self, user: str, item: str, action: ClickAction, says: str, *, ago: int = 0) -> Step:
        """A click, `ago` milliseconds before now."""
        self._number += 1
        at = self._now_ms - ago + self._number
        return Step(says, Click(event_id=f"{user}-{self._number}", user_id=user, item_id=item, action=action, at=at))
