"""Settings from where people give them: the command line, over the environment, over a configuration file, over the
defaults; and which of them go together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from dhmd.untrusted import Untrusted, quoted, read_yaml_text, shown
from dhmd.yaml_config import explain, read_config
from realtime.capture.camera import is_camera
from realtime.capture.network import ENCRYPTED, Trust, is_stream, masked
from realtime.errors import SettingsInvalid
from realtime.mqtt.broker import BrokerAccess, named_broker
from realtime.settings import BROWSER, RunSettings

ENVIRONMENT: Final = "DHMD_"
STREAMS: Final = "streams."
ONES_OWN: Final = ("source", "microphone", "stream", "estimates", "record", "record_dir", "participant", "notes")
"""Settings that no two streams can have in common."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Values from one place. origin: the place, as people know it, to which `of` adds the key."""

    values: Mapping[str, Any]
    origin: str

    def of(self, key: str) -> str:
        """Where a value comes from."""
        match self.origin:
            case "environment":
                return ENVIRONMENT + key.upper()
            case "flag":
                return f"--{key.removesuffix('_s').removesuffix('_hz').replace('_', '-')}"
            case _ if self.origin.startswith(STREAMS):
                return f"{self.origin}.{key}"
        return self.origin


def layers(
    config: Path | None,
    flags: Mapping[str, object],
    defaults: Mapping[str, object],
    environment: Mapping[str, str],
) -> list[Layer]:
    """The places of values, those that others override first. Raises ConfigInvalid, SettingsInvalid."""
    below = read_config(config, RunSettings).model_dump(exclude_unset=True) if config else {}
    return [
        Layer({key: field.default for key, field in RunSettings.model_fields.items()}, "default"),
        Layer(defaults, "default of the command"),
        Layer(below, str(config)),
        Layer(_from_environment(environment), "environment"),
        Layer(flags, "flag"),
    ]


def _from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    """Values of variables; an empty one is none, as containers pass on what is not set. Raises SettingsInvalid."""
    from yaml import YAMLError

    values: dict[str, object] = {}
    for key, field in RunSettings.model_fields.items():
        if not (text := environment.get(ENVIRONMENT + key.upper())):
            continue
        if field.annotation is str or any(one is str or isinstance(one, str) for one in get_args(field.annotation)):
            values[key] = text
            continue
        try:
            values[key] = read_yaml_text(text)
        except (YAMLError, Untrusted):
            raise SettingsInvalid(f"{ENVIRONMENT}{key.upper()}: not a value, {quoted(text)}") from None
    return values


