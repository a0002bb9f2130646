"""Settings: the later source wins, what is wrong is said, and nothing is ignored in silence."""

import pytest
from pydantic import ValidationError

from penchant.errors import ConfigurationError
from penchant.settings import Settings, load_settings, setting_paths


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """A working folder without a settings file, and an environment without settings."""
    monkeypatch.chdir(tmp_path)
    for path in setting_paths(Settings):
        monkeypatch.delenv("PENCHANT_" + "__".join(path).upper(), raising=False)
    monkeypatch.delenv("PENCHANT_CONFIG", raising=False)
    return tmp_path


def test_without_any_source_the_defaults_hold():
    """A newcomer needs no settings at all."""
    settings = load_settings()
    assert settings.kafka.bootstrap_servers == "127.0.0.1:9092"
    assert settings.prefixed("clicks") == "clicks"


def test_flags_win_over_the_environment_and_that_over_the_file(nowhere, monkeypatch):
    """Each source overrides key by key; what a later one leaves out stays."""
    (nowhere / "penchant.toml").write_text(
        'namespace = "file"\n[kafka]\nbootstrap_servers = "file:1"\npartitions = 3\nsession_timeout_ms = 7000\n'
    )
    monkeypatch.setenv("PENCHANT_KAFKA__PARTITIONS", "4")
    monkeypatch.setenv("PENCHANT_KAFKA__BOOTSTRAP_SERVERS", "environment:1")
    settings = load_settings(kafka={"bootstrap_servers": "flag:1"})
    assert settings.kafka.bootstrap_servers == "flag:1"
    assert settings.kafka.partitions == 4
    assert settings.kafka.session_timeout_ms == 7_000
    assert settings.prefixed("clicks") == "file.clicks"


def test_a_file_can_be_named(nowhere, monkeypatch):
    """`config` wins over `PENCHANT_CONFIG`, which wins over the working folder's file."""
    for name in ("penchant", "variable", "argument"):
        (nowhere / f"{name}.toml").write_text(f'namespace = "{name}"')
    assert load_settings().namespace == "penchant"
    monkeypatch.setenv("PENCHANT_CONFIG", str(nowhere / "variable.toml"))
    assert load_settings().namespace == "variable"
    assert load_settings(nowhere / "argument.toml").namespace == "argument"
    assert load_settings().namespace == "variable"


def test_a_named_file_that_is_missing_is_an_error(nowhere, monkeypatch):
    """A mistyped path is not the same as no file."""
    with pytest.raises(ConfigurationError, match=r"missing\.toml"):
        load_settings(nowhere / "missing.toml")
    monkeypatch.setenv("PENCHANT_CONFIG", "missing.toml")
    with pytest.raises(ConfigurationError, match=r"missing\.toml"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('namespce = "a"', "did you mean namespace"),
        ("[kafka]\npartition = 3", "did you mean kafka.partitions"),
        ("[kafak]\npartitions = 3", "did you mean kafka"),
        ("[worker]\nport = 1", "worker.port: no such setting"),
    ],
)
def test_an_unknown_key_in_the_file_is_an_error(nowhere, text, said):
    """A key that would be ignored is refused, with the nearest known one."""
    (nowhere / "penchant.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        load_settings()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("PENCHANT_NAMESPCE", "PENCHANT_NAMESPACE"),
        ("PENCHANT_KAFKA__PARTITION", "PENCHANT_KAFKA__PARTITIONS"),
        ("PENCHANT_KAFKA_PARTITIONS", "PENCHANT_KAFKA__PARTITIONS"),
        ("PENCHANT_QQQQQQQQQQQQQQQQQQQQ", "penchant settings"),
        ("PENCHANT_KAFKA__PARTITIONS__DEEP", "no setting"),
    ],
)
def test_an_unknown_variable_in_the_environment_is_an_error(monkeypatch, name, said):
    """A variable of our prefix that is no setting is refused, with the nearest known one."""
    monkeypatch.setenv(name, "1")
    with pytest.raises(ConfigurationError, match=said):
        load_settings()


