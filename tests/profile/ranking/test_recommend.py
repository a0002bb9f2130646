"""Lists: nothing met before, nothing of one's own, full length, and scores that can be taken apart."""

from collections import Counter

import numpy as np
import pytest

from penchant.profile.items import Item
from penchant.profile.ranking.features import BEHAVIOUR, content_names
from penchant.profile.ranking.fused import MODES, Liked, mode_of
from penchant.profile.ranking.priors import prior_weights
from penchant.profile.ranking.recommend import Ranker
from penchant.profile.ranking.weights import Weights
from penchant.profile.ranking.whitening import Calibration, calibrate, whitening_of
from penchant.profile.signals import Action

NOW = 1_750_000_000_000
HOUR_MS = 3_600_000
FEATURES = (*content_names(["text", "image"]), *BEHAVIOUR)
OF_USERS = {*content_names(["text", "image"]), "transitions"}


@pytest.fixture
def make_ranker(items, rows, vectors, identity, horizons):
    """Rankers that make lists of four from eight candidates a source."""

    def make(weights=prior_weights(FEATURES), calibration=Calibration(), **changes):  # noqa: B008  both are frozen
        sizes = {"count": 4, "candidates": 8, "relevance_share": 0.8, "reasons": 2, **changes}
        return Ranker(
            items, rows, vectors, identity, horizons=horizons, weights=weights, calibration=calibration, **sizes
        )

    return make


async def lists_of(ranker, profiles, moments):
    """The lists of some profiles."""
    return [ranked.items for ranked in await ranker.rank(profiles, moments)]


@pytest.fixture
def ranker(make_ranker):
    """One with the weights that ranking starts from."""
    return make_ranker()


async def test_a_score_is_the_sum_of_its_parts_and_is_explained(make_ranker, profile_of, catalogue, liked):
    """Parts by feature sum to the score exactly, and what depends on the user is the sum over all their signals."""
    await catalogue(*(f"i{number}" for number in range(30)))
    profile = await profile_of("ada", "i0", "i1", "i2", "i1", "unknown")
    await liked("i7", "i1", "i0", times=3)
    await liked("i8", "unknown")
    await liked("i9", times=7)
    [ranked] = await lists_of(make_ranker(reasons=99), [profile], [NOW + HOUR_MS])
    assert len(ranked) == 4
    assert any("transitions" in item.parts for item in ranked)
    for item in ranked:
        assert item.score == sum(item.parts.values())
        assert item.parts.keys() <= set(FEATURES)
        assert 0 not in item.parts.values()
        parts = [reason.part for reason in item.reasons]
        assert parts == sorted(parts, reverse=True)
        assert all(reason.part > 0 and reason.signal in profile.state.signals for reason in item.reasons)
        of_user = sum(part for name, part in item.parts.items() if name in OF_USERS)
        if len(parts) == len(profile.state.signals):  # none of them speaks against it
            assert sum(parts) == pytest.approx(of_user, abs=1e-4)
        else:
            assert sum(parts) >= of_user - 1e-4
    assert any(reason.signal.item_id == "i1" for item in ranked for reason in item.reasons)


async def test_a_list_names_no_more_reasons_than_asked_for(make_ranker, profile_of, catalogue):
    """The loudest ones; none where none are wanted."""
    await catalogue(*(f"i{number}" for number in range(30)))
    profile = await profile_of("ada", "i0", "i1", "i2", "i3")
    all_of_them, two, none = [
        (await lists_of(make_ranker(reasons=reasons), [profile], [NOW]))[0] for reasons in (99, 2, 0)
    ]
    for full, short, bare in zip(all_of_them, two, none, strict=True):
        assert short.reasons == full.reasons[:2]
        assert bare.reasons == ()


async def test_weights_say_what_counts(make_ranker, profile_of, catalogue, liked):
    """With a weight on one feature alone, that one orders the list and is the whole score."""
    made = await catalogue(*(f"i{number}" for number in range(30)))
    profile = await profile_of("ada", "i0")
    await liked("i20", times=20)
    await liked("i21", "i0", times=3)
    for feature, first in (("popularity", "i20"), ("transitions", "i21")):
        [ranked] = await lists_of(
            make_ranker(Weights.of({feature: 1.0}, {}, FEATURES), relevance_share=1), [profile], [NOW]
        )
        assert ranked[0].item_id == first
        assert ranked[0].parts.keys() == {feature}
    text = slice(0, 4)  # the space's first components
    cosines = {
        one: float(vector[text] @ made["i0"][text]) / float((vector[text] @ vector[text]) ** 0.5)
        for one, vector in made.items()
        if one != "i0"
    }
    wide = make_ranker(Weights.of({"text_long": 1.0}, {}, FEATURES), relevance_share=1, candidates=40)
    [ranked] = await lists_of(wide, [profile], [NOW])
    assert [item.item_id for item in ranked] == sorted(cosines, key=cosines.get, reverse=True)[:4]


