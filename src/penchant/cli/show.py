"""What is set, what is agreed, and whether it works: settings, topics, asyncapi, doctor."""

import json
import re
from typing import Annotated, Any

import typer
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from penchant.cli.frame import Json, command_group, print_json, print_table, settings_of, stderr, stdout
from penchant.settings import Settings, setting_paths

__all__ = ["add_to"]

HIDDEN = "**********"
SECRET_OPTION = re.compile(r"password|secret|key|token|jaas|oauthbearer\.config", re.IGNORECASE)
CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+(?=@)")

STATUS_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}

topics = command_group("topics", "Create the topics, or check that they are as they should be.")


def add_to(app: typer.Typer) -> None:
    """Adds this family's commands."""
    app.command("settings")(show_settings)
    app.command("asyncapi")(show_contract)
    app.command("doctor")(doctor)
    app.add_typer(topics)


def show_settings(ctx: typer.Context, *, as_json: Annotated[bool, Json] = False) -> None:
    """Show every setting: its key, the value in force, its default and what it means.

    Example: `PENCHANT_KAFKA__PARTITIONS=12 penchant settings`
    """
    settings = settings_of(ctx)
    rows = []
    for path in setting_paths(Settings):
        field, value = look_up(settings, path)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            continue
        default = field.get_default(call_default_factory=True, validated_data={})
        rows.append((".".join(path), shown(path, value), shown(path, default), field.description or ""))
    if as_json:
        print_json({key: {"value": value, "default": default, "meaning": text} for key, value, default, text in rows})
        return
    changed = {key: "bold" for key, value, default, _ in rows if value != default}
    print_table(("key", "value", "default", "meaning"), rows, styles=changed)


def look_up(settings: Settings, path: tuple[str, ...]) -> tuple[FieldInfo, Any]:
    """A setting's description and value."""
    *sections, name = path
    holder: BaseModel = settings
    for section in sections:
        holder = getattr(holder, section)
    return type(holder).model_fields[name], getattr(holder, name)


def shown(path: tuple[str, ...], value: Any) -> str:
    """A value as a person may see it: no secret, and no credentials within addresses."""
    if isinstance(value, SecretStr):
        return HIDDEN if value.get_secret_value() else ""
    if path == ("kafka", "options"):
        value = {name: HIDDEN if SECRET_OPTION.search(name) else option for name, option in value.items()}
    if isinstance(value, BaseModel):  # of one kind among several
        value = {"kind": value.model_dump()["kind"], **value.model_dump(mode="json", exclude_defaults=True)}
    if isinstance(value, dict | bool):
        return json.dumps(value)
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return CREDENTIALS.sub(HIDDEN, str(value))


@topics.command("create")
def create(ctx: typer.Context, *, as_json: Annotated[bool, Json] = False) -> None:
    """Create the topics that are missing; leave the others as they are.

    Example: `penchant topics create`
    """
    from penchant.streams.topics import create_topics, topic_specs  # noqa: PLC0415  loads Kafka's client

    settings = settings_of(ctx)
    created = create_topics(settings)
    if as_json:
        print_json({"created": created})
        return
    for name in created:
        stdout().print(f"created {name}")
    stdout().print(f"{len(created)} created, {len(topic_specs(settings)) - len(created)} were there")


@topics.command("check")
def check(ctx: typer.Context, *, as_json: Annotated[bool, Json] = False) -> None:
    """Compare the broker's topics with what they should be; exit code 1 where they differ.

    Example: `penchant topics check`
    """
    from penchant.streams.topics import check_topics  # noqa: PLC0415  loads Kafka's client

    findings = check_topics(settings_of(ctx))
    if as_json:
        print_json([{"topic": one.topic, "problem": one.problem, "remedy": one.remedy} for one in findings])
    elif findings:
        print_table(("topic", "problem", "remedy"), [(one.topic, one.problem, one.remedy) for one in findings])
    else:
        stdout().print("all topics are as they should be")
    if findings:
        raise typer.Exit(1)


def show_contract(ctx: typer.Context) -> None:
    """Print the wire contract as AsyncAPI 3.0: topics, keys, headers and the schema of every value.

    JSON, which YAML parsers read too. Example: `penchant asyncapi > asyncapi.json`
    """
    from penchant.streams.asyncapi import contract  # noqa: PLC0415  loads Kafka's client

    typer.echo(json.dumps(contract(settings_of(ctx)), indent=2))


def doctor(ctx: typer.Context, *, as_json: Annotated[bool, Json] = False) -> None:
    """Check Python, broker, topics, store, encoders and worker, and say what to fix; exit code 1 on a failure.

    Example: `penchant doctor`
    """
    from penchant.doctor import examine  # noqa: PLC0415  some checks load large libraries

    settings = settings_of(ctx)
    with stderr().status("Looking around …"):
        found = list(examine(settings))
    if as_json:
        print_json(
            [{"part": one.part, "status": one.status, "detail": one.detail, "remedy": one.remedy} for one in found]
        )
    else:
        rows = [(one.status, one.part, "\n".join(filter(None, (one.detail, one.remedy)))) for one in found]
        print_table(("status", "part", "what was found, and what to do"), rows, styles=STATUS_STYLES)
    if any(one.status == "fail" for one in found):
        raise typer.Exit(1)
