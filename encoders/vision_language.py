"""A language model that sees: a text and the pictures beside it are read together, and become one vector.

Where two towers (CLIP) give a direction a modality, and the content is their mean, here the pictures stand in the
prompt: what a word means may depend on what is shown, and the other way round. The vector is the last token's state,
the only one that has seen everything, after the model's own chat template; that is how such models are trained to
embed, with an instruction as the system's turn.

Jiang et al., "VLM2Vec: Training Vision-Language Models for Massive Multimodal Embedding Tasks" (2025); Zhang et al.,
"GME: Improving Universal Multimodal Retrieval by Multimodal LLMs" (2025).
"""

import re
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.encoders.base import (
    Encoder,
    Host,
    Identity,
    JointEncoder,
    PartUndecodable,
    Query,
    Undecodable,
    Vectors,
    Whole,
    extra,
    fingerprint,
    unit_rows,
)
from penchant.encoders.checkpoint import Checkpoint, find_checkpoint, of_family
from penchant.encoders.image import pixels_of
from penchant.encoders.options.joint import VisionLanguageOptions
from penchant.encoders.pooled import CHARACTERS_PER_TOKEN, TOKEN_BUDGET
from penchant.encoders.pretrained import load_model, load_part
from penchant.errors import ConfigurationError

__all__ = ["VisionLanguage"]

VERSION = 1  # of what is done with the files
# Of the processor, beside what every checkpoint may have.
BESIDE = ("chat_template.jinja", "chat_template.json", "video_preprocessor_config.json")
MAX_ASPECT = 50  # times longer than wide: processors that scale the shorter side make the longer one as long
IMAGE = "image"
# What a prompt's tokens have an entry each in, and batches are padded in.
BY_TOKEN = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"})
IDS, MASK = "input_ids", "attention_mask"

Raw = NDArray[np.float32]


