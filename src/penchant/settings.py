"""Settings: `penchant.toml`, then `PENCHANT_*` from the environment, then command-line flags; the later wins.

Settings are frozen and complete: every part is handed the section that it needs and nothing reads the
environment behind its back. An unknown key, in the file or in the environment, is an error that names the
nearest known one, because a setting that is silently ignored is worse than none.
"""

import difflib
import hashlib
import os
import socket
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from penchant.encoders.options.audio import AudioOptions
from penchant.encoders.options.base import InJoint, JointOptions, Options
from penchant.encoders.options.image import ImageOptions
from penchant.encoders.options.joint import JointKinds
from penchant.encoders.options.presets import PRESETS, PresetName
from penchant.encoders.options.speech import SpeechOptions
from penchant.encoders.options.text import TextOptions
from penchant.errors import ConfigurationError
from penchant.section import Finite, Positive, Section, Share

__all__ = [
    "EncoderSettings",
    "FusionMode",
    "FusionSettings",
    "KafkaSettings",
    "ProfileSettings",
    "RecommendSettings",
    "Settings",
    "StoreSettings",
    "WorkerSettings",
    "load_settings",
]

PREFIX = "PENCHANT_"
CONFIG_VARIABLE = "PENCHANT_CONFIG"
TEST_PREFIX = "PENCHANT_TEST_"
# Settings that are mappings themselves: what follows their names is a key of them.
MAPPINGS = frozenset(
    f"{PREFIX}{name}" for name in ("KAFKA__OPTIONS", "PROFILE__WEIGHTS", "RECOMMEND__WEIGHTS", "RECOMMEND__RETURNING")
)
DEFAULT_FILE = Path("penchant.toml")
# The file that `load_settings` was told, on its way to the sources, which pydantic builds by itself.
NAMED_FILE: ContextVar[Path | None] = ContextVar("named_file", default=None)
# Likewise, whether what the file says stands against the environment.
FILE_STANDS: ContextVar[bool] = ContextVar("file_stands", default=False)

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

# Of a feature of the ranking. The learner publishes pins with what it learns, and far larger ones nobody would read.
Pin = Annotated[float, Field(ge=-1_000, le=1_000)]

MediaHost = Annotated[
    str, Field(pattern=r"^(\*|([a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?)$")
]
MediaBucket = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
FusionMode = Literal[
    "learned", "concat", "average", "weighted", "attention", "deep", "F", "U", "R", "UR-concat", "UR-average", "M"
]


class KafkaSettings(Section):
    """How to reach the broker, and how to behave towards it."""

    bootstrap_servers: str = Field(default="127.0.0.1:9092", description="host:port of brokers, with commas between")
    options: dict[str, str | int | float | bool] = Field(
        default={}, description="further librdkafka options for every client, such as security.protocol"
    )
    group_protocol: Literal["classic", "consumer"] = Field(
        default="classic", description="classic: static members; consumer: KIP-848"
    )
    session_timeout_ms: int = Field(default=10_000, ge=6_000, description="of static members (classic only)")
    transactions: bool = Field(
        default=True, description="false: publish at least once, for brokers that manage no transactions"
    )
    partitions: int = Field(default=6, ge=1, le=10_000, description="of every topic keyed by user")
    replication_factor: int = Field(default=1, ge=1, description="of topics that penchant creates")


class StoreSettings(Section):
    """Where items and profiles live."""

    url: str = Field(default="", description="of a Qdrant server; empty: the embedded engine under data_dir")
    api_key: SecretStr = Field(default=SecretStr(""), description="of the Qdrant server")
    grpc_port: int = Field(default=6334, ge=1, le=65_535, description="of the Qdrant server")
    timeout_s: Positive = Field(default=10.0, description="of a request to the Qdrant server")
    generation: str = Field(
        default="",
        max_length=32,
        pattern=r"^([a-z0-9][a-z0-9-]*)?$",
        description="ends the names of the collections that other encoders would fill otherwise (`penchant reindex`)",
    )


class FusionSettings(Section):
    """How modalities are fused: their shares in an item's content vector, renormalised over those that an item has.

    What an item says of itself shares what the graph leaves: 1 - `graph` where the item has a place in the graph.
    """

    mode: FusionMode = Field(
        default="learned",
        description="what lists are ranked by: all features by learned weights, or content alone, fused in this way",
    )
    deep_model: Path | None = Field(
        default=None, description="file of the model for mode deep: `penchant deep train` writes one"
    )
    text: Share = Field(default=0.5, description="share of the text slice")
    image: Share = Field(default=0.3, description="share of the image slice")
    audio: Share = Field(default=0.2, description="share of the audio slice")
    graph: Share = Field(default=0.4, description="share of the graph slice against all others together")
    graph_dimension: int = Field(
        default=64, ge=1, le=1_024, description="components of the graph slice; what is published is projected to it"
    )

    @property
    def shares(self) -> dict[str, float]:
        """The share of each slice, by its name."""
        return {"text": self.text, "image": self.image, "audio": self.audio, "graph": self.graph}


