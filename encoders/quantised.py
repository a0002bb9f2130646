"""Models with weights of eight bits, for processors: faster, and not quite the same.

Weights are quantised once, by output channel, and activations as they come (Jacob et al., "Quantization and Training of
Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018). Layers that reduce, such as the second of each
feed-forward block, stay as they are: a few of their inputs are far larger than all others, which eight bits cannot
hold beside those.
"""

import warnings
from typing import Any

from penchant.encoders.base import extra
from penchant.encoders.devices import CPU
from penchant.errors import ConfigurationError

__all__ = ["quantised"]


def quantised(model: Any, device: str) -> Any:
    """A copy of a model of float32 whose linear layers, but those that reduce, compute with eight bits.

    Raises:
        ConfigurationError: the device is no processor.
    """
    if device != CPU:
        raise ConfigurationError(
            f"Models of int8 run on processors alone, and the device is {device}",
            hint="Set encoders.device to cpu, or the encoder's dtype to float32 or float16.",
        )
    linear = extra("torch.nn").Linear
    quantization = extra("torch.ao.quantization")
    layers = {
        name: quantization.per_channel_dynamic_qconfig
        for name, module in model.named_modules()
        if isinstance(module, linear) and module.in_features <= module.out_features
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the module has a successor, which is not part of torch
        return quantization.quantize_dynamic(model, layers, dtype=extra("torch").qint8)
