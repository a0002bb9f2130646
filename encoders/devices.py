"""What encoders run on: chosen by the settings among what torch finds."""

from penchant.encoders.base import Decoder, Host, extra
from penchant.errors import ConfigurationError
from penchant.settings import EncoderSettings

__all__ = ["host_of"]

CPU = "cpu"


def host_of(settings: EncoderSettings, *, decoder: Decoder | None = None) -> Host:
    """What encoders are to run on, and within.

    Args:
        settings: say so.
        decoder: of what strangers send; None: the thread that prepares decodes.

    Raises:
        ConfigurationError: the device that is set is not there.
    """
    return Host(
        device=device(settings.device),
        autocast=settings.autocast,
        max_pixels=settings.max_pixels,
        max_audio_s=settings.max_audio_s,
        decoder=decoder,
    )


def device(wanted: str) -> str:
    """What forward passes run on.

    Args:
        wanted: "auto" for the fastest that is there, or a device by name.
    """
    torch = extra("torch")
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), CPU: True}
    if wanted == "auto":
        return next(name for name, is_there in there.items() if is_there)
    if not there[wanted]:
        raise ConfigurationError(
            f"encoders.device is {wanted}, and torch {torch.__version__} finds none",
            hint="Set it to auto or cpu, or install the build of torch for that device.",
        )
    return wanted
