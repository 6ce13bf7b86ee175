"""The network and its parts."""

from dhmd.model.config import EMOTION, SENTIMENT, DHMDConfig, Head, ModalityConfig
from dhmd.model.dhmd import DHMD, Branch, DHMDOutput
from dhmd.model.readout import COLUMNS, Readout

__all__ = [
    "COLUMNS",
    "DHMD",
    "EMOTION",
    "SENTIMENT",
    "Branch",
    "DHMDConfig",
    "DHMDOutput",
    "Head",
    "ModalityConfig",
    "Readout",
]
