"""The network as it is learned: every output that the losses read.

`dhmd.prediction` computes the estimates alone from the same weights, faster; this is the definition that it is held to.
"""

from dhmd.model.config import EMOTION, SENTIMENT, DHMDConfig, Head, ModalityConfig
from dhmd.model.dhmd import DHMD, Branch, DHMDOutput
from dhmd.model.readout import COLUMNS, Readout, columns, own_heads

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
    "columns",
    "own_heads",
]