class ProfileSettings(Section):
    """What a profile keeps, and how much an action says about interest."""

    strong_limit: int = Field(default=192, ge=1, le=4_096, description="newest strong signals kept per user")
    weak_limit: int = Field(default=192, ge=1, le=4_096, description="newest weak signals kept per user")
    short_half_life_ms: int = Field(default=8 * HOUR_MS, ge=1, description="of interest right now")
    long_half_life_ms: int = Field(default=50 * DAY_MS, ge=1, description="of lasting interest")
    short_share_at: Positive = Field(
        default=3.0,
        description="k in rho = W_short / (W_short + k): recent weight that makes the mix half short",
    )
    seen_bits: int = Field(
        default=16_384, ge=64, le=65_536, multiple_of=64, description="of the filter of items seen, per user"
    )
    rating_low: Finite = Field(default=0.5, description="the lowest value of a `rate` action")
    rating_high: Finite = Field(default=5.0, description="the highest value of a `rate` action")
    weights: dict[str, Finite] = Field(default={}, description="overrides of the weights of actions, by name")
    cached_profiles: int = Field(default=20_000, ge=1, description="profiles kept in memory")
    cached_items: int = Field(default=20_000, ge=1, description="items kept in memory")
    item_cache_s: Positive = Field(default=30.0, description="how long an edited item may be seen as it was")


class RecommendSettings(Section):
    """What is published for a user, and how often."""

    count: int = Field(default=10, ge=1, le=100, description="items of a list")
    candidates: int = Field(
        default=50,
        ge=1,
        le=1_000,
        description="items that a list is chosen from: so many near ones, following, trending and new ones",
    )
    exact_items: int | None = Field(
        default=None,
        ge=0,
        description="listed items up to which a worker holds all in memory to search them (2 kB each with text alone);"
        " beyond, the store searches. Unless said: 500,000 of an embedded store, 50,000 of a server",
    )
    interval_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=1.0, description="at most one list per user in this time"
    )
    exploration: Share = Field(
        default=0.1, description="share of a list's places that go to new items, to see whether they are liked; 0: none"
    )
    relevance: Share = Field(default=0.8, description="lambda of maximal marginal relevance; 1: no diversity")
    calibrate_at: int = Field(
        default=1_000, ge=1, description="listed items at which content is centred and whitened by them, once for all"
    )
    reasons: int = Field(default=3, ge=0, le=16, description="past events named per recommended item")
    learn: bool = Field(
        default=True,
        description="rank by weights learned from what users like; false: by those to start with, and pins",
    )
    weights: dict[str, Pin] = Field(default={}, description="pins weights of the ranking's features, by name")
    returning: dict[str, Pin] = Field(
        default={}, description="likewise what is added to a weight for users who were away, half of it after 8 h"
    )


