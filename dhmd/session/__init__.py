"""Recorded sessions: MCAP files with the features, words and estimates of one run, and its media where asked for."""

from dhmd.session.reader import Session, SessionInvalid, SessionMessage

__all__ = ["Session", "SessionInvalid", "SessionMessage"]
