"""Errors at the edge of training. Each message names the cause and the remedy in one line."""

from __future__ import annotations

from dhmd.errors import DHMDError


class CorpusMissing(DHMDError):
    """A corpus is not where it was said to be, or is not what it should be."""


class RunExists(DHMDError):
    """A run would overwrite another, or one that should go on is not there."""


class PickleRefused(DHMDError):
    """A pickle holds anything but data, or is damaged. Nothing in it was executed."""


class FeaturesInvalid(DHMDError):
    """A file of features lacks a key, or holds another shape, type or number than it should. One line a fault."""


class PredictionsInvalid(DHMDError):
    """A table of predictions is missing, damaged, or of other utterances than the one it is compared with."""


class RunDamaged(DHMDError):
    """A file that a run goes on from cannot be read."""


class RunUnwritable(DHMDError):
    """A file of a run cannot be written. The last whole one is still there."""


class Diverged(DHMDError):
    """The loss or the score is no longer a number."""


class ManifestInvalid(DHMDError):
    """A manifest, or a file that it names, is not what it should be. One line a fault, with the row it stands in."""

    exit_code = 2


class EncodersMissing(DHMDError):
    """The folder of the learned parts of the extractors lacks one."""


class WorkersUnavailable(DHMDError):
    """The processes that work is to be spread over do not start."""


class TooLittleData(DHMDError):
    """There is nothing to learn from, or nothing to measure on."""
