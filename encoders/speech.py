"""What is said in a sound, as text: it joins the text of the content that the sound belongs to.

Two kinds of models of transformers: those that write a transcript token by token (Whisper, Radford et al., 2022), and
those that spell a letter or none at each step of time (CTC, Graves et al., 2006), where the likeliest is taken. A long
sound is heard in windows, alike in length, and their transcripts follow each other: a word at a seam may be lost.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penchant.encoders.base import Fingerprint, Host, extra, fingerprint
from penchant.encoders.checkpoint import Checkpoint, find_checkpoint
from penchant.encoders.listening import Windows, heard, windows
from penchant.encoders.options.speech import SpeechOptions
from penchant.encoders.pretrained import load_model, load_part
from penchant.errors import ConfigurationError

__all__ = ["SpeechToText", "identify_speech"]

GENERATION = "generation_config.json"
# Model types whose decoder writes the transcript; any other is taken for one that spells.
WRITERS = frozenset({"whisper", "speech_to_text", "moonshine"})


class SpeechToText:
    """Encoded sounds (bytes) to transcripts; prepared and forwarded as by an encoder.

    Raises:
        ConfigurationError: the optional part that encodes is not installed, or the model cannot be loaded.
    """

    def __init__(self, options: SpeechOptions, host: Host) -> None:
        self._options = options
        self._host = host
        self._torch = extra("torch")
        checkpoint = found(options, fetch=True)
        self.fingerprint = identify_speech(options.model_copy(update={"pin": ""}))
        if options.pin not in ("", self.fingerprint):
            raise ConfigurationError(
                f"The model of speech is {self.fingerprint}, and {options.pin} is pinned",
                hint="Vectors of texts with other transcripts are never mixed: give that model, or pin this one.",
            )
        self._extractor = load_part(checkpoint.folder, "AutoFeatureExtractor")
        self._tokenizer = load_part(checkpoint.folder, "AutoTokenizer")
        self._writes = checkpoint.config.get("model_type") in WRITERS
        kind = "AutoModelForSpeechSeq2Seq" if self._writes else "AutoModelForCTC"
        self._model = load_model(checkpoint.folder, kind).to(host.device)
        self._name = self._extractor.model_input_names[0]
        if self._writes:  # set once: passed with each call, transformers warns of them each time
            self._model.generation_config.update(
                do_sample=False, num_beams=1, max_length=None, max_new_tokens=options.max_tokens
            )

    def prepare(self, one: bytes) -> Windows:
        """A sound's windows as the model takes them.

        Raises:
            Undecodable: the sound cannot be used, as `penchant.encoders.listening.heard`.
        """
        rate = int(self._extractor.sampling_rate)
        parts = windows(heard(one, self._host, rate), rate, self._options.window_s)
        return [np.asarray(self._taken(part, rate), np.float32) for part in parts]

    def forward(self, batch: Sequence[Windows]) -> list[str]:
        """A transcript for each sound; empty where nothing is said."""
        with self._torch.inference_mode():
            return [" ".join(filter(None, (self._transcript(window) for window in one))) for one in batch]

    def _taken(self, part: NDArray[np.float32], rate: int) -> Any:
        return self._extractor(part, sampling_rate=rate, return_tensors="np")[self._name][0]

    def _transcript(self, window: NDArray[np.float32]) -> str:
        """One window at a time: it is thousands of steps already, and padding would change what a model spells."""
        given = {self._name: self._torch.from_numpy(window)[None].to(self._host.device)}
        if self._writes:
            language = {"language": self._options.language} if self._options.language else {}
            ids = self._model.generate(**given, **language)[0]
        else:
            ids = self._model(**given).logits[0].argmax(dim=-1)
        # What spells needs its blanks until repeated letters are one.
        return str(self._tokenizer.decode(ids, skip_special_tokens=self._writes)).strip()


def identify_speech(options: SpeechOptions) -> Fingerprint:
    """Stands for everything that a transcript depends on; known without loading the model.

    Raises:
        ConfigurationError: it cannot be known here.
    """
    if options.pin:
        return options.pin
    parts = (options.language, options.max_tokens, options.window_s)
    return fingerprint("speech", 1, found(options, fetch=False).content, *parts)


def found(options: SpeechOptions, *, fetch: bool) -> Checkpoint:
    """The model's files."""
    return find_checkpoint(options, fetch=fetch, beside=(GENERATION, "normalizer.json"))
