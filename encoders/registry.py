"""From settings to encoders: which are in force, what they are without loading them, and how to load them."""

import importlib
from typing import Any

from msgspec import Struct

from penchant.encoders.base import Encoder, Host, Identity, JointEncoder
from penchant.encoders.options.base import InJoint, Options, PinnedOptions
from penchant.errors import ConfigurationError
from penchant.settings import EncoderSettings

__all__ = ["JOINT", "Slot", "build", "encoder_class", "identity", "slot_of", "slots", "tower"]

JOINT = "joint"


class Slot(Struct, frozen=True, kw_only=True):
    """A slice of content, and what fills it.

    Attributes:
        name: of the slice: its modality's, or "joint".
        modalities: that are encoded into it.
        options: of what encodes them.
    """

    name: str
    modalities: tuple[str, ...]
    options: Options


def slots(settings: EncoderSettings) -> list[Slot]:
    """What the settings have in force, in the order of the slices.

    The joint one, which the settings have made sure of where a modality is in it, stands where its first modality does.
    """
    found: list[Slot] = []
    together = tuple(modality for modality, options in settings.in_force.items() if isinstance(options, InJoint))
    joint = settings.joint_in_force
    for modality, options in settings.in_force.items():
        if isinstance(options, Options):
            found.append(Slot(name=modality, modalities=(modality,), options=options))
        elif joint is not None and modality == together[0]:
            found.append(Slot(name=JOINT, modalities=together, options=joint))
    return found


def slot_of(settings: EncoderSettings, modality: str) -> Slot:
    """What a modality is encoded by."""
    return next(slot for slot in slots(settings) if modality in slot.modalities)


def encoder_class(options: Options) -> type[Encoder[Any, Any, Any] | JointEncoder]:
    """The class that encodes as the options say; imports its module."""
    module, _, name = options.encoder.partition(":")
    found: type[Encoder[Any, Any, Any] | JointEncoder] = getattr(importlib.import_module(module), name)
    return found


def identity(options: Options) -> Identity:
    """What the encoder of these options is: pinned, or found out without loading it.

    Raises:
        ConfigurationError: it cannot be known in this process.
    """
    if isinstance(options, PinnedOptions) and options.pin:
        fingerprint, _, dimension = options.pin.partition(":")
        return Identity(dimension=int(dimension), fingerprint=fingerprint)
    return encoder_class(options).identify(options)


def build(options: Options, host: Host) -> Encoder[Any, Any, Any] | JointEncoder:
    """Loads an encoder.

    Raises:
        ConfigurationError: the optional part that encodes is not installed, the model's files cannot be used, or they
            are not those that are pinned.
    """
    kind: Any = encoder_class(options)
    encoder: Encoder[Any, Any, Any] | JointEncoder = kind(options, host)
    expected = identity(options)
    found = Identity(dimension=encoder.dimension, fingerprint=encoder.fingerprint)
    if found != expected:
        raise ConfigurationError(
            f"The model is {found.fingerprint}:{found.dimension}, and {expected.fingerprint}:{expected.dimension} is "
            "pinned",
            hint="Vectors of different models are never mixed: give the one that is pinned, or pin this one.",
        )
    return encoder


def tower(encoder: Encoder[Any, Any, Any] | JointEncoder, modality: str) -> Encoder[Any, Any, Any]:
    """What encodes a modality: the encoder itself, or a joint one's part."""
    return encoder.towers[modality] if isinstance(encoder, JointEncoder) else encoder