async def test_who_returns_is_ranked_by_other_weights(make_ranker, profile_of, catalogue, liked):
    """The longer the absence, the more the weights that count by it; none of them in the middle of a sitting."""
    await catalogue(*(f"i{number}" for number in range(30)))
    await liked("i20", times=20)
    profile = await profile_of("ada", "i0")
    ranker = make_ranker(Weights.of({}, {"popularity": 1.0}, FEATURES))
    [[here], [back], [long_gone]] = [
        (await lists_of(ranker, [profile], [NOW + hours * HOUR_MS]))[0][:1] for hours in (0, 8, 800)
    ]
    assert here.parts == {}
    assert back.item_id == long_gone.item_id == "i20"
    assert long_gone.score == pytest.approx(2 * back.score * 100 / 101, rel=1e-3)


async def test_slices_are_compared_as_they_are_calibrated(make_ranker, profile_of, catalogue):
    """A whitening changes the parts of content, and the reasons with them."""
    made = await catalogue(*(f"i{number}" for number in range(30)))
    profile = await profile_of("ada", "i0")
    texts = [vector[:4] / (vector[:4] @ vector[:4]) ** 0.5 for vector in made.values()]
    whitening = whitening_of(np.array(texts, np.float32))
    plain, whitened = [
        (await lists_of(make_ranker(calibration=one, candidates=40), [profile], [NOW]))[0]
        for one in (Calibration(), Calibration({"text": whitening}))
    ]
    assert plain != whitened
    for item in whitened:
        told = sum(part for name, part in item.parts.items() if name in OF_USERS)
        assert told == pytest.approx(sum(reason.part for reason in item.reasons), abs=1e-4) or not item.reasons


async def test_one_like_makes_no_hit(make_ranker, profile_of, catalogue, liked):
    """What a single user liked comes before nothing that is near; what hundreds liked does."""
    made = await catalogue(*(f"i{number}" for number in range(30)))
    profile = await profile_of("ada", "i0")
    far = min(made, key=lambda one: float(made[one] @ made["i0"]))
    wide = make_ranker(candidates=40, relevance_share=1)
    await liked(far)
    assert far not in {item.item_id for item in (await lists_of(wide, [profile], [NOW]))[0]}
    await liked(far, times=500)
    assert (await lists_of(wide, [profile], [NOW]))[0][0].item_id == far


async def test_strangers_are_shown_what_trends_and_leave_it_smoothly(ranker, profiles, profile_of, catalogue, liked):
    """Nothing is known of a user: the popular ones. With a first signal, what is near to it is among the candidates."""
    await catalogue(*(f"i{number}" for number in range(30)))
    for number in range(20, 26):
        await liked(f"i{number}", times=number)
    nobody = profiles.empty("nobody")
    [shown] = await lists_of(ranker, [nobody], [NOW])
    assert len(shown) == 4
    assert {item.item_id for item in shown} <= {f"i{number}" for number in range(20, 26)}
    assert all(item.parts.keys() <= set(BEHAVIOUR) and not item.reasons for item in shown)
    [ranked] = await lists_of(ranker, [await profile_of("ada", "i0")], [NOW])
    assert any(item.reasons for item in ranked)


