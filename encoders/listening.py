"""Sounds by models that were trained to listen: their features, averaged over time.

wav2vec 2.0, HuBERT, WavLM and AST, by transformers or by the pipelines of torchaudio. A sound is brought to the rate
that the model knows. One longer than the window is cut into windows of one length (but for a sample), as few as
possible, so that each counts the same in the mean of their features; nothing is padded except what is shorter than the
models' own shortest step, because padding would enter the mean.

Baevski et al., "wav2vec 2.0" (2020); Hsu et al., "HuBERT" (2021); Gong et al., "AST" (2021).
"""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penchant.encoders.audio import Samples, resampled, sound_of, steady
from penchant.encoders.base import Encoder, Host, Identity, Vectors, extra, fingerprint, unit_rows
from penchant.encoders.checkpoint import find_checkpoint
from penchant.encoders.models import contents, model_folder
from penchant.encoders.options.audio import ListeningOptions, TorchaudioOptions, TransformersAudioOptions
from penchant.encoders.pretrained import load_model, load_part
from penchant.errors import ConfigurationError

__all__ = ["TorchaudioPipeline", "TransformersAudio", "heard", "windows"]

SHORTEST_S = 0.1  # the models' first layers need 25 ms
USUAL_RATE_HZ = 16_000

Windows = list[NDArray[np.float32]]


class Listener(Encoder[bytes, Windows, NDArray[np.float32]]):
    """Encoded sounds (bytes) to as many components as the model's hidden states have."""

    budget = 60 * USUAL_RATE_HZ  # samples: a minute of sound
    rate: int

    def __init__(self, options: ListeningOptions, host: Host) -> None:
        self._window_s = options.window_s
        self._host = host
        self._torch = extra("torch")

    def prepare(self, one: bytes) -> Windows:
        """A sound's windows as the model takes them.

        Raises:
            Undecodable: the sound cannot be used ("empty", "unsupported-format", "too-large", "corrupt",
                "not-finite", "silent").
        """
        return [self.taken(window) for window in windows(heard(one, self._host, self.rate), self.rate, self._window_s)]

    def size(self, prepared: Windows) -> int:
        """Numbers that the model is given."""
        return sum(window.size for window in prepared)

    def forward(self, batch: Sequence[Windows]) -> NDArray[np.float32]:
        """Features averaged over time, and over a sound's windows: shape (sounds, dimension).

        Windows of one length make a forward pass, so that none is padded.
        """
        sums = np.zeros((len(batch), self.dimension))
        by_shape: dict[tuple[int, ...], list[tuple[int, NDArray[np.float32]]]] = {}
        for place, of_sound in enumerate(batch):
            for window in of_sound:
                by_shape.setdefault(window.shape, []).append((place, window))
        with self._torch.inference_mode():
            for alike in by_shape.values():
                stacked = self._torch.from_numpy(np.stack([window for _, window in alike])).to(self._host.device)
                features = self.features(stacked).float().cpu().numpy()
                np.add.at(sums, [place for place, _ in alike], features)
        means: NDArray[np.float64] = sums / np.array([[len(of_sound)] for of_sound in batch])
        return means.astype(np.float32)

    def finish(self, raw: NDArray[np.float32]) -> Vectors:
        """Unit vectors: shape (sounds, dimension)."""
        return unit_rows(raw)

    @abstractmethod
    def taken(self, window: Samples) -> NDArray[np.float32]:
        """A window, shape (samples,), as the model takes it; runs in any thread."""

    @abstractmethod
    def features(self, stacked: Any) -> Any:
        """Pooled features, shape (windows, dimension), of windows of one shape, on the device."""


class TransformersAudio(Listener):
    """An audio model of transformers.

    Raises:
        ConfigurationError: the optional part that encodes is not installed, or the model cannot be loaded.
    """

    def __init__(self, options: TransformersAudioOptions, host: Host) -> None:
        super().__init__(options, host)
        folder = find_checkpoint(options, fetch=True).folder
        found = self.identify(options)
        self.dimension, self.fingerprint = found.dimension, found.fingerprint
        self._pooler = options.pooling == "pooler"
        self._extractor = load_part(folder, "AutoFeatureExtractor")
        self.rate = int(self._extractor.sampling_rate)
        self._model = load_model(folder).to(host.device)
        self._name = self._model.main_input_name

    @classmethod
    def identify(cls, options: TransformersAudioOptions) -> Identity:
        """See `Encoder`."""
        checkpoint = find_checkpoint(options, fetch=False)
        hidden = checkpoint.config.get("hidden_size")
        if not isinstance(hidden, int) or hidden < 1:
            raise ConfigurationError(
                f"The config.json of {options.model} has no hidden_size",
                hint="Is it an audio model whose hidden states can be averaged (wav2vec 2.0, HuBERT, WavLM, AST)?",
            )
        content = (checkpoint.content, options.pooling, options.window_s, SHORTEST_S)
        return Identity(dimension=hidden, fingerprint=fingerprint("transformers-audio", 1, *content))

    def taken(self, window: Samples) -> NDArray[np.float32]:
        """As the model's own feature extractor gives it: samples of mean 0 and deviation 1, or a spectrogram."""
        given = self._extractor(window, sampling_rate=self.rate, return_tensors="np")
        found: NDArray[np.float32] = given[self._name][0].astype(np.float32, copy=False)
        return found

    def features(self, stacked: Any) -> Any:
        """The mean of the last hidden states, or what the model pools."""
        output = self._model(**{self._name: stacked})
        return output.pooler_output if self._pooler else output.last_hidden_state.mean(dim=1)


