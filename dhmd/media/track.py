"""One stream of a media file, decoded from its start as often as it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from dhmd.media.container import open_media

if TYPE_CHECKING:
    import av

Decoded = TypeVar("Decoded", "av.VideoFrame", "av.AudioFrame")


class Track(Generic[Decoded]):
    """A stream; stamps are the container's own.

    damaged: packets left out of the last pass, as they could not be decoded. end_s: on the file's timeline, None until
    all of it was read.
    """

    def __init__(self, path: Path, index: int, frame_type: type[Decoded]) -> None:
        self.name = "video" if frame_type.__name__ == "VideoFrame" else "sound"
        self.damaged = 0
        self.first_stamp_s = 0.0
        self.end_s: float | None = None
        self._path = path
        self._index = index
        self._frame_type: type[Decoded] = frame_type

    @classmethod
    def decodable(cls, path: Path, index: int | None, frame_type: type[Decoded]) -> Track[Decoded] | None:
        """The track, if there is one and anything in it can be decoded."""
        if index is None:
            return None
        track = cls(path, index, frame_type)
        first = next(track.decode(), None)
        if first is None:
            return None
        track.first_stamp_s = first.time or 0.0
        return track

    def decode(self, wanted: Callable[[float, bool], bool] | None = None) -> Iterator[Decoded]:
        """Decoded frames in presentation order.

        wanted: asked before a packet is decoded, with its stamp and whether decoding can begin with it; those that it
        declines are left out.
        """
        from av.error import FFmpegError

        with open_media(self._path) as container:
            self.damaged = 0
            packets = container.demux(container.streams[self._index])
            while True:
                try:
                    packet = next(packets, None)
                    if packet is None:
                        return
                    if wanted is not None and packet.pts is not None:
                        stamp_s = float(packet.pts * packet.time_base)
                        if not wanted(stamp_s, packet.is_keyframe):
                            continue
                    frames = packet.decode()
                except FFmpegError:
                    self.damaged += 1
                    continue
                yield from (frame for frame in frames if isinstance(frame, self._frame_type))
