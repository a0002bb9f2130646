"""Logging stays readable whatever happens."""

import logging

from penchant.log import REPEAT_AFTER_S, Sparing


def record(name: str, line: int) -> logging.LogRecord:
    """A record logged at a line of a module."""
    return logging.LogRecord(name, logging.ERROR, f"{name}.py", line, "not connected", None, None)


def test_a_client_that_repeats_itself_is_heard_once_in_a_while():
    """The same line of the same library is let through again only after some time; other lines are."""
    now = 0.0
    sparing = Sparing(lambda: now)
    assert [sparing.filter(record("aiokafka.client", 7)) for _ in range(100)].count(True) == 1
    assert sparing.filter(record("aiokafka.client", 8))
    now = REPEAT_AFTER_S
    assert sparing.filter(record("aiokafka.client", 7))


def test_what_penchant_says_is_never_held_back():
    """Its own loggers limit themselves."""
    sparing = Sparing(lambda: 0.0)
    assert all(sparing.filter(record("penchant.streams.lane", 7)) for _ in range(100))
