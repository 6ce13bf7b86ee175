"""The network as it is used: the numbers of a `Readout`, with nothing computed that no estimate reads.

Made from a `dhmd.model.DHMD` and its weights, whose numbers it gives but for rounding; nothing is learned here.

Everything that can be done side by side is: the six cross-modal transformers and the three homogeneous ones are one
stack of nine, modalities are padded to one length, keys and values of all layers come from one product. Norms, scales
and biases are taken into the products around them, dictionary atoms into the query maps, the layers of heads into one
another. What feeds only losses (reconstruction, margins, the joint homogeneous logit) is left out.

Shapes: M modalities that are computed, G = 3 M transformers of width d, A of them that attend to something, L layers,
B batch, T steps of the longest modality (U as keys), H heads, e = d / H, K atoms.
"""

from dhmd.prediction.predictor import Predictor

__all__ = ["Predictor"]
