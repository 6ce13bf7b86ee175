"""The network and its parts."""

from dhmd.model.config import EMOTION, SENTIMENT, DHMDConfig, Head, ModalityConfig
from dhmd.model.dhmd import DHMD, Branch, DHMDOutput

__all__ = ["DHMD", "EMOTION", "SENTIMENT", "Branch", "DHMDConfig", "DHMDOutput", "Head", "ModalityConfig"]
