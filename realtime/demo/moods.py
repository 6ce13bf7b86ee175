"""Look and sound of each mood, and how the puppet goes from one to the next along the script."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from realtime.demo import SCRIPT
from realtime.demo.expression import Expression
from realtime.demo.puppet import HeadPose

CHANGE_S: Final = 0.6
"""A face needs this long to change its mood."""
LEAD_S: Final = 0.1
"""The new mood stands in the face this long before it is heard."""

BLINKS_S: Final = (1.9, 4.1, 7.0, 9.8, 11.6, 14.9, 18.3, 21.1, 23.9, 26.6, 29.7)
BLINK_S: Final = 0.22


@dataclass(frozen=True, slots=True)
class EspeakVoice:
    """Settings of espeak-ng: words a minute, pitch (0 to 99), loudness (0 to 200)."""

    speed: int
    pitch: int
    loudness: int


@dataclass(frozen=True, slots=True)
class Mood:
    """face: the expression while silent. jaw: how far the loudest sound opens the mouth. pose: where the head is held,
    and sway: how much it moves, radians."""

    face: Expression
    jaw: float
    pose: HeadPose
    sway: float
    voice: EspeakVoice


MOODS: Final = {
    "neutral": Mood(
        face=Expression(corners_down=0.4, round=0.3, press=0.2, brow_down=0.2),
        jaw=0.1,
        pose=HeadPose(),
        sway=0.025,
        voice=EspeakVoice(speed=155, pitch=5, loudness=100),
    ),
    "happy": Mood(
        face=Expression(smile=1, squint=0.25, brow_inner_up=0.15, brow_outer_up=0.3),
        jaw=0.65,
        pose=HeadPose(pitch=-0.03, roll=0.05),
        sway=0.055,
        voice=EspeakVoice(speed=175, pitch=45, loudness=120),
    ),
    "surprise": Mood(
        face=Expression(jaw_open=0.5, round=0.8, brow_inner_up=1.2, brow_outer_up=1, eyes_wide=1.3),
        jaw=0.8,
        pose=HeadPose(pitch=-0.05, roll=-0.03),
        sway=0.03,
        voice=EspeakVoice(speed=165, pitch=75, loudness=120),
    ),
    "angry": Mood(
        face=Expression(
            corners_down=0.75, jaw_open=0.12, round=0.4, brow_down=1.48, furrow=1, brow_outer_up=0.5, eyes_wide=0.1
        ),
        jaw=0.7,
        pose=HeadPose(pitch=0.07),
        sway=0.045,
        voice=EspeakVoice(speed=165, pitch=5, loudness=150),
    ),
    "sad": Mood(
        face=Expression(corners_down=1.3, brow_inner_up=1.1, brow_outer_up=-0.4, eyes_wide=-0.6),
        jaw=0.2,
        pose=HeadPose(yaw=-0.06, pitch=0.09, roll=-0.05),
        sway=0.02,
        voice=EspeakVoice(speed=140, pitch=60, loudness=70),
    ),
}


def act(t_s: float, level: float) -> tuple[Expression, HeadPose]:
    """Face and head at a time of the clip when the voice is as loud as `level`, 0 (silence) to 1."""
    first = MOODS[SCRIPT[0].mood]
    face, pose, jaw, sway = first.face, first.pose, first.jaw, first.sway
    for segment in SCRIPT[1:]:
        mood = MOODS[segment.mood]
        share = float(np.clip((t_s - segment.start_s + LEAD_S) / CHANGE_S + 1, 0, 1))
        share *= share * (3 - 2 * share)  # starts and ends gently
        face, pose = face.towards(mood.face, share), pose.towards(mood.pose, share)
        jaw += share * (mood.jaw - jaw)
        sway += share * (mood.sway - sway)
    blink = max(max(0.0, 1 - abs(t_s - at_s) / (BLINK_S / 2)) for at_s in BLINKS_S)
    face = replace(
        face,
        jaw_open=face.jaw_open + level * (jaw - face.jaw_open),
        press=face.press * (1 - level),
        blink=min(1.0, 1.3 * blink),
    )
    return face, HeadPose(
        yaw=pose.yaw + sway * float(np.sin(2.1 * t_s) + 0.5 * np.sin(5.3 * t_s)),
        pitch=pose.pitch + sway * float(0.5 * np.sin(2.9 * t_s + 1) + 0.3 * np.sin(6.7 * t_s)),
        roll=pose.roll + sway * float(0.6 * np.sin(1.7 * t_s + 2)),
    )
