"""The encoders: which there are, whether those in force work, and how fast they are."""

import inspect
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from penchant.cli import frequencies, vocabulary
from penchant.cli.frame import Json, command_group, print_json, print_table, say, settings_of, stderr, stdout
from penchant.encoders.options.base import InJoint
from penchant.encoders.options.presets import PRESETS
from penchant.encoders.options.speech import SpeechOptions
from penchant.errors import ConfigurationError, PenchantError
from penchant.section import Section
from penchant.settings import EncoderSettings, kinds

if TYPE_CHECKING:
    from penchant.encoders.bench import Measured
    from penchant.encoders.registry import Slot

__all__ = ["add_to"]

IN_FORCE = "in force"
TEXT, IMAGE, AUDIO, JOINT, SPEECH = "text", "image", "audio", "joint", "speech"
SECTIONS = (TEXT, IMAGE, AUDIO, JOINT, SPEECH)
STATUS_STYLES = {"ok": "green", "fail": "red", IN_FORCE: "bold"}
SEED = 1

commands = command_group(
    "encoders", "Say which encoders there are, check those in force, and measure how fast they are."
)


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of encoder.

    Attributes:
        setting: that it is a kind of.
        kind: its name there.
        what: it is, in a sentence.
        options: what each means.
        in_force: those that are set, where it is; None where another kind is.
    """

    setting: str
    kind: str
    what: str
    options: dict[str, str]
    in_force: dict[str, Any] | None


def add_to(app: typer.Typer) -> None:
    """Adds this family's commands."""
    frequencies.add_to(commands)
    vocabulary.add_to(commands)
    app.add_typer(commands)


@commands.command("list")
def show(ctx: typer.Context, *, as_json: Annotated[bool, Json] = False) -> None:
    """List the kinds of encoders with their options, and which are in force; then what the presets have.

    Example: `PENCHANT_ENCODERS__TEXT__KIND=hashing penchant encoders list`
    """
    settings = settings_of(ctx).encoders
    chosen = in_force(settings)
    found = [
        Kind(
            setting=f"encoders.{section}",
            kind=kind_of(kind),
            what=inspect.cleandoc(kind.__doc__ or "").partition("\n")[0],
            options={name: field.description or "" for name, field in kind.model_fields.items() if name != "kind"},
            in_force=values(chosen[section]) if isinstance(chosen.get(section), kind) else None,
        )
        for section in SECTIONS
        for kind in kinds(EncoderSettings.model_fields[section])
    ]
    presets = {
        name: {section: values(options) for section, options in in_force(EncoderSettings(preset=name)).items()}
        for name in PRESETS
    }
    if as_json:
        print_json({"kinds": msgspec.to_builtins(found), "presets": presets, "preset": settings.preset})
        return
    rows = []
    for one in found:
        rows.append(("" if one.in_force is None else IN_FORCE, one.setting, one.kind, one.what))
        rows += [("", "", f"  {name}", meaning) for name, meaning in one.options.items()]
    print_table(("", "setting", "kind", "what it is, and its options"), rows, styles=STATUS_STYLES)
    stdout().print()
    print_table(
        ("preset", *SECTIONS),
        [(name, *(summary(preset.get(section)) for section in SECTIONS)) for name, preset in presets.items()],
        styles={settings.preset: "bold"},
    )


def in_force(settings: EncoderSettings) -> dict[str, Section]:
    """What encodes each modality, and several together, by the section of the settings."""
    joint = settings.joint_in_force
    together = any(isinstance(options, InJoint) for options in settings.in_force.values())
    beside = {JOINT: joint if together else None, SPEECH: settings.speech}
    return {**settings.in_force, **{name: options for name, options in beside.items() if options is not None}}


def kind_of(kind: type[Section]) -> str:
    """The word that a kind has in the settings."""
    return str(kind.model_fields["kind"].default)


def values(options: Section) -> dict[str, Any]:
    """Options as they would be written in the settings, with those that differ from the default."""
    return {"kind": kind_of(type(options)), **options.model_dump(mode="json", exclude_defaults=True)}


