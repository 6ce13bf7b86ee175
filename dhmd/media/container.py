"""Opening a media file: what is read of it, and in which words it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dhmd.errors import MediaUnreadable

if TYPE_CHECKING:
    from av.container import InputContainer


def open_media(path: Path) -> InputContainer:
    """Open the file itself and nothing else: a playlist that names network addresses or other files stays unread.

    Raises MediaUnreadable.
    """
    head = read_head(path)
    try:
        import av
    except ModuleNotFoundError:
        raise MediaUnreadable(f"{path}: PyAV, which reads media files, is missing; pip install av") from None
    try:
        container = av.open(f"file:{path.absolute()}", options={"protocol_whitelist": "file"})
    except (av.error.FFmpegError, OSError) as error:
        if head[4:] == b"ftyp":
            cause = "is an MP4 or MOV file without its index, so it was cut off; copy or record it again"
        else:
            cause = f"is not a media file that FFmpeg knows ({error.strerror}); name a video or sound file"
        raise MediaUnreadable(f"{path}: {cause}") from None
    if container.format.name == "tty":  # FFmpeg types any text out as a film
        container.close()
        raise MediaUnreadable(f"{path}: is text, not a media file; name a video or sound file")
    return container


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
