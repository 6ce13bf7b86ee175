"""Opening what a run captures."""

from __future__ import annotations

import logging

from realtime.capture.camera import Camera
from realtime.capture.delivery import Source
from realtime.capture.media import MediaFile
from realtime.capture.microphone import Microphone, list_microphones
from realtime.capture.network import NetworkStream, Trust, is_stream
from realtime.capture.playback import MediaPlayer
from realtime.clock import StreamClock
from realtime.errors import MicrophoneUnavailable
from realtime.messages.estimate import Dropped

logger = logging.getLogger(__name__)


def open_source(
    source: str, microphone: str | None, media: MediaFile | None, clock: StreamClock, trust: Trust | None = None
) -> Source:
    """Choose what to capture. A file brings its own sound; a camera goes with the default microphone.

    source: camera, stream or "none"; of a file, its name. microphone: None where nobody named one. media: the file.
    trust: whom encrypted streams are read from.
    """
    named = microphone or (_default_microphone() if media is None else "none")
    heard = None if named == "none" else Microphone(named, clock)
    if media is not None:
        player = MediaPlayer(media, clock)
        has_video, has_sound = media.reader.film is not None, media.reader.soundtrack is not None
        for kind, present in (("video", has_video), ("sound", has_sound or heard is not None)):
            if not present:
                logger.warning("%s has no %s: estimates come from the rest alone", source, kind)
        frames = player.frames if has_video else None
        blocks = heard.blocks if heard else player.blocks if has_sound else None
    else:
        frames = None if source == "none" else _camera(source, clock, trust).frames
        blocks = heard.blocks if heard else None

    def lost() -> Dropped:
        return Dropped(video=media.skipped if media else 0, audio=heard.overflows if heard else 0)

    return Source(frames, blocks, lost)


def _camera(source: str, clock: StreamClock, trust: Trust | None) -> Camera | NetworkStream:
    return NetworkStream(source, clock, trust) if is_stream(source) else Camera(source, clock)


def _default_microphone() -> str:
    """Name the default microphone, where nobody asked for one: its absence is told, and nothing to stop for."""
    try:
        if any(microphone.is_default for microphone in list_microphones()):
            return "default"
        reason = "no default microphone"
    except MicrophoneUnavailable as error:
        reason = str(error)
    logger.warning("%s; continuing without sound (--microphone none asks for that)", reason)
    return "none"