def read_settings(
    config: Path | None,
    flags: Mapping[str, object],
    defaults: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> RunSettings:
    """The flags that were given, over the environment, over the configuration file, over the command's own defaults.

    Raises SettingsInvalid, ConfigInvalid.
    """
    return checked(layers(config, flags, defaults or {}, environment or {}))


def each_stream(found: list[Layer]) -> list[RunSettings]:
    """The settings of every stream that these layers name: what they say of it, over what they say of all.

    Empty where they name none. Raises SettingsInvalid.
    """
    streams: dict[str, dict[str, Any]] = next(
        (layer.values["streams"] for layer in reversed(found) if "streams" in layer.values), {}
    )
    if not streams:
        return []
    common = [Layer({k: v for k, v in layer.values.items() if k != "streams"}, layer.origin) for layer in found]
    for layer in common[2:]:
        if key := next((key for key in ONES_OWN if key in layer.values), None):
            raise SettingsInvalid(f"{layer.of(key)}: {key} is each stream's own; write it below its name in streams")
    # What the file says of one goes before what it says of all, and a variable or a flag before both.
    above = next(place for place, layer in enumerate(common) if layer.origin == "environment")
    each = []
    for name, own in streams.items():
        if "source" not in own:
            raise SettingsInvalid(f"{STREAMS}{name}: has no source; name its camera, stream or file")
        # One microphone hears one room: of several cameras, whose it is has to be said.
        below = Layer({"microphone": "none"} if is_camera(own["source"]) else {}, "default")
        above_all = Layer({"stream": name}, "flag")
        own_layers = [*common[:above], below, Layer(own, STREAMS + name), *common[above:], above_all]
        try:
            each.append(checked(own_layers))
        except SettingsInvalid as error:
            said = str(error)
            raise SettingsInvalid(said if said.startswith(STREAMS) else f"{STREAMS}{name}: {said}") from None
    _check_together(each)
    return each


def _check_together(streams: list[RunSettings]) -> None:
    """Raises SettingsInvalid where streams ask for what one alone can have."""
    if any(one.pace == "max" for one in streams):
        raise SettingsInvalid("--pace max is for one file; streams run side by side, at their own pace")
    for key in ("source", "microphone", "record", "estimates"):
        first: dict[object, str] = {}
        for one in streams:
            value = getattr(one, key)
            if value in {None, "none"} or (key == "source" and not one.is_live):
                continue
            if value in first:
                raise SettingsInvalid(f"streams {first[value]} and {one.stream}: both have {key} {shown(str(value))}")
            first[value] = one.stream


def one_stream(settings: RunSettings) -> RunSettings:
    """Return the settings of a command that has one stream. Raises SettingsInvalid where several are asked for."""
    if settings.streams:
        raise SettingsInvalid("streams: several in one process are for dhmd-live run; start this command once for each")
    return settings


def checked(found: list[Layer]) -> RunSettings:
    """The settings of these layers. Raises SettingsInvalid."""
    from pydantic import ValidationError

    given = {key: layer for layer in found[1:] for key in layer.values}
    try:
        settings = RunSettings.model_validate({key: layer.values[key] for key, layer in given.items()})
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        where = given[key] if given[key].origin.startswith(("environment", STREAMS)) else Layer({}, "flag")
        raise SettingsInvalid(f"{where.of(key)}: {explain(first)}") from None
    if settings.pace == "max" and settings.is_live:
        raise SettingsInvalid(f"--pace max is for files; --source {masked(settings.source)} is live, leave it out")
    _check_trust(settings)
    if settings.broker not in {"embedded", "none"}:
        named_broker(settings.broker, settings.access)
    elif settings.access != BrokerAccess():
        raise SettingsInvalid("--broker-ca, -cert, -key and -password-file go with --broker mqtt[s]://host[:port]")
    if settings.discovery and (settings.broker == "none" or settings.pace == "max"):
        raise SettingsInvalid("--discovery announces a live stream at a broker; leave --broker none and --pace max out")
    if settings.pace == "max" and (settings.lsl or settings.osc):
        raise SettingsInvalid("--lsl and --osc send what happens now; leave --pace max out")
    if settings.source == BROWSER:
        _check_visitors(settings)
    _check_recording(settings)
    _check_control(settings)
    if settings.source == "none" and settings.microphone in {None, "none"}:
        raise SettingsInvalid("nothing to perceive: --source none needs --microphone NAME or default")
    return settings


def _check_recording(settings: RunSettings) -> None:
    """Raises SettingsInvalid."""
    if settings.record is None and settings.record_dir is None:
        if settings.record_video or settings.record_audio:
            raise SettingsInvalid("--record-video and --record-audio add to a recording; name its file with --record")
        if settings.participant or settings.notes:
            raise SettingsInvalid("--participant and --notes belong to a recording; name its file with --record")


def _check_trust(settings: RunSettings) -> None:
    """Raises SettingsInvalid."""
    if settings.trust == Trust():
        return
    if not (is_stream(settings.source) and settings.source.partition("://")[0].lower() in ENCRYPTED):
        raise SettingsInvalid("--source-ca and --source-insecure go with --source https:// or rtsps://")
    if settings.source_ca is not None:
        if settings.source_insecure:
            raise SettingsInvalid("--source-ca: --source-insecure takes any certificate; leave one of them out")
        try:
            settings.trust.context()
        except OSError as error:
            reason = error.strerror or error
            raise SettingsInvalid(f"--source-ca {settings.source_ca}: cannot be read as PEM ({reason})") from None


def _check_control(settings: RunSettings) -> None:
    """Raises SettingsInvalid."""
    if settings.allow_control and settings.pace == "max":
        raise SettingsInvalid("--allow-control: at --pace max nothing can be told to a run; leave one of them out")
    if settings.allow_control and settings.broker == "none":
        raise SettingsInvalid("--allow-control: commands come from a broker; leave --broker none out")
    if settings.record_dir is not None:
        if not settings.allow_control:
            raise SettingsInvalid("--record-dir: commands start its recordings; add --allow-control")
        if settings.record is not None:
            raise SettingsInvalid("--record-dir: --record records the whole run already; leave one of them out")
        if not Path(settings.record_dir).is_dir():
            raise SettingsInvalid(f"--record-dir {settings.record_dir}: is not a folder; create it, or name another")


def _check_visitors(settings: RunSettings) -> None:
    """Refuse what belongs to one stream, as each visitor has one. Raises SettingsInvalid."""
    for flag, given in (
        ("--microphone", settings.microphone is not None),
        ("--pace max", settings.pace == "max"),
        ("--estimates", settings.estimates is not None),
        ("--record", settings.record is not None),
        ("--lsl", settings.lsl),
        ("--osc", settings.osc is not None),
        ("--discovery", settings.discovery),
        ("--allow-control", settings.allow_control),
    ):
        if given:
            raise SettingsInvalid(
                f"{flag}: each visitor brings camera and microphone, and records by the page's own button; "
                "leave it out, or name a --source"
            )
