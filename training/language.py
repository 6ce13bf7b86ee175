"""A DHMD whose words go through a language encoder that is trained along, as the paper does with BERT."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from dhmd.errors import DHMDError
from dhmd.modality import Modality
from dhmd.model import DHMD, DHMDConfig, DHMDOutput

FOLDER: Final = "encoder"
"""Of a run, with the encoder's configuration. Its weights lie with those of the network."""
TOKENS: Final = 3
"""Numbers in a step of words: token id, attention mask, segment."""


class EncoderUnavailable(DHMDError):
    """A language encoder is neither in a folder nor to be had from the hub."""


def pretrained(name: str) -> Any:
    """The encoder of a local folder, or of that name on the Hugging Face hub. Raises EncoderUnavailable."""
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return AutoModel.from_pretrained(name, local_files_only=Path(name).is_dir())
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise EncoderUnavailable(
            f"encoder {name}: {reason}; give the folder of a BERT with --set encoder=FOLDER, or keep the words of the "
            "file with --set text=fixed"
        ) from error


def untrained(folder: Path) -> Any:
    """An encoder of the configuration in that folder, by chance. Raises EncoderUnavailable."""
    from transformers import AutoConfig, AutoModel

    try:
        return AutoModel.from_config(  # type: ignore[no-untyped-call]
            AutoConfig.from_pretrained(folder, local_files_only=True)
        )
    except (OSError, ValueError) as error:
        raise EncoderUnavailable(f"{folder} is damaged or missing; train the run again") from error


class EndToEnd(DHMD):
    """Reads words as (B, T, 3) token ids, attention mask and segments."""

    def __init__(self, config: DHMDConfig, encoder: Any) -> None:
        """config: with words as wide as what the encoder gives."""
        super().__init__(config)
        self.language_encoder = encoder
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None  # which nothing reads

    @property
    def vocabulary(self) -> int:
        """Token ids are below it."""
        return int(self.language_encoder.config.vocab_size)

    def forward(self, inputs: Mapping[Modality, Tensor], masks: Mapping[Modality, Tensor] | None = None) -> DHMDOutput:
        """See `DHMD.forward`."""
        ids, attention, segments = inputs[Modality.TEXT].long().unbind(dim=-1)
        states = self.language_encoder(input_ids=ids, attention_mask=attention, token_type_ids=segments)
        words = torch.as_tensor(states.last_hidden_state).float()
        return super().forward({**inputs, Modality.TEXT: words}, masks)
