"""DHMD: decoupled hierarchical multimodal distillation, the features it eats, and its checkpoints.

from dhmd.checkpoint import load
checkpoint = load("base")
out = checkpoint.model(inputs, masks)          # inputs: {Modality: (B, T, width)}, masks: {Modality: (B, T)}
checkpoint.model.split(out.output)["emotion"]  # (B, 7) scores in the order of EMOTIONS
"""

import os

# Nothing phones home. ONNX Runtime from 1.29 on keeps a device's id on disk and sends usage to its maker unless this is
# set before it loads; the others ask alike. They stand here because everything that loads them imports dhmd first.
os.environ.update(ORT_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")
