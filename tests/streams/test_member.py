"""Tests of `penchant.streams.member` on real Kafka."""

import threading
import time
from functools import partial

from penchant.streams.connection import BrokerUnavailable, open_admin, open_consumer
from penchant.streams.member import name_is_held
from penchant.streams.topics import create_topics

TIMEOUT_S = 30.0
GROUP = "naming"


def test_a_name_is_held_while_its_member_lives(settings):
    """A group is asked for a member of a name; while it forms anew nobody can say whether that member lives."""
    create_topics(settings)
    topics = [settings.prefixed("clicks")]
    others = settings.model_copy(update={"worker": settings.worker.model_copy(update={"instance_id": "other"})})
    ask = partial(name_is_held, open_admin(settings), settings.prefixed(GROUP))
    member, newcomer = open_consumer(settings, GROUP), open_consumer(others, GROUP)
    member.subscribe(topics, on_revoke=lambda *_: None)
    poll_until(member, member.assignment)
    await_answer(lambda: ask(settings.instance_id), expected=True)
    await_answer(lambda: ask("nobody"), expected=False)
    # The first polls no more, and so does not hear that the group forms anew for the second.
    newcomer.subscribe(topics)
    joining = threading.Thread(target=poll_until, args=(newcomer, newcomer.assignment))
    joining.start()
    await_answer(lambda: ask(settings.instance_id), expected=None)
    poll_until(member, lambda: not joining.is_alive())
    await_answer(lambda: ask(settings.instance_id), expected=True)
    for one in (member, newcomer):
        one.close()


def poll_until(consumer, condition):
    """Polls until a condition holds."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        consumer.poll(0.05)


def await_answer(ask, *, expected):
    """Waits until a question is answered in one way; None: that the group forms anew."""
    deadline = time.monotonic() + TIMEOUT_S
    answer = not expected
    while answer is not expected:
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)
        try:
            answer = ask()
        except BrokerUnavailable as error:
            answer = None if "forms anew" in str(error) else answer
