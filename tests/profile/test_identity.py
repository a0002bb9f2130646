"""Names: keyed for users, plain for items, and apart from each other."""

from hypothesis import given
from hypothesis import strategies as st

from penchant.profile.identity import OWN_PREFIX, Identity, item_point, position_point

NAMES = st.text(min_size=1, max_size=12)


@given(NAMES, NAMES, NAMES, NAMES)
def test_items_of_different_users_never_overlap(one, his, other, hers):
    """Whatever two users call their items, slashes and prefixes and all, the ids differ if user or name does."""
    identity = Identity("key")
    same = identity.own_item(one, his) == identity.own_item(other, hers)
    assert same == ((one, his) == (other, hers))
    assert identity.own_item(one, his).startswith(OWN_PREFIX)


def test_without_the_key_no_point_can_be_guessed():
    """Another key gives other points, other authors and another fingerprint."""
    one, other = Identity("one"), Identity("other")
    assert one.user_point("ada") == Identity("one").user_point("ada")
    assert one.user_point("ada") != other.user_point("ada")
    assert one.author("ada") != other.author("ada")
    assert one.fingerprint != other.fingerprint
    assert "ada" not in one.own_item("ada", "x")


def test_users_own_what_their_posts_and_uploads_made():
    """By the id alone, whatever the post is called; not others', nor what others call alike."""
    one = Identity("one")
    assert one.owns("ada", one.own_item("ada", "x/y"))
    assert not one.owns("ada", one.own_item("ada2", "x"))
    assert not one.owns("ada", Identity("other").own_item("ada", "x"))
    assert not any(one.owns("ada", item_id) for item_id in ("", "~", "film", f"{one.author('ada')}/x"))


def test_points_of_different_kinds_differ():
    """A user, an item and a position of one name are three points."""
    points = {Identity("").user_point("clicks"), item_point("clicks"), position_point("clicks", "", 0)}
    assert len(points) == 3
    assert position_point("g", "a", 11) != position_point("g", "a1", 1)
