"""Penchant: live, exact user-interest profiles and recommendations from Kafka events."""

from importlib.metadata import version

__version__ = version("penchant")
