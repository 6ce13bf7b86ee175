"""Recorded sessions: MCAP files with the features, words and estimates of one run, and its media where asked for."""

from dhmd.session.reader import Record, Session, SessionInvalid

__all__ = ["Record", "Session", "SessionInvalid"]
