"""What people say stays where they want it: with the model alone, or nowhere."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from realtime.layers import read_settings
from realtime.messages.estimate import Estimate

SAID = ("wonderful", "Hello", "prize", "happy to")
"""Words of the clip, in any case, that a message or a file may not hold."""


@pytest.fixture
def ran(
    live: Callable[..., Any],
    talking_clip: Path,
    untrained_checkpoint: Path,
    mosquitto: Any,
    subscribe: Callable[..., Any],
    tmp_path: Path,
) -> Callable[..., tuple[Any, Any, list[Estimate], bytes]]:
    """ran(*flags): a run with all its sinks. Gives its outcome, who listened, the estimates, the session's bytes."""

    def run(*flags: str) -> tuple[Any, Any, list[Estimate], bytes]:
        listener = subscribe(mosquitto.port)
        estimates, session = tmp_path / "talk.jsonl", tmp_path / "talk.mcap"
        outcome = live(
            "run", "--source", talking_clip, "--broker", mosquitto.url, "--stream", "hall", "--state",
            "--checkpoint", untrained_checkpoint, "--estimates", estimates, "--record", session, *flags,
        )  # fmt: skip
        assert outcome.code == 0, outcome
        for path in (estimates, session):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        lines = [Estimate.model_validate_json(line) for line in estimates.read_text().splitlines()]
        unpacked = live("export", session, "--to", "jsonl", "--out", tmp_path / "again.jsonl")
        assert unpacked.code == 0, unpacked
        return outcome, listener, lines, (tmp_path / "again.jsonl").read_bytes()

    return run


def everything(ran: tuple[Any, Any, list[Estimate], bytes]) -> str:
    outcome, listener, estimates, again = ran
    told = b" ".join(payload for _, payload, _ in listener.received)
    return " ".join([outcome.out, outcome.err, told.decode(errors="replace"), again.decode(), *map(repr, estimates)])


def test_words_are_told_unless_asked_otherwise_and_kept_by_no_broker(
    ran: Callable[..., Any], subscribe: Callable[..., Any], mosquitto: Any
) -> None:
    told = ran()
    assert "Hello" in everything(told)
    assert told[1].payloads("dhmd/hall/state/words")
    late = subscribe(mosquitto.port)
    late.wait_for(lambda: late.payloads("dhmd/hall/state/emotion"))
    assert not late.payloads("dhmd/hall/state/words")


def test_private_words_are_read_by_the_model_and_told_to_nobody(ran: Callable[..., Any]) -> None:
    told = ran("--no-words")
    assert not [word for word in SAID if word.lower() in everything(told).lower()]
    estimates = told[2]
    assert any(one.modalities.text.present for one in estimates)
    assert {one.transcript for one in estimates} == {""}
    assert not told[1].payloads("dhmd/hall/transcript")


def test_without_a_transcript_no_speech_is_recognised(ran: Callable[..., Any]) -> None:
    told = ran("--no-transcript")
    assert not [word for word in SAID if word.lower() in everything(told).lower()]
    estimates = told[2]
    assert any(one.modalities.audio.present for one in estimates)
    assert not any(one.modalities.text.present or one.modalities.text.late for one in estimates)
    workers = {name for name, _, _ in told[1].received if name.startswith("dhmd/hall/status/")}
    assert workers == {f"dhmd/hall/status/{worker}" for worker in ("video", "audio", "face", "voice", "recording")}


@pytest.mark.parametrize("flag", ["--no-words", "--no-transcript"])
def test_an_edge_keeps_words_to_itself(
    live: Callable[..., Any], start_live: Callable[..., Any], mosquitto: Any, subscribe: Callable[..., Any],
    talking_clip: Path, flag: str,
) -> None:  # fmt: skip
    listener = subscribe(mosquitto.port)
    start_live("serve", "--broker", mosquitto.url)
    listener.wait_for(lambda: any(name.startswith("dhmd/serve/") for name, _, _ in listener.received))
    outcome = live(
        "edge", "--source", talking_clip, "--broker", mosquitto.url, "--stream", "hall", "--pace", "max",
        "--hop", "0.5", flag,
    )  # fmt: skip
    assert outcome.code == 0, outcome
    told = b" ".join(payload for _, payload, _ in listener.received).decode(errors="replace").lower()
    assert not [word for word in SAID if word.lower() in told]
    estimates = listener.estimates("hall")
    assert any(one["modalities"]["text"]["present"] for one in estimates) == (flag == "--no-words")


def test_the_configuration_file_knows_it(tmp_path: Path) -> None:
    config = tmp_path / "live.yaml"
    config.write_text(json.dumps({"words": "private", "source": "talk.mp4"}))
    assert read_settings(config, {}).words == "private"
    assert read_settings(config, {"words": "off"}).words == "off"