class EncoderSettings(Section):
    """What embeds each modality, and what it may read."""

    preset: PresetName = Field(default="lite", description="what encodes each modality that nothing is said of below")
    text: TextOptions | None = Field(
        default=None, description="what encodes texts: its kind and options (`penchant encoders list`)"
    )
    image: ImageOptions | None = Field(default=None, description="what encodes pictures, likewise")
    audio: AudioOptions | None = Field(default=None, description="what encodes sounds, likewise")
    joint: JointKinds | None = Field(
        default=None, description="what encodes those modalities into one slice whose kind is joint, likewise"
    )
    speech: SpeechOptions | None = Field(
        default=None, description="what writes down what is said in sounds, which joins the text; absent: nothing does"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="that models run on; auto: the fastest there is"
    )
    autocast: bool = Field(default=False, description="compute in half precision on cuda and mps")
    wait_ms: Annotated[float, Field(ge=0, le=1_000, allow_inf_nan=False)] = Field(
        default=2.0, description="how long less than a full batch may wait for what other events contain"
    )
    cache_bytes: int = Field(
        default=64 * 2**20, ge=0, description="for vectors of what was encoded lately; the same picture is encoded once"
    )
    media_roots: tuple[Path, ...] = Field(default=(), description="folders that file: references may point into")
    media_hosts: tuple[MediaHost, ...] = Field(
        default=(),
        description='hosts that https: references may name, each as host or host:port; "*": any, at global addresses',
    )
    media_networks: tuple[IPv4Network | IPv6Network, ...] = Field(
        default=(), description="networks beside the global ones that hosts named in media_hosts may lie in"
    )
    media_http: bool = Field(default=False, description="fetch from those hosts by http:, too, which anyone may alter")
    media_buckets: tuple[MediaBucket, ...] = Field(
        default=(), description="buckets that s3: references may name, read with the credentials that boto3 would find"
    )
    media_timeout_s: Positive = Field(
        default=10.0, description="of an attempt to fetch a picture or sound; there are three, with pauses between"
    )
    max_media_bytes: int = Field(default=8 * 2**20, ge=1, description="of one picture or sound")
    max_pixels: int = Field(default=40_000_000, ge=1, description="of one picture")
    max_audio_s: Positive = Field(default=60.0, description="how long a sound may be")
    threads: int = Field(
        default=0, ge=0, description="of the forward passes; 0: one less than there are cores, and at least one"
    )

    @property
    def in_force(self) -> dict[str, Options | InJoint]:
        """What encodes each modality, in the order of the slices: what is set, else what the preset has."""
        preset = PRESETS[self.preset]
        return {
            "text": self.text or preset.text,
            "image": self.image or preset.image,
            "audio": self.audio or preset.audio,
        }

    @property
    def joint_in_force(self) -> JointOptions | None:
        """What encodes several modalities into one slice: what is set, else what the preset has."""
        return self.joint or PRESETS[self.preset].joint

    @model_validator(mode="after")
    def check_joint(self) -> Self:
        """What is to be encoded together is, by something that can."""
        together = [modality for modality, options in self.in_force.items() if isinstance(options, InJoint)]
        joint = self.joint_in_force
        if together and joint is None:
            raise ValueError(f"the kind of {together[0]} is joint, and `joint` names no model")
        if joint is not None and not set(together) <= set(joint.modalities):
            raise ValueError(f"joint encodes {' and '.join(joint.modalities)}, not {' and '.join(together)}")
        if self.joint is not None and not together:
            raise ValueError('`joint` is set, and the kind of no modality is "joint"')
        return self


class WorkerSettings(Section):
    """How one worker process behaves."""

    instance_id: str = Field(
        default="", max_length=128, description="of this worker among all; empty: from host name and data_dir"
    )
    http_host: str = Field(default="127.0.0.1", description="where the worker answers questions")
    http_port: int = Field(default=8321, ge=0, le=65_535, description="likewise; 0: any free one")
    batch_records: int = Field(default=4_096, ge=1, le=100_000, description="taken from Kafka at a time (interest)")
    content_batch_records: int = Field(default=64, ge=1, le=10_000, description="likewise (content)")
    stop_timeout_s: Positive = Field(default=20.0, description="to finish and commit what is in hand when stopped")
    sweep_interval_s: Positive = Field(default=5.0, description="between looks at signals that wait for their item")


