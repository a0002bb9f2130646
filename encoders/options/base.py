"""What the options of all kinds of encoders have in common."""

from typing import ClassVar, Literal

from pydantic import Field

from penchant.section import Section

__all__ = ["InJoint", "JointOptions", "ModelOptions", "Options", "PinnedOptions"]


class Options(Section):
    """Options of one kind of encoder; its `kind` is a literal of its own.

    Attributes:
        encoder: the class that it configures, as "module:name". It is imported when an encoder is asked for its
            identity or built: the module must import without the optional part.
    """

    encoder: ClassVar[str]


class PinnedOptions(Options):
    """Options of a kind that reads files, which not every process has."""

    pin: str = Field(
        default="",
        pattern=r"^([0-9a-f]{16}:[1-9][0-9]{0,4})?$",
        description="fingerprint:dimension as `penchant encoders check` says them, for processes without the files",
    )


class ModelOptions(PinnedOptions):
    """Options of a kind whose files are a model's."""

    model: str = Field(min_length=1, description="a folder, or a model's name on the Hugging Face hub: owner/name")
    revision: str = Field(
        default="",
        pattern=r"^([0-9a-f]{40})?$",
        description="commit of the hub's model: demanded, for whoever owns it may change it",
    )


class JointOptions(ModelOptions):
    """Options of a kind that encodes several modalities into one slice.

    Attributes:
        modalities: those that it can encode.
        families: of models, by the `model_type` in their configuration.
    """

    modalities: ClassVar[tuple[str, ...]]
    families: ClassVar[frozenset[str]]


class InJoint(Section):
    """This modality is encoded by `encoders.joint`, and shares its slice."""

    kind: Literal["joint"] = "joint"
