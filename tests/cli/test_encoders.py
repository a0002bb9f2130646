"""`penchant encoders`: what there is, whether it works, how fast it is; and the settings that choose."""

import json

import pytest
from typer.testing import CliRunner

from penchant.cli import app
from penchant.cli.encoders import SECTIONS
from penchant.encoders.options.base import ModelOptions
from penchant.encoders.options.presets import PRESETS
from penchant.encoders.options.text import MiniLMOptions
from penchant.encoders.registry import encoder_class, slots
from penchant.errors import ConfigurationError
from penchant.settings import EncoderSettings, kinds, load_settings


@pytest.fixture
def encoders(tmp_path, monkeypatch):
    """Runs `penchant encoders` with arguments, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["encoders", *arguments])


def of_kinds():
    """All kinds of encoders, by setting."""
    return [(section, kind) for section in SECTIONS for kind in kinds(EncoderSettings.model_fields[section])]


@pytest.mark.parametrize(("section", "kind"), of_kinds())
def test_every_kind_has_a_class_and_every_option_a_meaning(section, kind):
    """A kind names a class that is there, and `penchant encoders list` has a meaning to show for each option."""
    assert all(field.description for name, field in kind.model_fields.items() if name != "kind")
    assert kind.__doc__
    if hasattr(kind, "encoder"):
        assert encoder_class(kind.model_construct()).identify


def test_list_has_every_kind_and_says_which_are_in_force(encoders, monkeypatch):
    """What the settings choose is marked, with the options that are set."""
    monkeypatch.setenv("PENCHANT_ENCODERS__TEXT__KIND", "hashing")
    monkeypatch.setenv("PENCHANT_ENCODERS__TEXT__DIMENSION", "64")
    found = json.loads(encoders("list", "--json").stdout)
    assert {(one["setting"], one["kind"]) for one in found["kinds"]} == {
        (f"encoders.{section}", kind.model_fields["kind"].default) for section, kind in of_kinds()
    }
    assert [one["in_force"] for one in found["kinds"] if one["in_force"]] == [
        {"kind": "hashing", "dimension": 64},
        {"kind": "colour-shape"},
        {"kind": "mfcc"},
    ]
    assert set(found["presets"]) == set(PRESETS)
    assert "encoders.text" in encoders("list").stdout


def test_check_loads_what_is_in_force_and_says_what_it_is(encoders):
    """Each slice has its dimension and fingerprint; without a failure the exit code is 0."""
    done = encoders("check", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [(one["slice"], one["status"]) for one in found] == [("text", "ok"), ("image", "ok"), ("audio", "ok")]
    assert [one["pin"] for one in found] == ["635d80eb4d68d115:384", "05d5da6b601b9372:288", "631e6402fb395439:90"]


def test_check_says_what_to_do_about_a_model_that_is_not_there(encoders, monkeypatch):
    """One that cannot be used is said with its remedy, and does not keep the others from being checked."""
    monkeypatch.setenv("PENCHANT_ENCODERS__TEXT__KIND", "transformers")
    monkeypatch.setenv("PENCHANT_ENCODERS__TEXT__MODEL", "/nowhere")
    done = encoders("check", "--json")
    assert done.exit_code == 1
    text, image, audio = json.loads(done.stdout)
    assert (text["status"], image["status"], audio["status"]) == ("fail", "ok", "ok")
    assert "/nowhere" in text["detail"]
    assert "pin" in text["detail"]


def test_bench_compares_with_bare_forward_passes(encoders, tmp_path):
    """Rates and ratios of texts and pictures, one's own or made ones."""
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"text number {number}, and {'more ' * (number % 7)}" for number in range(40)))
    done = encoders("bench", "--texts", str(texts), "--count", "8", "--rounds", "2", "--json")
    assert done.exit_code == 0, done.output
    text, image = json.loads(done.stdout)
    assert (text["modality"], text["inputs"], image["modality"], image["inputs"]) == ("text", 8, "image", 2)
    assert set(text["ratios"]) == {"bare", "sentence-transformers"}
    assert set(image["ratios"]) == {"bare"}
    assert all(rate > 0 for one in (text, image) for rate in (*one["rates"].values(), one["gflops"]))


@pytest.mark.parametrize(
    ("encoders", "said"),
    [
        ({"text": {"kind": "minilm", "dimension": 3}}, "encoders.text.dimension: no option of this kind"),
        ({"text": {"kind": "hashing", "dimensions": 3}}, "did you mean encoders.text.dimension"),
        ({"text": {"kind": "hashing", "dimension": 3}}, "encoders.text.dimension: .*greater than or equal"),
        ({"text": {"kind": "bert"}}, "encoders.text: .*'transformers'"),
        ({"text": {"kind": "joint"}}, "kind of text is joint, and `joint` names no model"),
        ({"joint": {"kind": "clip", "model": "m"}}, 'the kind of no modality is "joint"'),
        (
            {"audio": {"kind": "joint"}, "joint": {"kind": "clip", "model": "m"}},
            "joint encodes text and image, not audio",
        ),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(tmp_path, monkeypatch, encoders, said):
    """The error says which key, with the key that was written, and what to do."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=said):
        load_settings(encoders=encoders)


def test_options_come_from_file_and_environment_alike(tmp_path, monkeypatch):
    """Options of a kind merge like all settings; a variable that is nobody's option is refused."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "penchant.toml").write_text('[encoders.text]\nkind = "hashing"\ndimension = 32\n')
    assert load_settings().encoders.in_force["text"].dimension == 32
    monkeypatch.setenv("PENCHANT_ENCODERS__TEXT__DIMENSION", "48")
    assert load_settings().encoders.in_force["text"].dimension == 48
    monkeypatch.setenv("PENCHANT_ENCODERS__TEXT__DIMENSIONS", "48")
    with pytest.raises(ConfigurationError, match="PENCHANT_ENCODERS__TEXT__DIMENSION"):
        load_settings()


def test_the_default_is_the_first_set(tmp_path, monkeypatch):
    """Without a word in the settings nothing is downloaded, and stores made before stay valid."""
    monkeypatch.chdir(tmp_path)
    settings = load_settings().encoders
    assert settings.preset == "lite"
    assert settings.in_force["text"] == MiniLMOptions()


@pytest.mark.parametrize("name", PRESETS)
def test_presets_name_models_for_good(name):
    """A preset means the same models for everybody: what comes from a hub comes at a commit."""
    settings = EncoderSettings(preset=name)
    for options in (*settings.in_force.values(), settings.joint_in_force):
        if isinstance(options, ModelOptions):
            assert len(options.revision) == 40
    assert [modality for slot in slots(settings) for modality in slot.modalities] == ["text", "image", "audio"]


def test_a_preset_is_a_start_that_single_choices_override():
    """What is set counts, and the preset has the rest."""
    settings = EncoderSettings(preset="joint", audio={"kind": "mfcc"})
    assert [(slot.name, slot.options.kind) for slot in slots(settings)] == [("joint", "clip"), ("audio", "mfcc")]
    apart = EncoderSettings(preset="joint", text={"kind": "minilm"}, image={"kind": "colour-shape"})
    assert [slot.name for slot in slots(apart)] == ["text", "image", "audio"]