def summary(chosen: Mapping[str, Any] | None) -> str:
    """Options in a line or two."""
    if chosen is None:
        return ""
    return "\n".join([str(chosen["kind"]), *(f"{name} = {value}" for name, value in chosen.items() if name != "kind")])


@commands.command()
def check(ctx: typer.Context, *, as_json: Annotated[bool, Json] = False) -> None:
    """Load each encoder in force and embed an example; say its dimension, fingerprint and time, and how to pin it.

    What a hub has and is not here yet is fetched. Exit code 1 where one cannot be used.

    Example: `penchant encoders check`
    """
    from penchant.encoders.registry import slots  # noqa: PLC0415  loads numpy

    settings = settings_of(ctx).encoders
    found = []
    for slot in slots(settings):
        with stderr().status(f"Loading what encodes {' and '.join(slot.modalities)} …"):
            found.append(checked(settings, slot))
    if settings.speech is not None:
        with stderr().status("Loading what writes down speech …"):
            found.append(checked_speech(settings, settings.speech))
    if as_json:
        print_json(found)
    else:
        print_table(
            ("status", "slice", "kind", "what was found, and what to do"),
            [(one["status"], one["slice"], one["kind"], one["detail"]) for one in found],
            styles=STATUS_STYLES,
        )
    if any(one["status"] == "fail" for one in found):
        raise typer.Exit(1)


def checked(settings: EncoderSettings, slot: "Slot") -> dict[str, Any]:
    """What a slot's encoder is and takes, or what is wrong with it."""
    # Seconds, of which the help of other commands need not wait.
    from penchant.encoders.batching import Passes  # noqa: PLC0415  as above
    from penchant.encoders.devices import host_of  # noqa: PLC0415  as above
    from penchant.encoders.embedder import example, inputs_of  # noqa: PLC0415  as above
    from penchant.encoders.registry import build, tower  # noqa: PLC0415  as above

    known = {"slice": slot.name, "modalities": slot.modalities, "kind": kind_of(type(slot.options))}
    try:
        started = time.perf_counter()
        host = host_of(settings)
        encoder = build(slot.options, host)
        loaded = time.perf_counter()
        for modality in slot.modalities:
            one = tower(encoder, modality)
            Passes(one, host)([one.prepare(given) for given in inputs_of(example(), modality)])
        embedded = time.perf_counter()
    except PenchantError as error:
        return {**known, "status": "fail", "detail": str(error)}
    except (ImportError, OSError, RuntimeError) as error:
        return {**known, "status": "fail", "detail": f"{type(error).__name__}: {error}"}
    pin = f"{encoder.fingerprint}:{encoder.dimension}"
    figures = {"load_s": round(loaded - started, 2), "example_ms": round((embedded - loaded) * 1_000, 1)}
    detail = (
        f"{encoder.dimension} components, fingerprint {encoder.fingerprint}, on {host.device}; loaded in "
        f"{figures['load_s']} s, an example in {figures['example_ms']} ms"
    )
    if "pin" in type(slot.options).model_fields:
        detail += f'\nfor processes without the model: encoders.{slot.name}.pin = "{pin}"'
    return {**known, "status": "ok", "detail": detail, "pin": pin, **figures}


def checked_speech(settings: EncoderSettings, options: SpeechOptions) -> dict[str, Any]:
    """What writes down speech is and takes, or what is wrong with it."""
    from penchant.encoders.devices import host_of  # noqa: PLC0415  as above
    from penchant.encoders.embedder import example  # noqa: PLC0415  as above
    from penchant.encoders.speech import SpeechToText  # noqa: PLC0415  as above

    known = {"slice": SPEECH, "modalities": (AUDIO,), "kind": kind_of(type(options))}
    try:
        started = time.perf_counter()
        host = host_of(settings)
        speech = SpeechToText(options, host)
        loaded = time.perf_counter()
        speech.forward([speech.prepare(one) for one in example().sounds])
        heard = time.perf_counter()
    except PenchantError as error:
        return {**known, "status": "fail", "detail": str(error)}
    except (ImportError, OSError, RuntimeError) as error:
        return {**known, "status": "fail", "detail": f"{type(error).__name__}: {error}"}
    figures = {"load_s": round(loaded - started, 2), "example_ms": round((heard - loaded) * 1_000, 1)}
    detail = (
        f"fingerprint {speech.fingerprint}, on {host.device}; loaded in {figures['load_s']} s, an example in "
        f'{figures["example_ms"]} ms\nfor processes without the model: encoders.speech.pin = "{speech.fingerprint}"'
    )
    return {**known, "status": "ok", "detail": detail, "pin": speech.fingerprint, **figures}


