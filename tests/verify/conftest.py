"""What a worker has left behind."""

import pytest

from tests.verify.rig import STRONG, WEAK, Played


@pytest.fixture(scope="module")
def played(kafka, make_stage, tmp_path_factory):
    """A worker's life, verified on the way."""
    with make_stage(kafka, profile={"strong_limit": STRONG, "weak_limit": WEAK}) as stage:
        yield Played(stage, tmp_path_factory.mktemp("verify"))


@pytest.fixture
def copy(played, tmp_path):
    """Settings for a copy of the store that this test may spoil."""
    return played.copied(tmp_path)
