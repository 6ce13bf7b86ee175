"""A manifest with contempt, which FER+ counted and `base` does not know: a head of one's own by a recipe.

    dhmd-train prepare fer2013 --corpora DIR
    python docs/examples/contempt.py DIR/ferplus_votes.csv data/fer2013 data/contempt.csv
    dhmd-train extract contempt
    dhmd-train fit configs/contempt.yaml --manifest contempt

A picture is taken for what more than half of its taggers named. Of each class at most so many pictures are taken that
the rare ones are not drowned.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Final

CLASSES: Final = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
MOST: Final = 300
"""Pictures of a class, to learn from and to test."""
TWIN: Final = "twin_in_blind_set"


def main(votes: Path, pictures: Path, manifest: Path) -> None:
    taken: Counter[tuple[str, str]] = Counter()
    with votes.open(encoding="utf-8", newline="") as file, manifest.open("w", encoding="utf-8", newline="") as out:
        table = csv.writer(out)
        table.writerow(("id", "split", "image", "expression"))
        # In an order that means nothing, so that the first ones of a class are as good as any.
        for row in sorted(csv.DictReader(file), key=lambda row: sha256(row["image"].encode()).digest()):
            counts = {name: int(row[name] or 0) for name in row if name not in {"image", TWIN}}
            total = sum(counts.values())
            expression = max(CLASSES, key=lambda name: counts.get(name, 0))
            picture = pictures / row["image"]
            test = row["image"].startswith("test/")
            key = expression, "test" if test else "train"
            twin = row[TWIN] == "1" and not test  # of a picture that is tested
            if 2 * counts[expression] <= total or taken[key] == MOST or twin or not picture.is_file():
                continue
            taken[key] += 1
            split = "test" if test else "train" if taken[key] % 5 else "validation"
            table.writerow((row["image"], split, picture.resolve(), expression))
    for name in CLASSES:
        print(f"{name}: {taken[name, 'train']} to learn from, {taken[name, 'test']} to test")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