def test_variables_of_tests_and_of_open_mappings_are_let_through(monkeypatch):
    """Tests have a prefix of their own; options and weights have keys that no list knows."""
    monkeypatch.setenv("PENCHANT_TEST_QDRANT_URL", "http://127.0.0.1:6333")
    monkeypatch.setenv("PENCHANT_PROFILE__WEIGHTS__view", "0.25")
    monkeypatch.setenv("PENCHANT_RECOMMEND__WEIGHTS__text_long", "0.4")
    monkeypatch.setenv("PENCHANT_RECOMMEND__RETURNING", '{"popularity_30d": 0.1}')
    settings = load_settings()
    assert settings.profile.weights == {"view": 0.25}
    assert settings.recommend.weights == {"text_long": 0.4}
    assert settings.recommend.returning == {"popularity_30d": 0.1}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"kafka": {"partitions": 0}}, "kafka.partitions"),
        ({"kafka": {"session_timeout_ms": 100}}, "kafka.session_timeout_ms"),
        ({"namespace": "Upper_Case"}, "namespace"),
        ({"namespace": "a\n"}, "namespace"),
        ({"fusion": {"text": float("nan")}}, "fusion.text"),
        ({"profile": {"seen_bits": 65}}, "profile.seen_bits"),
        ({"profile": {"weights": {"like": float("inf")}}}, "profile.weights.like"),
        ({"recommend": {"weights": {"age": 1e7}}}, "recommend.weights.age"),
        ({"recommend": {"returning": {"age": float("nan")}}}, "recommend.returning.age"),
        ({"worker": {"http_port": 70_000}}, "worker.http_port"),
        ({"log_level": "loud"}, "log_level"),
        ({"encoders": {"media_hosts": ["https://example.org"]}}, "encoders.media_hosts.0"),
        ({"encoders": {"media_hosts": ["Example.org"]}}, "encoders.media_hosts.0"),
        ({"encoders": {"media_hosts": ["*.example.org"]}}, "encoders.media_hosts.0"),
        ({"encoders": {"media_networks": ["10.0.0.1/8"]}}, "encoders.media_networks.0"),
        ({"encoders": {"media_buckets": ["bucket/key"]}}, "encoders.media_buckets.0"),
    ],
)
def test_a_value_out_of_bounds_is_named(flags, said):
    """The error says which key, and never a traceback of the library below."""
    with pytest.raises(ConfigurationError, match=said):
        load_settings(**flags)


def test_what_is_no_toml_is_an_error(nowhere):
    """A syntax error in the file is an error of the settings."""
    (nowhere / "penchant.toml").write_text("namespace = ")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_settings()


def test_settings_are_frozen():
    """Nothing changes behind the back of a part that was handed its section."""
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.namespace = "other"
    with pytest.raises(ValidationError):
        settings.kafka.partitions = 7


def test_a_worker_keeps_its_name_over_restarts(nowhere):
    """The name among workers follows the data folder, unless it is given."""
    assert load_settings(data_dir=nowhere / "a").instance_id == load_settings(data_dir=nowhere / "a").instance_id
    assert load_settings(data_dir=nowhere / "a").instance_id != load_settings(data_dir=nowhere / "b").instance_id
    assert load_settings(worker={"instance_id": "w1"}).instance_id == "w1"


def test_generations_of_a_store_have_names_of_their_own(nowhere):
    """Their workers run side by side: collections that encoders fill differ, and so do the workers' names."""
    first, second = (load_settings(namespace="shop", store={"generation": name}) for name in ("", "v2"))
    assert (first.encoded("items"), second.encoded("items")) == ("shop.items", "shop.items-v2")
    assert first.instance_id != second.instance_id


def test_a_file_may_stand_against_the_environment(nowhere, monkeypatch):
    """Of another worker's settings what the file says counts; what it leaves out, secrets say, comes from outside."""
    (nowhere / "old.toml").write_text('data_dir = "old"\n[store]\nurl = "http://old"')
    monkeypatch.setenv("PENCHANT_DATA_DIR", "new")
    monkeypatch.setenv("PENCHANT_STORE__URL", "http://new")
    monkeypatch.setenv("PENCHANT_STORE__API_KEY", "secret")
    found = load_settings(nowhere / "old.toml", file_stands=True)
    assert (str(found.data_dir), found.store.url) == ("old", "http://old")
    assert found.store.api_key.get_secret_value() == "secret"
    assert load_settings(nowhere / "old.toml").store.url == "http://new"


def test_every_setting_says_what_it_means():
    """`penchant settings` has a meaning to show for each key."""
    silent = []
    for path in setting_paths(Settings):
        model = Settings
        for section in path[:-1]:
            model = model.model_fields[section].annotation
        field = model.model_fields[path[-1]]
        if not isinstance(field.annotation, type) or not hasattr(field.annotation, "model_fields"):
            silent += [] if field.description else [".".join(path)]
    assert silent == []
