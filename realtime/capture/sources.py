"""What a run captures, and from where."""

from __future__ import annotations

import logging

from realtime.capture.camera import Camera
from realtime.capture.media import MediaFile
from realtime.capture.microphone import Microphone, list_microphones
from realtime.capture.playback import MediaPlayer
from realtime.clock import SessionClock
from realtime.errors import MicrophoneUnavailable
from realtime.messages.estimate import Dropped
from realtime.pipeline.live import LiveSource
from realtime.settings import RunSettings

logger = logging.getLogger(__name__)


def open_source(settings: RunSettings, media: MediaFile | None, clock: SessionClock) -> LiveSource:
    """What to capture, and from where. A file brings its own sound; a camera goes with the default microphone."""
    microphone = settings.microphone or (_default_microphone() if settings.is_live else "none")
    heard = None if microphone == "none" else Microphone(microphone, clock)
    if media is not None:
        player, has = MediaPlayer(media, clock), media.describe()
        for kind, present in (("video", has.has_video), ("sound", has.has_audio or heard is not None)):
            if not present:
                logger.warning("%s has no %s: estimates come from the rest alone", settings.source, kind)
        frames = player.frames if has.has_video else None
        blocks = heard.blocks if heard else player.blocks if has.has_audio else None
    else:
        frames = None if settings.source == "none" else Camera(settings.source, clock).frames
        blocks = heard.blocks if heard else None

    def lost() -> Dropped:
        return Dropped(video=media.skipped if media else 0, audio=heard.overflows if heard else 0)

    return LiveSource(frames, blocks, lost)


def _default_microphone() -> str:
    """The default microphone where nobody asked for one: its absence is told, and nothing to stop for."""
    try:
        if any(microphone.is_default for microphone in list_microphones()):
            return "default"
        reason = "no default microphone"
    except MicrophoneUnavailable as error:
        reason = str(error)
    logger.warning("%s; going on without sound (--microphone none says so)", reason)
    return "none"
