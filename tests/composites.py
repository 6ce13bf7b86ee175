"""Films of several people, put together of clips of one each by ffmpeg."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

FIRST, SECOND, THIRD = "grid_bbaf2n", "grid_lrwp9a", "grid_brbk7n"
"""Three talkers, of a sentence of three seconds each."""
HEADS = "[0:v]crop=180:240:80:48,setsar=1,fps=25[a];[1:v]crop=180:240:100:48,setsar=1,fps=25[b];"
WALL = "color=0x556677:s=640x360:r=25"


def film(path: Path, clips: Sequence[Path | str], graph: str, *outputs: str, length_s: float) -> Path:
    """Make a film by a graph of filters whose picture is [v]. clips: files, or sources of lavfi."""
    inputs: list[str] = []
    for clip in clips:
        inputs += ["-i", str(clip)] if isinstance(clip, Path) else ["-f", "lavfi", "-i", clip]
    subprocess.run(
        [
            *("ffmpeg", "-v", "error", "-y", *inputs, "-filter_complex", graph, "-map", "[v]", *outputs),
            *("-t", str(length_s), "-c:v", "libx264", "-preset", "ultrafast", "-crf", "18", "-c:a", "aac", str(path)),
        ],
        check=True,
        timeout=120,
    )
    return path


def grid(shared: Path, *names: str) -> list[Path]:
    return [shared / "clips" / f"{name}.mpg" for name in names]


def crossing(path: Path, shared: Path) -> Path:
    """Two talkers pass each other, the one from the right in front. At the end they have changed sides."""
    moved = "[2:v][a]overlay=x='20+150*t':y=60[x];[x][b]overlay=x='440-150*t':y=60[v]"
    return film(path, [*grid(shared, FIRST, SECOND), WALL], HEADS + moved, length_s=2.8)


def hidden(path: Path, shared: Path) -> Path:
    """The right one of two talkers is behind something from 1.0 to 1.8 s."""
    still = "[2:v][a]overlay=x=60:y=60[x];[x][b]overlay=x=400:y=60[y];"
    bar = "[y][3:v]overlay=x=390:y=0:enable='between(t,1,1.8)'[v]"
    clips = [*grid(shared, FIRST, SECOND), WALL, "color=black:s=200x360:r=25"]
    return film(path, clips, HEADS + still + bar, length_s=2.4)


def leaving(path: Path, shared: Path) -> Path:
    """The right one of two talkers leaves the picture at about 1 s; another comes at about 2.6 s, to the same place."""
    third = "[3:v]crop=180:240:80:48,setsar=1,fps=25,tpad=start_mode=clone:start_duration=2[c];"
    moved = "[2:v][a]overlay=x=60:y=60:eof_action=repeat[x];[x][b]overlay=x='400+max(0,t-0.6)*500':y=60[y];"
    come = "[y][c]overlay=x='max(400,640-max(0,t-2.2)*500)':y=60[v]"
    return film(
        path, [*grid(shared, FIRST, SECOND), WALL, *grid(shared, THIRD)], HEADS + third + moved + come, length_s=3.6
    )


def conversation(path: Path, shared: Path) -> Path:
    """Two talkers side by side: the left one speaks for three seconds, then the right one; who listens is still."""
    pictures = (
        "[0:v]tpad=stop_mode=clone:stop_duration=3[l];[1:v]tpad=start_mode=clone:start_duration=3[r];[l][r]hstack[v];"
    )
    sound = "[0:a]apad=whole_dur=3[s];[1:a]apad=whole_dur=3[t];[s][t]concat=v=0:a=1[sound]"
    return film(path, grid(shared, FIRST, SECOND), pictures + sound, "-map", "[sound]", length_s=6)


def four(path: Path, shared: Path) -> Path:
    """Four talkers in the corners of a picture of 640x480, one of whom is heard."""
    clips = grid(shared, FIRST, SECOND, THIRD, "grid_swwp2s")
    heads = "".join(f"[{i}:v]scale=320:240,setsar=1,fps=25[v{i}];" for i in range(4))
    corners = "[v0][v1]hstack[above];[v2][v3]hstack[below];[above][below]vstack[v]"
    return film(path, clips, heads + corners, "-map", "0:a", length_s=2.8)


STILL = "loop=loop=-1:size=1,trim=duration=3,setpts=N/25/TB"
"""Makes a portrait of a film: its first picture."""


def at_once(path: Path, shared: Path, *, portrait: bool = False, volume: float = 0.5, length_s: float = 3) -> Path:
    """Two talkers side by side who talk at once, the right one softer; or who is a portrait, heard elsewhere. They
    speak for three seconds. volume: of the right one's amplitude."""
    pictures = f"[0:v]null[l];[1:v]{STILL if portrait else 'null'}[r];[l][r]hstack,tpad=stop_mode=clone:stop=-1[v];"
    sound = f"[1:a]volume={volume}[soft];[0:a][soft]amix=normalize=0,apad[sound]"
    return film(path, grid(shared, FIRST, SECOND), pictures + sound, "-map", "[sound]", length_s=length_s)


def television(path: Path, shared: Path, heard: str = FIRST) -> Path:
    """A talker, and beside them a television on which a small one talks, too; heard is one of them."""
    screen = "[1:v]crop=180:240:100:48,fps=25,scale=102:136,pad=126:160:12:12:color=0x181818[tv];"
    person = "[0:v]crop=180:240:80:48,setsar=1,fps=25,scale=270:360[a];[2:v][a]overlay=x=40:y=0[x];"
    sound = str(grid(shared, FIRST, SECOND).index(*grid(shared, heard)))
    clips = [*grid(shared, FIRST, SECOND), WALL]
    graph = f"{screen}{person}[x][tv]overlay=x=440:y=40[v]"
    return film(path, clips, graph, "-map", f"{sound}:a", length_s=3)