@commands.command()
def bench(
    ctx: typer.Context,
    *,
    texts: Annotated[
        Path | None, typer.Option(help="A file with a text a line; else made ones of mixed lengths.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="A folder of pictures, searched through; else drawn ones.")
    ] = None,
    count: Annotated[int, typer.Option(min=8, max=100_000, help="Texts in a round; a quarter of it pictures.")] = 512,
    rounds: Annotated[int, typer.Option(min=1, max=100)] = 5,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Measure the encoders of texts and pictures against bare forward passes, in the same rounds.

    Bare: batches without padding, prepared before. Beside them, where it is installed, sentence-transformers' `encode`;
    and the rate of a matrix product, for what the machine could do. What else the machine does at that time counts.

    Example: `penchant encoders bench --texts titles.txt`
    """
    from penchant.encoders.bench import measure, upstream_of  # noqa: PLC0415  loads what encodes

    settings = settings_of(ctx).encoders
    told = list(read_lines(texts)) if texts else mixed_texts(rounds * count)
    shown = read_files(images) if images else drawn_pictures(rounds * max(1, count // 4))
    found = []
    for modality, inputs in ((TEXT, told[: rounds * count]), (IMAGE, shown[: rounds * max(1, count // 4)])):
        with stderr().status(f"Encoding {modality}s, {rounds} rounds …"):
            upstream = upstream_of(settings) if modality == TEXT else None
            found.append(measure(settings, modality, inputs, rounds=rounds, upstream=upstream))
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    print_table(("input", "contestant", "per second", "embedder to it"), list(chain_rows(found)))
    say(f"matrix product meanwhile: {', '.join(f'{one.gflops:.0f}' for one in found)} GFLOP/s (float32)")


def chain_rows(found: Sequence["Measured"]) -> Iterator[tuple[str, str, str, str]]:
    """What was measured, contestant by contestant."""
    for one in found:
        for name, rate in one.rates.items():
            ratio = one.ratios.get(name)
            yield one.modality, name, f"{rate:.1f}", "" if ratio is None else f"{ratio:.2f}"


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a file that hold something."""
    return (line for line in (one.strip() for one in frequencies.lines(path)) if line)


def read_files(folder: Path) -> list[bytes]:
    """The files under a folder, in order of their names."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise ConfigurationError(f"There are no files under {folder}", hint="Name a folder with pictures.")
    return [path.read_bytes() for path in files]


def mixed_texts(count: int) -> list[str]:
    """Made texts of the lengths that catalogues and posts have: a third each titles, some sentences and whole plots."""
    from penchant.demo.catalogue import build_catalogue  # noqa: PLC0415  of the demo alone, otherwise

    items, _ = build_catalogue()
    titles, sentences = [item.title for item in items if item.title], [item.text for item in items if item.text]
    rng = random.Random(SEED)  # noqa: S311  a sample, no secret
    found: dict[str, None] = {}
    while len(found) < count:
        few = rng.choice((0, rng.randint(1, 3), rng.randint(5, 16)))
        text = " ".join(rng.sample(titles, 2)) if few == 0 else f"{rng.choice(titles)}."
        found[" ".join([text, *rng.sample(sentences, few)])] = None
    return list(found)


def drawn_pictures(count: int) -> list[bytes]:
    """Pictures of the demo's themes."""
    from penchant.demo.catalogue import THEMES  # noqa: PLC0415  of the demo alone, otherwise
    from penchant.demo.pictures import picture  # noqa: PLC0415  as above

    rng = random.Random(SEED)  # noqa: S311  a sample, no secret
    return [picture(THEMES[number % len(THEMES)].name, rng) for number in range(count)]
