"""Makes stores for others to start from: a catalogue, and profiles, in the settings' data folder."""

import asyncio

from msgspec import structs

from penchant.parts import Parts, build_parts
from penchant.profile.profiles import Profile
from penchant.profile.signals import Action, Signal
from penchant.profile.updater import ProfileUpdater
from penchant.settings import Settings, load_settings
from penchant.streams.interpret import action_weights
from tests.bench.rig import answer, asked
from tests.bench.world import ACTIONS, Clicks, fill, item_id, made_clicks, user_id

__all__ = ["signals_of", "updater_of"]

MODELS = 100  # different profiles; each is stored for many users
SIGNALS = 100  # of each
PAGE = 1_000
APART_MS = 60_000
NEWEST_MS = 1_700_000_000_000


async def make(settings: Settings, *, items: int, profiles: int) -> int:
    """Fills a store; gives how many profiles there are."""
    parts = build_parts(settings)
    await parts.open()
    try:
        await fill(parts, items)
        if profiles:
            models = await made_profiles(settings, parts, items)
            for start in range(0, profiles, PAGE):
                numbers = range(start, min(start + PAGE, profiles))
                page = [
                    structs.replace(models[number % len(models)], user=user_id(number), version=0, token=None)
                    for number in numbers
                ]
                await parts.profiles.write(page)
    finally:
        await parts.store.close()
    return profiles


async def made_profiles(settings: Settings, parts: Parts, items: int) -> list[Profile]:
    """Profiles to store under many names; they are made under names that nobody else has."""
    clicks = made_clicks(MODELS * SIGNALS, users=MODELS, items=items, prefix="made")
    signals = {f"model of {user}": some for user, some in signals_of(clicks, settings).items()}
    updater = updater_of(settings, parts)
    await updater.apply(signals)
    return list((await updater.read(signals)).values())


def signals_of(clicks: Clicks, settings: Settings) -> dict[str, list[Signal]]:
    """What clicks say, by user: a minute apart each, the last as of a fixed moment."""
    weights = action_weights(settings.profile)
    found: dict[str, list[Signal]] = {}
    for number, (user, item, action) in enumerate(zip(clicks.users, clicks.items, clicks.actions, strict=True)):
        done = Action(ACTIONS[action])
        at = NEWEST_MS - (len(clicks) - number) * APART_MS
        signal = Signal(at, f"{clicks.prefix}-{number}", item_id(item), done, weights[done])
        found.setdefault(user_id(user), []).append(signal)
    return found


def updater_of(settings: Settings, parts: Parts) -> ProfileUpdater:
    """What writes profiles, as a worker has it."""
    return ProfileUpdater(
        parts.profiles, parts.vectors, parts.horizons, parts.limits, capacity=settings.profile.cached_profiles
    )


if __name__ == "__main__":
    answer(asyncio.run(make(load_settings(), **asked())))
