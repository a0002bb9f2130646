"""Clients that have stopped hearing the broker are noticed, and opened anew.

A broker that has just started may answer, for a moment, that the cluster has no brokers. librdkafka then drops all
that it knows, and may never look for them again (its issue 5301): a consumer brings nothing and says nothing for
good. Producers recover. What was seen of it says docs/decisions/0016-a-deaf-client-is-replaced.md.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient

from penchant.settings import Settings
from penchant.streams.connection import BrokerUnavailable, open_admin

__all__ = ["Asking", "Deaf", "Hearing"]

QUIET_S = 10.0
TIMEOUT_S = 5.0  # longer than a client waits before it connects again

T = TypeVar("T")


class Deaf(BrokerUnavailable):
    """A client does not hear the broker, or may not, and others do: another must take its place."""


class Hearing:
    """Makes sure that a consumer hears the broker. For the thread that polls, between two polls.

    Args:
        consumer: that may have gone deaf.
        settings: of this process.
        topic: one that it reads.
    """

    def __init__(self, consumer: Consumer, settings: Settings, topic: str) -> None:
        self._consumer = consumer
        self._settings = settings
        self._topic = topic
        self._heard = time.monotonic()

    def heard(self) -> None:
        """The consumer has brought something."""
        self._heard = time.monotonic()

    def quiet(self) -> None:
        """It has brought nothing: it is asked now and then whether that is for want of records.

        Raises:
            Deaf: it does not hear the broker, and a new client does.
        """
        if time.monotonic() - self._heard < QUIET_S:
            return
        if not self._hears() and self._others_hear() and not self._hears():
            raise Deaf("the client does not hear the broker any more, and others do")
        self.heard()

    def _hears(self) -> bool:
        return answered(self._consumer, self._topic)

    def _others_hear(self) -> bool:
        """Whether a new client does: while the broker is away nobody hears it, and the consumer is as it should be."""
        return answered(open_admin(self._settings), self._topic)


def answered(client: Consumer | AdminClient, topic: str) -> bool:
    """Whether the broker answers a client."""
    try:
        client.list_topics(topic, timeout=TIMEOUT_S)
    except KafkaException:
        return False
    return True


class Asking:
    """Asks the broker, by a client that is opened anew where it had no answer.

    Args:
        settings: of this process.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = open_admin(settings)

    def ask(self, question: Callable[[AdminClient], T]) -> T:
        """What the broker says to a question.

        Raises:
            BrokerUnavailable: as the question has it. The next one is put by another client.
        """
        client = self._client
        try:
            return question(client)
        except BrokerUnavailable:
            if self._client is client:  # another thread may have replaced it
                self._client = open_admin(self._settings)
            raise
