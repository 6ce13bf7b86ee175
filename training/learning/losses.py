"""The training objective: each term of DHMD's table of losses, aware of masks and of absent modalities.

Shapes: B batch, T' steps, d width, O numbers in a logit vector. A mean over a modality or a head is taken over what
is there: present steps, present modalities, labelled samples. Where nothing is there a term is zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dhmd.modality import EDGES, Modality
from dhmd.model import DHMD, Branch, DHMDOutput, Head, own_heads
from training.config import Weights
from training.data.batch import Labels
from training.rivals import Learnable, RivalOutput

MARGIN = 0.15
LOGIT_SCALE, REPRESENTATION_SCALE = 1.0, 10.0


def objective(
    model: Learnable, out: DHMDOutput | RivalOutput, labels: Labels, weights: Weights
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of any network, and its terms before their weights (detached): a rival of DHMD has the task alone."""
    if isinstance(model, DHMD) and isinstance(out, DHMDOutput):
        return total(model, out, labels, weights)
    loss = _head_losses(model, out.output, torch.ones_like(out.output[:, 0], dtype=torch.bool), labels)
    return weights.task * loss, {"task": loss.detach()}


def total(model: DHMD, out: DHMDOutput, labels: Labels, weights: Weights) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum, and each term before its weight (detached)."""
    gap, same = relation(model.config.heads, labels)
    taught = out.present & known(model.config.heads, labels)[:, None]
    homo = homogeneous_distillation(out, taught, model.homo_graph.prior, weights.regulariser)
    hetero = heterogeneous_distillation(out, taught, model.hetero_graph.prior, weights.regulariser)
    terms = {
        "task": torch.stack(list(task(model, out, labels).values())).sum(),
        "rec": reconstruction(out),
        "cyc": cycle(out),
        "mar": margin(out.similarity, out.present, gap, same),
        "ort": orthogonality(out),
        "homo": homo.logit + homo.regulariser,
        "hetero": hetero.logit + hetero.representation + hetero.regulariser,
        "dict": sum(dictionary(out, gap, same)) if model.config.dictionary else out.output.new_zeros(()),
        "product": product(model, out, weights.temperature),
    }
    loss = torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
    return loss, {name: torch.as_tensor(term).detach() for name, term in terms.items()}


def task(model: DHMD, out: DHMDOutput, labels: Labels) -> dict[str, Tensor]:
    """Eight terms: the estimate, logit_c and each modality's two logits, each summed over the heads."""
    everyone = torch.ones_like(out.present[:, 0])
    terms = {
        "output": _head_losses(model, out.output, everyone, labels),
        "shared": _head_losses(model, out.shared_logit, everyone, labels),
    }
    for i, m in enumerate(Modality):
        terms[f"homo.{m}"] = _head_losses(model, out.homogeneous.logit[m], out.present[:, i], labels)
        terms[f"hetero.{m}"] = _head_losses(model, out.heterogeneous.logit[m], out.present[:, i], labels)
    return terms


def _head_losses(model: Learnable, logit: Tensor, present: Tensor, labels: Labels) -> Tensor:
    """logit: (B, O), present: (B,) bool. Mean absolute error or cross-entropy, over present and labelled samples."""
    losses: list[Tensor] = []
    parts = model.split(logit)
    for head in model.config.heads:
        chosen = present & labels.known(head)
        value, predicted = labels.values[head.name][chosen], parts[head.name][chosen]
        if head.kind == "classification":
            each = F.cross_entropy(predicted, value, reduction="none")
        else:
            each = (predicted - value[:, None]).abs().mean(dim=1)
        weight = labels.weights.get(head.name)
        if weight is not None:
            each = each * weight[chosen]
        losses.append(each.sum() / max(len(each), 1))
    return torch.stack(losses).sum()


def rehearsal(model: Learnable, out: DHMDOutput | RivalOutput, said: Tensor) -> Tensor:
    """`rehearsal`: how far the estimate of rehearsed windows is from the (B, O) that was said of them before. The
    divergence (Kullback-Leibler) of the classes, and the mean absolute difference of the numbers."""
    now, before = model.split(out.output), model.split(said)
    terms = []
    own = own_heads(model.config.heads)  # of which nothing was known
    for head in model.config.heads:
        if head in own:
            continue
        if head.kind == "classification":
            sure, was = (F.log_softmax(part[head.name], dim=-1) for part in (now, before))
            terms.append(F.kl_div(sure, was, reduction="batchmean", log_target=True))
        else:
            terms.append((now[head.name] - before[head.name]).abs().mean())
    return torch.stack(terms).sum()