async def test_who_becomes_known_leaves_what_trends_step_by_step(make_ranker, items, profiles, profile_of, liked):
    """Nothing known: what trends, and what is new. With each event fewer places go to that, and more to one's taste."""
    generator = np.random.default_rng(3)

    def beside(center, spread):
        vector = center + spread * generator.normal(size=7)
        return (vector / np.linalg.norm(vector)).astype(np.float32)

    tastes = {name: beside(np.zeros(7), 1) for name in ("mine", *"abcd")}
    made = {f"{taste}-{number}": beside(center, 0.2) for taste, center in tastes.items() for number in range(16)}
    await items.put([(Item(item_id=one, version=(1, 1, 0), listed=True), vector) for one, vector in made.items()])
    for rank, taste in enumerate("abcd"):
        for number in range(3):
            await liked(f"{taste}-{number}", times=50 - 10 * rank - number)
    weights = Weights.of({"text_long": 1.0, "image_long": 0.7, "popularity_365d": 0.5}, {}, FEATURES)
    ranker = make_ranker(weights, count=10, candidates=50, exploration=0.1, relevance_share=1)
    places = []
    for events in (0, 1, 2, 8):
        met = [f"mine-{number}" for number in range(events)]
        profile = await profile_of(f"user-{events}", *met) if met else profiles.empty("nobody")
        [made_list] = await lists_of(ranker, [profile], [NOW + 60_000])
        assert [item.explored for item in made_list] == [False] * 9 + [True]
        places.append(sum(item.item_id.startswith("mine") for item in made_list[:9]))
    assert places == sorted(places)
    assert 0 == places[0] < places[1] < places[2]
    assert places[1] <= 5 <= places[3]


async def test_where_nobody_has_done_anything_what_is_new_is_shown(ranker, profiles, catalogue):
    """No signals, no rows: items all the same, none before another but for being unlike those before it."""
    await catalogue("i0", "i1")
    [shown] = await lists_of(ranker, [profiles.empty("nobody")], [NOW])
    assert {item.item_id for item in shown} == {"i0", "i1"}
    assert all(item.score == 0 and not item.parts and not item.explored for item in shown)


async def test_some_places_go_to_new_items_that_ranking_left_out(make_ranker, profile_of, catalogue, liked):
    """The last ones; the others are the list that ranking alone makes, and scores are taken apart as everywhere."""
    await catalogue(*(f"i{number}" for number in range(60)))
    for number in range(10, 20):
        await liked(f"i{number}", times=10)
    profile = await profile_of("ada", "i0", "i1")
    plain, exploring = make_ranker(count=10, candidates=10), make_ranker(count=10, candidates=10, exploration=0.25)
    [alone] = await lists_of(plain, [profile], [NOW])
    [mixed] = await lists_of(exploring, [profile], [NOW])
    assert [item.item_id for item in mixed[:8]] == [item.item_id for item in alone[:8]]
    assert [item.explored for item in mixed] == [False] * 8 + [True] * 2
    tried = {item.item_id for item in mixed[8:]}
    assert not tried & {*(item.item_id for item in alone), *(f"i{number}" for number in range(10, 20)), "i0", "i1"}
    assert all(item.score == sum(item.parts.values()) and item.parts for item in mixed)
    assert not any(item.explored for item in alone)


async def test_the_same_state_gives_the_same_trials_and_another_moment_others(make_ranker, profile_of, catalogue):
    """Drawn for a user and a moment, whoever is ranked beside."""
    await catalogue(*(f"i{number}" for number in range(60)))
    ada, bob = await profile_of("ada", "i0"), await profile_of("bob", "i0")
    ranker = make_ranker(exploration=0.5, candidates=40)
    together = await lists_of(ranker, [ada, bob], [NOW, NOW])
    assert await lists_of(make_ranker(exploration=0.5, candidates=40), [ada], [NOW]) == [together[0]]
    later = await lists_of(ranker, [ada] * 20, [NOW + minute * 60_000 for minute in range(20)])
    tried = {item.item_id for one in later for item in one if item.explored}
    assert len(tried) > 10


async def test_nothing_of_ones_own_and_nothing_met_is_tried(make_ranker, profile_of, catalogue, identity):
    """Others' posts are new items like any; a list has no more new ones than there are."""
    await catalogue("i0", *(f"n{number}" for number in range(6)))
    await catalogue(*(f"own{number}" for number in range(30)), author=identity.author("ada"))
    profile = await profile_of("ada", "i0", "n0", "n1")
    [made] = await lists_of(make_ranker(exploration=0.5), [profile], [NOW])
    assert {item.item_id for item in made} == {"n2", "n3", "n4", "n5"}
    assert not any(item.explored for item in made)