class TorchaudioPipeline(Listener):
    """A pipeline of torchaudio, from the file that it publishes.

    That file is no safetensors; it is read as tensors alone (`weights_only`), which runs nothing.

    Raises:
        ConfigurationError: the optional part that encodes is not installed, or there is no such pipeline or file.
    """

    def __init__(self, options: TorchaudioOptions, host: Host) -> None:
        super().__init__(options, host)
        bundle = find_bundle(options)
        file = find_weights(options, bundle, fetch=True)
        found = self.identify(options)
        self.dimension, self.fingerprint = found.dimension, found.fingerprint
        self.rate = int(bundle.sample_rate)
        try:
            loading = {"model_dir": str(file.parent), "map_location": "cpu", "weights_only": True}
            self._model = bundle.get_model(dl_kwargs=loading).eval().to(host.device)
        except Exception as error:  # whatever torch makes of a file that is not what it seems
            raise ConfigurationError(
                f"{file} cannot be loaded ({type(error).__name__})",
                hint=f"It should be the file that torchaudio publishes for {options.pipeline}.",
            ) from error

    @classmethod
    def identify(cls, options: TorchaudioOptions) -> Identity:
        """See `Encoder`. What a pipeline is, torchaudio alone can say: it must be installed."""
        bundle = find_bundle(options)
        file = find_weights(options, bundle, fetch=False)
        content = (options.pipeline, contents(options, file.parent, (file.name,)), options.window_s, SHORTEST_S)
        dimension = int(bundle._params["encoder_embed_dim"])  # noqa: SLF001  nothing else says it without the weights
        return Identity(dimension=dimension, fingerprint=fingerprint("torchaudio", 1, *content))

    def taken(self, window: Samples) -> NDArray[np.float32]:
        """As it is: where a pipeline wants it normalised, its model does so."""
        return window

    def features(self, stacked: Any) -> Any:
        """The mean of the last layer's features."""
        # One at a time where the pipeline normalises, for it takes all that it is given as one sound.
        alone = [self._model.extract_features(window[None])[0][-1].mean(dim=1) for window in stacked]
        return self._torch.cat(alone)


def find_bundle(options: TorchaudioOptions) -> Any:
    """The pipeline that options name.

    Raises:
        ConfigurationError: there is none, or none that gives features.
    """
    pipelines = extra("torchaudio.pipelines")
    bundle = getattr(pipelines, options.pipeline, None)
    if not isinstance(bundle, pipelines.Wav2Vec2Bundle):
        known = sorted(
            name for name in dir(pipelines) if isinstance(getattr(pipelines, name), pipelines.Wav2Vec2Bundle)
        )
        raise ConfigurationError(
            f"torchaudio has no pipeline {options.pipeline} that gives features",
            hint=f"Those that do: {', '.join(known)}",
        )
    return bundle


def find_weights(options: TorchaudioOptions, bundle: Any, *, fetch: bool) -> Path:
    """The file of a pipeline's weights.

    Raises:
        ConfigurationError: it is not there.
    """
    name = Path(bundle._path).name  # noqa: SLF001  nothing else says it
    file = model_folder(options, (name,), fetch=fetch) / name
    if not file.is_file():
        raise ConfigurationError(
            f"{file.parent} has no {name}",
            hint=f"torchaudio.pipelines.{options.pipeline}.get_model() fetches it, into torch's folder of checkpoints.",
        )
    return file


def heard(data: bytes, host: Host, rate: int) -> Samples:
    """A sound as a player gives it: one channel at a rate in Hz, within -1 to 1, shape (samples,).

    Raises:
        Undecodable: as `sound_of`; or there is nothing to hear ("not-finite", "silent").
    """
    mono, own_rate = sound_of(data, host)
    steady(mono)  # refuses what cannot be heard; how loud a sound is says something to models that listen
    return resampled(np.clip(mono, -1, 1).astype(np.float32), own_rate, rate)


def windows(samples: Samples, rate: int, longest_s: float) -> list[Samples]:
    """Samples, shape (samples,), cut into as few parts as are no longer than asked, alike in length.

    What is shorter than the models' first layers need is continued with silence.
    """
    shortest = int(SHORTEST_S * rate)
    if len(samples) < shortest:
        samples = np.pad(samples, (0, shortest - len(samples)))
    return np.array_split(samples, -(-len(samples) // int(longest_s * rate)))