def reconstruction(out: DHMDOutput) -> Tensor:
    """`rec`: how far the decoder's R_m is from X_m."""
    return _sum(_step_mean((out.decoupled[m].reconstruction - out.projected[m]) ** 2, out.mask[m]) for m in Modality)


def cycle(out: DHMDOutput) -> Tensor:
    """`cyc`: how far the private features of the rebuilt input are from those of the input."""
    return _sum(
        _step_mean((out.decoupled[m].heterogeneous - out.decoupled[m].heterogeneous_again) ** 2, out.mask[m])
        for m in Modality
    )


def orthogonality(out: DHMDOutput) -> Tensor:
    """`ort`: how much private and shared features point the same way, along the feature axis at each step."""
    return _sum(
        _step_mean(
            F.cosine_similarity(out.decoupled[m].heterogeneous, out.decoupled[m].homogeneous, dim=-1).clamp(min=0)[
                ..., None
            ],
            out.mask[m],
        )
        for m in Modality
    )


def relation(heads: tuple[Head, ...], labels: Labels) -> tuple[Tensor, Tensor]:
    """Compares the samples' labels: gap (B, B) = |y_i - y_j|, 1 between classes; same (B, B) bool.

    Read from the classes where there is a classification head, else from the numbers. Pairs with an unlabelled
    sample have a NaN gap and take no part.
    """
    head = next((h for h in heads if h.kind == "classification"), heads[0])
    value = labels.values[head.name].float().masked_fill(~labels.known(head), torch.nan)
    gap = (value[:, None] - value[None, :]).abs()
    if head.kind == "classification":
        gap = gap.clamp(max=1)
    return gap, value[:, None] == value[None, :]


def margin(features: Mapping[Modality, Tensor], present: Tensor, gap: Tensor, same: Tensor) -> Tensor:
    """Triplet margin over one (B, d) feature vector a modality; all modalities of all samples are rows.

    For an anchor i, positives carry its label and negatives another; the mean over its pairs of
    max(0, 0.15 gap - cos(i, positive) + cos(i, negative)), then the mean over the anchors that have both.
    present: (B, 3) bool; gap, same: (B, B) from `relation`.
    """
    count = len(Modality)
    rows = F.normalize(torch.cat([features[m] for m in Modality]), dim=-1)  # (N, d), N = 3 B
    here = present.T.reshape(-1)
    both = here[:, None] & here[None, :]
    positive = same.repeat(count, count) & both & ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    gap = gap.repeat(count, count)
    negative = ~same.repeat(count, count) & ~gap.isnan() & both
    cosine = rows @ rows.T

    # The pairs of an anchor are summed without being laid out: with its positives sorted, a negative at height
    # h = 0.15 gap + cos is above exactly the first k of them, and adds k h minus their sum.
    ordered, _ = cosine.masked_fill(~positive, torch.inf).sort(dim=1)
    summed = F.pad(ordered.masked_fill(ordered.isinf(), 0).cumsum(dim=1), (1, 0))
    height = cosine + MARGIN * gap.nan_to_num()
    below = torch.searchsorted(ordered.detach(), height.detach().contiguous())
    pairs = (below * height - summed.gather(1, below)) * negative
    positives, negatives = positive.sum(dim=1), negative.sum(dim=1)
    anchors = (positives > 0) & (negatives > 0)
    mean = pairs.sum(dim=1) / (positives * negatives).clamp(min=1)
    return (mean * anchors).sum() / anchors.sum().clamp(min=1)