class Settings(BaseSettings):
    """All of penchant's settings. Build them with `load_settings`, which turns mistakes into clear errors."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid", validate_default=True
    )

    namespace: str = Field(
        default="",
        max_length=64,
        pattern=r"^([a-z0-9][a-z0-9-]*)?$",
        description="prefixes topics, consumer groups and collections",
    )
    data_dir: Path = Field(default=Path(".penchant"), description="of the embedded store and the local broker")
    id_key: SecretStr = Field(
        default=SecretStr("penchant"), description="keys the hashes that stand for user ids in the store"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="the least that is logged"
    )
    log_json: bool = Field(default=False, description="log JSON lines instead of text")
    kafka: KafkaSettings = KafkaSettings()
    store: StoreSettings = StoreSettings()
    encoders: EncoderSettings = EncoderSettings()
    fusion: FusionSettings = FusionSettings()
    profile: ProfileSettings = ProfileSettings()
    recommend: RecommendSettings = RecommendSettings()
    worker: WorkerSettings = WorkerSettings()

    def prefixed(self, name: str) -> str:
        """The name of a topic, group or collection within this namespace."""
        return f"{self.namespace}.{name}" if self.namespace else str(name)  # of an enumeration's member, its text

    def encoded(self, name: str) -> str:
        """The name of a collection whose vectors encoders make: each generation of the store has its own."""
        return f"{self.prefixed(name)}-{self.store.generation}" if self.store.generation else self.prefixed(name)

    @property
    def instance_id(self) -> str:
        """This worker's name among all: stable over restarts, so that a restart resumes its membership."""
        if self.worker.instance_id:
            return self.worker.instance_id
        folder = hashlib.blake2b(str(self.data_dir.resolve()).encode(), digest_size=4).hexdigest()
        name = f"{socket.gethostname()}-{folder}"
        return f"{name}-{self.store.generation}" if self.store.generation else name

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  the base class's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  the base class's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags over environment over file, or over file over environment."""
        file = settings_file()
        if file is None:
            return init_settings, env_settings
        of_file = TomlConfigSettingsSource(settings_cls, file)
        if FILE_STANDS.get():
            return init_settings, of_file, env_settings
        return init_settings, env_settings, of_file


def settings_file() -> Path | None:
    """The settings file in force: the one named, else `penchant.toml` in the working folder if it is there."""
    named = NAMED_FILE.get() or os.environ.get(CONFIG_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise ConfigurationError(f"The settings file {named} is not a file", hint=f"--config or {CONFIG_VARIABLE}")
        return Path(named)
    return DEFAULT_FILE if DEFAULT_FILE.is_file() else None


def load_settings(config: Path | None = None, *, file_stands: bool = False, **flags: Any) -> Settings:
    """Reads settings from file, environment and `flags`.

    Args:
        config: the file; None: the one that `PENCHANT_CONFIG` names, else `penchant.toml` if it is there.
        file_stands: the environment fills in what the file leaves open, secrets for instance, and overrides nothing.
        flags: values by field name; sections as mappings. They win over the environment and the file.

    Raises:
        ConfigurationError: a key is unknown, or a value is not of its type or out of its bounds.
    """
    check_environment(os.environ)
    named, stands = NAMED_FILE.set(config), FILE_STANDS.set(file_stands)
    try:
        return Settings(**flags)
    except ValidationError as error:
        raise ConfigurationError(
            "\n".join(explain(problem) for problem in error.errors(include_url=False, include_input=False)),
            hint="`penchant settings` shows every key with its default and meaning.",
        ) from None
    except ValueError as error:  # a TOML syntax error, or a section's value that is not JSON
        raise ConfigurationError(f"The settings cannot be read: {error}") from None
    finally:
        NAMED_FILE.reset(named)
        FILE_STANDS.reset(stands)


def check_environment(environment: Mapping[str, str]) -> None:
    """Refuses `PENCHANT_*` variables that are no setting: pydantic would ignore them in silence."""
    paths = (*setting_paths(Settings), *option_paths(Settings))
    known = {PREFIX + "__".join(path).upper() for path in paths} | {CONFIG_VARIABLE}
    for name in environment:
        if not name.startswith(PREFIX) or name.startswith(TEST_PREFIX) or name in known:
            continue
        mappings = (variable for variable in known if name.startswith(f"{variable}__"))
        if any(variable in MAPPINGS for variable in mappings):
            continue
        near = difflib.get_close_matches(name, sorted(known), 1)
        hint = f"Did you mean {near[0]}?" if near else "`penchant settings` shows every key."
        raise ConfigurationError(f"The environment variable {name} is no setting of penchant", hint=hint)


def setting_paths(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of `model` as a path of names: sections and their fields."""
    for name, field in model.model_fields.items():
        yield (*prefix, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from setting_paths(field.annotation, (*prefix, name))


def option_paths(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key below settings that are of one kind or another: the options of all kinds."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from option_paths(field.annotation, (*prefix, name))
        for kind in kinds(field):
            yield from ((*prefix, name, option) for option in kind.model_fields)


def kinds(field: FieldInfo) -> list[type[Section]]:
    """The kinds that a setting may be of; none where it is of one type."""

    def within(annotation: Any) -> Iterator[type[Section]]:
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield annotation
        for part in get_args(annotation):
            yield from within(part)

    return list(within(field.annotation)) if get_args(field.annotation) else []


def explain(problem: Mapping[str, Any]) -> str:
    """One validation problem in one line, with the nearest known key where the key is unknown."""
    key = ".".join(without_tags(problem["loc"]))
    if problem["type"] == "extra_forbidden":
        known = [".".join(path) for path in (*setting_paths(Settings), *option_paths(Settings))]
        if key in known:  # an option of another kind
            return f"{key}: no option of this kind; `penchant encoders list` shows those of each"
        near = difflib.get_close_matches(key, known, 1)
        return f"{key}: no such setting" + (f"; did you mean {near[0]}?" if near else "")
    return f"{key}: {problem['msg'].removeprefix('Value error, ')}"


def without_tags(place: tuple[str | int, ...]) -> Iterator[str]:
    """A place as a key: pydantic names, within a setting of several kinds, the kind that it took it for."""
    model: type[BaseModel] | None = Settings
    tags: dict[str | int, type[Section]] = {}
    for name in place:
        if name in tags:
            model, tags = tags[name], {}
            continue
        yield str(name)
        field = model.model_fields.get(str(name)) if model else None
        of_kinds = kinds(field) if field else []
        tags = {kind.model_fields["kind"].default: kind for kind in of_kinds}
        inner = field.annotation if field else None
        model = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