async def test_what_is_liked_when_listed_is_tried_more_often(make_ranker, profile_of, catalogue):
    """And what was listed again and again in vain hardly any more."""
    await catalogue(*(f"i{number}" for number in range(30)))
    ranker = make_ranker(exploration=0.25, candidates=40)
    good, bad = "i20", "i21"
    ranker.arms.listed([good, bad, *(f"i{number}" for number in range(10))] * 90)
    ranker.arms.liked([good] * 30)
    profile = await profile_of("ada", "other")
    lists = await lists_of(ranker, [profile] * 50, [NOW + second * 1_000 for second in range(50)])
    tried = Counter(item.item_id for one in lists for item in one if item.explored)
    kept = {item.item_id for one in lists for item in one if not item.explored}
    assert good in kept or tried[good] > 10
    assert tried[bad] <= 3


async def test_scores_and_reasons_are_of_one_reading_of_the_items(ranker, profile_of, catalogue):
    """An item that got vectors after the profile was stored counts in a score if it is named as a reason for it."""
    await catalogue("i0", *(f"i{number}" for number in range(2, 30)))
    profile = await profile_of("ada", "i0", "i1")
    await catalogue("i1", seed=1)
    [ranked] = await lists_of(ranker, [profile], [NOW])
    assert any(reason.signal.item_id == "i1" for item in ranked for reason in item.reasons)
    for item in ranked:
        if len(item.reasons) == 2:  # both of the user's signals: together they are all that depends on the user
            of_user = sum(part for name, part in item.parts.items() if name in OF_USERS)
            assert sum(reason.part for reason in item.reasons) == pytest.approx(of_user, abs=1e-4)


async def test_what_the_set_has_forgotten_is_not_recommended_again(ranker, profile_of, catalogue, limits):
    """Items met longer ago than the signals reach stay out, and the list is full all the same."""
    await catalogue(*(f"i{number}" for number in range(60)))
    met = [f"i{number}" for number in range(50)]
    profile = await profile_of("ada", *met)
    assert len(profile.state.signals) == limits.strong
    [ranked] = await lists_of(ranker, [profile], [NOW])
    assert not {item.item_id for item in ranked} & set(met)
    assert len(ranked) == 4


async def test_who_has_met_everything_gets_what_is_left(ranker, profile_of, catalogue):
    """A list may be short, or empty, where there is nothing more to show."""
    await catalogue(*(f"i{number}" for number in range(20)))
    most = await profile_of("ada", *(f"i{number}" for number in range(18)))
    everything = await profile_of("bob", *(f"i{number}" for number in range(20)))
    lists = await lists_of(ranker, [most, everything], [NOW, NOW])
    assert {item.item_id for item in lists[0]} <= {"i18", "i19"}
    assert lists[1] == ()


async def test_lists_come_in_the_order_of_the_profiles(ranker, profile_of, catalogue, profiles, liked):
    """Each profile gets its own list, as of its own moment, also where some have no interests at all."""
    await catalogue(*(f"i{number}" for number in range(30)))
    await liked("i9", "i1", times=9)
    await liked("i5", "i2", times=2)
    ada, bob = await profile_of("ada", "i1"), await profile_of("bob", "i2", "i3")
    nobody = profiles.empty("nobody")
    moments = [NOW, NOW + HOUR_MS, NOW + 9 * HOUR_MS]
    together = await lists_of(ranker, [nobody, ada, bob], moments)
    alone = [
        (await lists_of(ranker, [one], [moment]))[0] for one, moment in zip((nobody, ada, bob), moments, strict=True)
    ]
    assert together == alone
    assert {item.item_id for item in together[0][:2]} == {"i9", "i5"}
    assert await lists_of(ranker, [], []) == []