def dictionary(out: DHMDOutput, gap: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """`dict`: the triplet margin over the features that each dictionary rebuilt (homogeneous, heterogeneous)."""
    homo, hetero = (
        margin({m: branch.match[m].feature for m in Modality}, out.present, gap, same)
        for branch in (out.homogeneous, out.heterogeneous)
    )
    return homo, hetero


@dataclass(frozen=True, slots=True)
class Distillation:
    """Terms of one graph distillation unit, with their factors."""

    logit: Tensor
    representation: Tensor
    regulariser: Tensor


def homogeneous_distillation(out: DHMDOutput, taught: Tensor, prior: Tensor, regulariser: float) -> Distillation:
    """Logits, and representations by their L1 distance, each weighed by edge + prior sample by sample.

    taught: (B, 3) bool, the present modalities of the samples that take part.
    """
    branch, terms = out.homogeneous, []
    for k, (student, teacher, exists) in enumerate(_edges(branch.representation, taught)):
        distance = (student - teacher.detach()).abs().sum(dim=-1)
        terms.append(_mean((branch.edges[:, k] + prior[k]) * distance, exists))
    return Distillation(
        _logit_distillation(branch, taught, prior),
        REPRESENTATION_SCALE * torch.stack(terms).sum(),
        _regulariser(branch.edges, taught, prior, regulariser),
    )


def heterogeneous_distillation(out: DHMDOutput, taught: Tensor, prior: Tensor, regulariser: float) -> Distillation:
    """Logits as in the homogeneous space; representations are pushed apart, cosine mean times edge mean."""
    branch, terms = out.heterogeneous, []
    for k, (student, teacher, exists) in enumerate(_edges(branch.representation, taught)):
        alike = F.cosine_similarity(student, teacher.detach(), dim=-1).clamp(min=0)
        terms.append(_mean(alike, exists) * _mean(branch.edges[:, k] + prior[k], exists))
    return Distillation(
        _logit_distillation(branch, taught, prior),
        REPRESENTATION_SCALE * torch.stack(terms).sum(),
        _regulariser(branch.edges, taught, prior, regulariser),
    )


def _logit_distillation(branch: Branch, present: Tensor, prior: Tensor) -> Tensor:
    """The distance of two logit vectors is the mean over their numbers, whatever the number of heads."""
    terms = [
        _mean((branch.edges[:, k] + prior[k]) * (student - teacher.detach()).abs().mean(dim=-1), exists)
        for k, (student, teacher, exists) in enumerate(_edges(branch.logit, present))
    ]
    return LOGIT_SCALE * torch.stack(terms).sum()


def product(model: DHMD, out: DHMDOutput, temperature: Mapping[Modality, float]) -> Tensor:
    """`product`: how far the estimate is from the product of what its modalities say alone, over windows of several.

    Alone a modality speaks by its homogeneous logit, divided by its temperature. The divergence (Kullback-Leibler)
    moves the estimate alone. Classes are taken to be equally frequent, as composed windows draw them: a prior would add
    the same to each.
    """
    several = out.present.sum(dim=1) > 1
    alone = {m: model.split(out.homogeneous.logit[m].detach()) for m in Modality}
    estimate, terms = model.split(out.output), [out.output.new_zeros(())]
    for head in model.config.heads:
        if head.kind == "classification":
            said = [F.log_softmax(alone[m][head.name] / temperature.get(m, 1.0), dim=-1) for m in Modality]
            target = F.log_softmax((torch.stack(said, dim=1) * out.present[..., None]).sum(dim=1), dim=-1)
            fused = F.log_softmax(estimate[head.name], dim=-1)
            terms.append(_mean(F.kl_div(fused, target, reduction="none", log_target=True).sum(dim=-1), several))
    return torch.stack(terms).sum()


def known(heads: tuple[Head, ...], labels: Labels) -> Tensor:
    """(B,) bool: samples that any head has a label of. Where strangers disagree there is none."""
    return torch.stack([labels.known(head) for head in heads]).any(dim=0)


def _regulariser(edges: Tensor, present: Tensor, prior: Tensor, scale: float) -> Tensor:
    """Regulariser over the samples that have all modalities: with fewer, the weights are spread over fewer edges."""
    whole = present.all(dim=1)
    mean = (edges * whole[:, None]).sum(dim=0) / whole.sum().clamp(min=1)
    return scale * ((mean - prior) ** 2).sum() * whole.any()


def _edges(node: Mapping[Modality, Tensor], present: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Student, teacher and the (B,) samples that have both, in the order of `EDGES`."""
    order = list(Modality)
    for edge in EDGES:
        exists = present[:, order.index(edge.target)] & present[:, order.index(edge.source)]
        yield node[edge.target], node[edge.source], exists


def _mean(x: Tensor, chosen: Tensor) -> Tensor:
    """Mean of (B,) over the chosen samples; zero when there is none."""
    return (x * chosen).sum() / chosen.sum().clamp(min=1)


def _step_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of (B, T', d) over its present steps and the features."""
    return (x * mask[..., None]).sum() / (mask.sum() * x.shape[-1]).clamp(min=1)


def _sum(terms: Iterator[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum()
