"""Weights that ranking starts from, and those that settings pin."""

import pytest

from penchant.errors import ConfigurationError
from penchant.profile.ranking.features import BEHAVIOUR, content_names
from penchant.profile.ranking.priors import pinned_weights, prior_weights

FEATURES = (*content_names(["text", "graph"]), *BEHAVIOUR)


def test_what_is_pinned_is_pinned_and_nothing_else():
    """Each of both kinds by name; zero is a weight, too."""
    prior = prior_weights(FEATURES)
    found = pinned_weights(prior, {"text_long": 0.4, "transitions": 0.0}, {"age": -0.5})
    for own, pinned, before in (
        (found.base, {"text_long": 0.4, "transitions": 0.0}, prior.base),
        (found.returning, {"age": -0.5}, prior.returning),
    ):
        expected = dict(zip(FEATURES, before.tolist(), strict=True)) | pinned
        assert dict(zip(found.names, own.tolist(), strict=True)) == expected


@pytest.mark.parametrize(
    ("base", "returning", "said"),
    [
        ({"text_lnog": 1.0}, {}, "recommend.weights: no feature is named 'text_lnog'\nDid you mean text_long?"),
        ({}, {"popularity_30": 1.0}, "recommend.returning: .*\nDid you mean popularity_30d?"),
        ({"xyz": 1.0}, {}, "There are: text_long, "),
    ],
)
def test_a_name_that_is_no_feature_is_refused(base, returning, said):
    """The setting is named, and the nearest feature, or all of them."""
    with pytest.raises(ConfigurationError, match=said.replace("?", "[?]")):
        pinned_weights(prior_weights(FEATURES), base, returning)


def test_every_slice_has_weights_to_start_from():
    """Nothing is left out for being a picture."""
    weights = prior_weights(content_names(["image"]))
    assert dict(zip(weights.names, weights.base.tolist(), strict=True))["image_long"] > 0