async def test_who_only_dislikes_is_shown_the_opposite(make_ranker, profile_of, catalogue):
    """An interest may point away from what a user has rejected, and a signal speaks for what is unlike it."""
    made = await catalogue(*(f"i{number}" for number in range(30)))
    profile = await profile_of("ada", "i0", action=Action.HIDE, weight=-3.0)
    [ranked] = await lists_of(make_ranker(relevance_share=1, candidates=40), [profile], [NOW])
    assert all(item.item_id != "i0" for item in ranked)
    others = [float(made[one] @ made["i0"]) for one in made if one != "i0"]
    assert max(float(made[item.item_id] @ made["i0"]) for item in ranked) < sorted(others)[len(others) // 2]
    assert {reason.signal.item_id for reason in ranked[0].reasons} == {"i0"}


async def test_what_a_list_was_chosen_from_is_told(ranker, profile_of, catalogue, liked):
    """All candidates with their features, compared among them: with the weights, the parts of the list's scores."""
    await catalogue(*(f"i{number}" for number in range(30)))
    profile = await profile_of("ada", "i0", "i1")
    await liked("i7", "i1", times=3)
    [ranked] = await ranker.rank([profile], [NOW])
    offered = ranked.offered
    assert offered.features.shape == (len(ranker.features), len(offered.items))
    assert {item.item_id for item in ranked.items} < set(offered.items)
    assert offered.features.mean(axis=1) == pytest.approx(0, abs=1e-5)
    parts = prior_weights(FEATURES).at(0)[:, None] * offered.features
    for item in ranked.items:
        column = parts[:, offered.items.index(item.item_id)]
        told = dict(zip(FEATURES, column.tolist(), strict=True))
        assert item.parts == pytest.approx({name: part for name, part in told.items() if part}, rel=1e-5)


async def test_where_there_is_nothing_nothing_was_chosen_from(ranker, profiles):
    """An empty catalogue makes an empty list, and no features."""
    [nothing] = await ranker.rank([profiles.empty("nobody")], [NOW])
    assert nothing.items == ()
    assert nothing.offered is None


async def test_weights_can_change_while_it_ranks(ranker, make_ranker, profile_of, catalogue):
    """From the next list on; features that nothing is said of count nothing."""
    await catalogue(*(f"i{number}" for number in range(30)))
    profile = await profile_of("ada", "i0", "i1")
    other = Weights.of({"text_long": -1.0}, {}, ["text_long"])
    before = await lists_of(ranker, [profile], [NOW])
    ranker.weigh(other)
    after = await lists_of(ranker, [profile], [NOW])
    assert after == await lists_of(make_ranker(other.among(FEATURES)), [profile], [NOW]) != before
    assert {name for item in after[0] for name in item.parts} == {"text_long"}


@pytest.mark.parametrize("mode", MODES)
async def test_content_alone_ranks_by_a_mode(mode, make_ranker, profile_of, catalogue, space):
    """The one part is the mode's score of what was liked, newest first; reasons sum to it, where there are any."""
    made = await catalogue(*(f"i{number}" for number in range(30)))
    profile = await profile_of("ada", "i0", "i1", "i2", "i1", "unknown")
    calibration = calibrate(Calibration().split(space, np.stack(list(made.values()))))
    assert calibration.slices

    def fusion(calibration):
        return mode_of(mode, calibration, {"text": 0.6, "image": 0.4, "graph": 0.4})

    ranker = make_ranker(fusion=fusion, relevance_share=1, candidates=40, reasons=99)
    ranker.calibrate(calibration)
    [ranked] = await ranker.rank([profile], [NOW + HOUR_MS])
    fused = fusion(calibration).fused(Calibration().split(space, np.stack(list(made.values()))))
    past = Liked(rows=np.array([1, 2, 1, 0]), ages_ms=np.array([3, 2, 1, 0]))
    expected = dict(zip(made, fusion(calibration).scores(past, fused, fused), strict=True))
    for met in ("i0", "i1", "i2"):
        del expected[met]
    assert [item.item_id for item in ranked.items] == sorted(expected, key=expected.get, reverse=True)[:4]
    assert ranked.offered is None
    for item in ranked.items:
        assert item.parts == {"content": item.score}
        assert item.score == pytest.approx(expected[item.item_id], abs=1e-5)
        parts = [reason.part for reason in item.reasons]
        if mode == "M":
            assert not parts
        elif len(parts) == 4:  # none of them speaks against it
            assert sum(parts) == pytest.approx(item.score, abs=1e-5)
        else:
            assert sum(parts) >= item.score - 1e-5
        assert all(reason.signal in profile.state.signals for reason in item.reasons)


@pytest.mark.parametrize("mode", MODES)
async def test_strangers_get_a_list_in_every_mode(mode, make_ranker, profiles, catalogue, liked):
    """Of what trends, in that order, without a word of why: of them content tells nothing."""
    await catalogue(*(f"i{number}" for number in range(30)))
    for number in range(20, 26):
        await liked(f"i{number}", times=number)
    ranker = make_ranker(
        fusion=lambda calibration: mode_of(mode, calibration, {"text": 0.6, "graph": 0.4}), relevance_share=1
    )
    [ranked] = await ranker.rank([profiles.empty("nobody")], [NOW])
    assert [item.item_id for item in ranked.items] == ["i25", "i24", "i23", "i22"]
    assert all(not item.parts and not item.reasons for item in ranked.items)
