"""Opening a media file: what is read of it, and in which words it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from dhmd.errors import MediaUnreadable

if TYPE_CHECKING:
    from av.container import InputContainer

FORMATS: Final = (
    "3gp,aac,ac3,aiff,amr,amrnb,amrwb,ape,apng,asf,au,av1,avi,caf,dsf,dts,dv,eac3,flac,flv,gif,h261,h263,h264,hevc,ivf,"
    "loas,m4v,matroska,mjpeg,mov,mp3,mpc,mpc8,mpeg,mpegts,mpegvideo,mpjpeg,mxf,nsv,nut,obu,ogg,rm,tak,tta,voc,vvc,w64,"
    "wav,webp,wtv,wv,yuv4mpegpipe"
)
"""FFmpeg's names of what is read: containers and plain streams that hold all that they show. Playlists (HLS, DASH,
ffconcat, SDP) and picture sequences would open other files or connections that their writer names."""


def open_media(path: Path) -> InputContainer:
    """Open the file itself and nothing else, see FORMATS. Raises MediaUnreadable."""
    head = read_head(path)
    try:
        import av
    except ModuleNotFoundError:
        raise MediaUnreadable(f"{path}: PyAV, which reads media files, is missing; pip install av") from None
    try:
        return av.open(f"file:{path.absolute()}", options={"protocol_whitelist": "file", "format_whitelist": FORMATS})
    except av.error.ArgumentError:
        cause = "is not a media file of a kind that is read (text, playlists and lists of pictures are not)"
        raise MediaUnreadable(f"{path}: {cause}; name the video or sound file itself") from None
    except (av.error.FFmpegError, OSError) as error:
        if head[4:] == b"ftyp":
            cause = "is an MP4 or MOV file without its index, so it was cut off; copy or record it again"
        else:
            cause = f"is not a media file that FFmpeg knows ({error.strerror}); name a video or sound file"
        raise MediaUnreadable(f"{path}: {cause}") from None


def read_head(path: Path) -> bytes:
    """The first 8 bytes of a file. Raises MediaUnreadable where there is none, or nothing in it."""
    if path.is_dir():
        raise MediaUnreadable(f"{path}: is a directory; name a media file in it")
    if not path.exists():
        raise MediaUnreadable(f"{path}: no such file; check the path")
    if not path.is_file():
        raise MediaUnreadable(f"{path}: is not a regular file; copy what it gives to one, and name that")
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise MediaUnreadable(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if not head:
        raise MediaUnreadable(f"{path}: is empty (0 bytes); copy or record it again")
    return head