class Prompt(Struct, frozen=True):
    """A content as the model takes it.

    Attributes:
        tokens: how many.
        given: tensors by the names of the model's inputs; those of `BY_TOKEN` have shape (1, tokens).
    """

    tokens: int
    given: dict[str, Any]

    @property
    def shapes(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """What must be alike for prompts to share a forward pass: inputs, and shapes but for the first dimension."""
        return tuple((name, tuple(one.shape[1:])) for name, one in self.given.items() if name not in BY_TOKEN)


class Reader(Encoder[Whole, Prompt, Raw]):
    """Texts and pictures to one vector.

    Args:
        options: what to load, and how to use it.
        host: the device, and what pictures may be.

    Raises:
        ConfigurationError: the optional part that encodes is not installed, or the model cannot be loaded.
    """

    budget = TOKEN_BUDGET
    ahead = 8  # four pictures of 768 by 768 take 30 to 60 MB

    def __init__(self, options: VisionLanguageOptions, host: Host) -> None:
        folder = of_family(find_checkpoint(options, fetch=True, beside=BESIDE), options.families).folder
        known = identified(options)
        self.dimension, self.fingerprint = known.dimension, known.fingerprint
        self._options = options
        self._host = host
        self._torch = extra("torch")
        self._from_pixels = extra("PIL.Image").fromarray
        self._processor = load_part(folder, "AutoProcessor")
        # Its tokenizer sets truncation and padding anew on each call, which fails while another thread encodes.
        self._one_at_a_time = Lock()
        tokenizer = self._processor.tokenizer
        self._padding = int(tokenizer.pad_token_id or 0)
        self._reserved = reserved(self._processor)
        self._model = load_model(folder, dtype=getattr(self._torch, options.dtype)).to(host.device)
        try:
            self._prompt(options.instruction, self._text("a"), [])
        except Exception as error:  # whatever a template makes of what it was not written for
            raise ConfigurationError(
                f"Tokenizer or chat template in {folder} cannot be used ({type(error).__name__}: {str(error)[:200]})",
                hint="A fast tokenizer is needed, and where `instruction` is set a chat_template.jinja that knows a "
                "system's turn.",
            ) from error

    @classmethod
    def identify(cls, options: VisionLanguageOptions) -> Identity:
        """See `Encoder`."""
        return identified(options)

    def prepare(self, one: Whole) -> Prompt:
        """The prompt of a content: its pictures, then its text.

        Raises:
            PartUndecodable: a text holds nothing to read, or is not text ("empty", "corrupt"); a picture is none, as
                `decode_picture`, far longer than wide ("too-large"), or one too many ("too-many").
            Undecodable: the model's processor fails on it all ("unprocessable").
        """
        texts: list[str] = []
        pictures: list[Any] = []
        asks = False
        for part in one.parts:
            content = part[1]
            try:
                if isinstance(content, bytes):
                    if len(pictures) == self._options.max_pictures:
                        raise Undecodable(  # noqa: TRY301  told like whatever else is wrong with a part
                            f"{len(pictures)} pictures of a content are read, and this is one more", reason="too-many"
                        )
                    pictures.append(self._picture(content))
                else:
                    asks = asks or isinstance(content, Query)
                    texts.append(self._text(content.text if isinstance(content, Query) else content))
            except Undecodable as refusal:
                raise PartUndecodable(str(refusal), reason=refusal.reason, part=part) from None
        instruction = self._options.query_instruction if asks else None
        if instruction is None:
            instruction = self._options.instruction
        try:
            return self._prompt(instruction, "\n".join(texts), pictures)
        except Exception as error:  # noqa: BLE001  whatever a processor makes of a picture of a strange shape
            raise Undecodable(f"The model's processor fails ({type(error).__name__})", reason="unprocessable") from None

    def size(self, prepared: Prompt) -> int:
        """Tokens, a picture's among them."""
        return prepared.tokens

    def forward(self, batch: Sequence[Prompt]) -> Raw:
        """States of the last tokens: shape (contents, dimension)."""
        states = np.empty((len(batch), self.dimension), np.float32)
        alike: dict[tuple[tuple[str, tuple[int, ...]], ...], list[int]] = {}
        for place, prompt in enumerate(batch):
            alike.setdefault(prompt.shapes, []).append(place)
        for places in alike.values():
            states[places] = self._states([batch[place] for place in places])
        return states

    def finish(self, raw: Raw) -> Vectors:
        """Unit vectors: shape (contents, dimension)."""
        return unit_rows(raw)

    def _states(self, alike: Sequence[Prompt]) -> Raw:
        """Of prompts of the same shapes, in one pass. Padding goes to the right, where no token looks."""
        torch, longest = self._torch, max(prompt.tokens for prompt in alike)
        given: dict[str, Any] = {}
        for name in alike[0].given:
            parts = [prompt.given[name] for prompt in alike]
            if name in BY_TOKEN:
                filling = self._padding if name == IDS else 0
                pad = torch.nn.functional.pad
                parts = [pad(part, (0, longest - part.shape[1]), value=filling) for part in parts]
            together = torch.cat(parts).to(self._host.device)
            given[name] = together.to(self._model.dtype) if together.is_floating_point() else together
        with torch.inference_mode():
            states = self._model(**given, use_cache=False).last_hidden_state
            last = given[MASK].sum(1) - 1
            found: Raw = states[torch.arange(len(states), device=states.device), last].float().cpu().numpy()
        return found

    def _text(self, one: str) -> str:
        """What is read of a text: its first tokens, and none of those by which a prompt is written."""
        read = one[: CHARACTERS_PER_TOKEN * self._options.max_tokens]
        while self._reserved.search(read):  # what remains may make another one
            read = self._reserved.sub(" ", read)
        if not read.strip():
            raise Undecodable("The text has no characters to read", reason="empty")
        try:
            with self._one_at_a_time:
                found = self._processor.tokenizer(read, add_special_tokens=False, return_offsets_mapping=True)
        except Exception as error:  # noqa: BLE001  as of any text: a lone surrogate, which no UTF-8 can say
            raise Undecodable(f"The text cannot be tokenised ({type(error).__name__})", reason="corrupt") from None
        ends = [end for _, end in found["offset_mapping"]]
        return read if len(ends) <= self._options.max_tokens else read[: ends[self._options.max_tokens - 1]]

    def _picture(self, one: bytes) -> Any:
        """A picture for the processor, shrunk to the side that bounds its tokens."""
        side = self._options.picture_side
        pixels = pixels_of(one, self._host, side=side)
        shorter, longer = sorted(pixels.shape[:2])
        if longer > MAX_ASPECT * shorter:
            raise Undecodable(f"The image is more than {MAX_ASPECT} times longer than wide", reason="too-large")
        picture = self._from_pixels(pixels)
        picture.thumbnail((side, side))
        return picture

    def _prompt(self, instruction: str, text: str, pictures: Sequence[Any]) -> Prompt:
        """By the model's own template and processor."""
        content: list[dict[str, Any]] = [{"type": IMAGE, IMAGE: picture} for picture in pictures]
        if text:
            content.append({"type": "text", "text": text})
        turns = [{"role": "system", "content": [{"type": "text", "text": instruction}]}] if instruction else []
        with self._one_at_a_time:
            given = self._processor.apply_chat_template(
                [*turns, {"role": "user", "content": content}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
        return Prompt(tokens=given[IDS].shape[1], given=dict(given))


class Alone(Encoder[Any, Prompt, Raw]):
    """One modality by an encoder of several: a content of nothing else.

    Args:
        reader: the encoder.
        modality: which.
    """

    def __init__(self, reader: Reader, modality: str) -> None:
        self.dimension, self.fingerprint = reader.dimension, reader.fingerprint
        self.budget, self.ahead = reader.budget, reader.ahead
        self._reader = reader
        self._modality = modality

    @classmethod
    def identify(cls, options: VisionLanguageOptions) -> Identity:
        """That of the whole."""
        return identified(options)

    def prepare(self, one: str | bytes) -> Prompt:
        """See `Reader`."""
        return self._reader.prepare(Whole(parts=((self._modality, one),)))

    def prepare_query(self, one: str) -> Prompt:
        """See `Reader`."""
        return self._reader.prepare(Whole(parts=((self._modality, Query(one)),)))

    def size(self, prepared: Prompt) -> int:
        """Tokens."""
        return self._reader.size(prepared)

    def forward(self, batch: Sequence[Prompt]) -> Raw:
        """States of the last tokens: shape (inputs, dimension)."""
        return self._reader.forward(batch)

    def finish(self, raw: Raw) -> Vectors:
        """Unit vectors: shape (inputs, dimension)."""
        return self._reader.finish(raw)


class VisionLanguage(JointEncoder):
    """Texts and pictures, together or alone.

    Raises:
        ConfigurationError: the optional part that encodes is not installed, or the model cannot be loaded.
    """

    def __init__(self, options: VisionLanguageOptions, host: Host) -> None:
        self.whole = reader = Reader(options, host)
        self.dimension, self.fingerprint = reader.dimension, reader.fingerprint
        self.towers = {modality: Alone(reader, modality) for modality in options.modalities}

    @classmethod
    def identify(cls, options: VisionLanguageOptions) -> Identity:
        """See `Encoder`."""
        return identified(options)


def identified(options: VisionLanguageOptions) -> Identity:
    """What a model is, by its files and how it is used."""
    checkpoint = find_checkpoint(options, fetch=False, beside=BESIDE)
    used = (options.instruction, options.query_instruction, options.max_tokens, options.max_pictures)
    return Identity(
        dimension=dimension(checkpoint),
        fingerprint=fingerprint(
            *("vision-language", VERSION, checkpoint.content, *used),
            *(options.picture_side, MAX_ASPECT, options.dtype),
        ),
    )


def dimension(checkpoint: Checkpoint) -> int:
    """Components of a hidden state."""
    config = checkpoint.config
    text = config.get("text_config")
    found = (text if isinstance(text, dict) else {}).get("hidden_size") or config.get("hidden_size")
    if not isinstance(found, int) or found < 1:
        raise ConfigurationError(
            f"The config.json in {checkpoint.folder} does not say how many components a hidden state has",
            hint="Save the model once with AutoModelForImageTextToText.from_pretrained(...).save_pretrained.",
        )
    return found


def reserved(processor: Any) -> re.Pattern[str]:
    """What means something in prompts: in a stranger's text it would be a picture that is not there, or a turn."""
    special = [token.content for token in processor.tokenizer.added_tokens_decoder.values() if token.special]
    named = [token for name, token in vars(processor).items() if name.endswith("_token") and isinstance(token, str)]
    words = sorted({word for word in (*special, *named) if word.strip()}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, words)) or r"(?!)")
