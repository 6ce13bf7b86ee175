"""One stream of a media file, decoded from its start as often as it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from dhmd.errors import MediaUnreadable
from dhmd.media.container import open_media
from dhmd.media.picture import read_image
from dhmd.media.stamps import Splice, Stamps

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

Decoded = TypeVar("Decoded", "av.VideoFrame", "av.AudioFrame")


class Track(Generic[Decoded]):
    """A stream. Stamps are the container's own but for its jumps, see Stamps.

    index: of the stream. damaged: packets left out of the last pass, as they could not be decoded. splices: jumps of
    its stamps and those of the streams beside it, closed in the last pass. end_s: on the file's timeline, None until
    all of it was read. duration_s: as the container states it, None where it does not.
    Raises MediaUnreadable where nothing in it can be decoded.
    """

    def __init__(self, path: Path, stream: av.VideoStream | av.AudioStream, frame_type: type[Decoded]) -> None:
        self.index = stream.index
        self.duration_s = _duration_s(stream)
        self.name = "video" if stream.type == "video" else "sound"
        self.damaged = 0
        self.splices: list[Splice] = []
        self.end_s: float | None = None
        self._path = path
        self._frame_type: type[Decoded] = frame_type
        first = next(self.decode(), None)
        if first is None:
            coding = stream.codec_context.name if stream.codec_context else "unknown"
            raise MediaUnreadable(
                f"{path}: its {self.name} in stream {self.index} (coding: {coding}) cannot be decoded"
            )
        self.first_stamp_s = first.time or 0.0

    def decode(self, wanted: Callable[[float, bool], bool] | None = None) -> Iterator[Decoded]:
        """Decoded frames in presentation order.

        wanted: asked before a packet is decoded, with its stamp and whether decoding can begin with it; those that it
        declines are left out.
        """
        from av.error import FFmpegError

        with open_media(self._path) as container:
            self.damaged = 0
            films: list[av.VideoStream]
            sounds: list[av.AudioStream]
            films, sounds = streams_of(container)
            stamps = Stamps({film.index: float(1 / film.average_rate) for film in films if film.average_rate})
            self.splices = stamps.splices
            packets = container.demux([*films, *sounds])
            while True:
                try:
                    packet = next(packets, None)
                    if packet is None:
                        return
                    stamps.move(packet)
                    if packet.stream_index != self.index:
                        continue
                    if wanted is not None and packet.pts is not None:
                        stamp_s = float(packet.pts * packet.time_base)
                        if not wanted(stamp_s, packet.is_keyframe):
                            continue
                    frames = packet.decode()
                except FFmpegError:
                    self.damaged += 1
                    continue
                yield from (frame for frame in frames if isinstance(frame, self._frame_type))


class Still:
    """A picture file, as the track of a film whose one frame it is. Raises MediaUnreadable."""

    name = "picture"
    damaged = 0
    first_stamp_s = 0.0
    duration_s: float | None = None

    def __init__(self, path: Path) -> None:
        self.splices: list[Splice] = []
        self.end_s: float | None = None
        self._image = read_image(path)

    def decode(self, _: Callable[[float, bool], bool] | None = None) -> Iterator[av.VideoFrame]:
        from av import VideoFrame

        frame = VideoFrame.from_ndarray(self._image, format="bgr24")
        frame.pts, frame.time_base = 0, Fraction(1)
        yield frame


def streams_of(container: InputContainer) -> tuple[list[av.VideoStream], list[av.AudioStream]]:
    """Films and sounds of a file, each from the one that is meant to be played on."""
    from av.stream import Disposition

    # Cover art is a stream of one picture that belongs to the sound.
    films = [film for film in container.streams.video if not film.disposition & Disposition.attached_pic]
    best = container.streams.best("video"), container.streams.best("audio")
    return sorted(films, key=lambda film: film is not best[0]), sorted(
        container.streams.audio, key=lambda sound: sound is not best[1]
    )


def _duration_s(stream: av.VideoStream | av.AudioStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    # Matroska keeps it as a tag: 00:00:03.046000000.
    hours, minutes, seconds = [*stream.metadata.get("DURATION", "").split(":"), "", "", ""][:3]
    try:
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None
