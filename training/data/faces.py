"""FER2013 and CK+ as examples: of each image the rows of its variants."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dhmd.contract import Rows
from dhmd.features.expression import ExpressionNet
from dhmd.features.face import face_spec
from dhmd.labels import EMOTIONS
from dhmd.modality import Modality
from training.data.items import Archived, Example, Item, Split
from training.data.store import FeatureStore, feature_key
from training.errors import CorpusMissing
from training.expression import VARIANTS, feature_rows_of_images
from training.face_images import LabelledImage, face_images, labelled_images


def face_examples(corpora: Path, network: ExpressionNet, cache: Path, store_path: Path) -> list[Example]:
    """Every image in the splits of `labelled_images`.

    Rows are the variants of the image in the order of VARIANTS, all at time 0; none where no face was found.
    cache: where the aligned crops lie; store_path: where the rows are kept for this network.
    """
    try:
        images = labelled_images(corpora)
    except FileNotFoundError as error:
        raise CorpusMissing(f"{error.filename} is not there: pass the folder of the corpora with --corpora") from error
    spec = face_spec(network)
    keys = [feature_key(image.pixels_sha256, spec) for image in images]
    with FeatureStore(store_path) as store:
        if store.missing(keys):
            found = np.flatnonzero(face_images(corpora, cache).found)
            seen = dict(zip(found.tolist(), feature_rows_of_images(corpora, network, cache).rows, strict=True))
            times = np.zeros(len(VARIANTS))
            store.put_all(
                (key, Rows(times, seen[i]) if i in seen else Rows.empty(spec.width)) for i, key in enumerate(keys)
            )
        rows = store.get_all(keys, spec.width)
    return [Example(_item(corpora, image), one) for image, one in zip(images, rows, strict=True)]


def _item(corpora: Path, image: LabelledImage) -> Item:
    """CK+ images are grouped by subject; FER2013 names nobody, so an image is its own group, copies together."""
    corpus, name = Path(image.archive).stem, Path(image.member)
    group = name.stem.split("_")[0] if corpus == "ck48" else image.pixels_sha256
    return Item(
        id=f"{corpus}/{name.with_suffix('')}",
        corpus=corpus,
        split=Split(image.split),
        group=f"{corpus}/{group}",
        modality=Modality.VISION,
        content=Archived(corpora / image.archive, image.member),
        emotion=EMOTIONS[image.label],
    )
