"""The model card: what the network does, how it was made, how accurate it is, and what it is not good for."""

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from thaw.records.record import Record
from thaw.report import words
from thaw.report.display import markdown, one_line

USE = """```python
import keras
import numpy as np
from PIL import Image

model = keras.saving.load_model("model.keras")
photo = np.asarray(Image.open("photo.jpg").convert("RGB"))
classes = open("labels.txt", encoding="utf-8").read().splitlines()
print(dict(zip(classes, model(photo[None]).numpy()[0].round(3))))
```"""
# As far as it is known: licences of data sets and of Keras' weights, by name.
DATA_LICENCES = {
    "tf_flowers": "Creative Commons Attribution 2.0 (CC BY 2.0), each photo by a member of Flickr",
    "demo_flowers": "Creative Commons Attribution 2.0 (CC BY 2.0), each photo by a member of Flickr",
}
WEIGHTS_LICENCES = {"mobilenet": "Apache License 2.0"}


def write(record: Record, row: pd.Series, about: Mapping[str, Any]) -> str:
    """Write the card as Markdown.

    Parameters
    ----------
    record : Record
        Of a run of the same configuration.
    row : Series
        The configuration's, of the results.
    about : mapping
        What ``model.json`` says.
    """
    experiment, tested = about["experiment"], about["tested"]
    text = words.write(
        "card",
        about=about,
        experiment=experiment,
        network=about["network"],
        tested=tested,
        data=record.data,
        weights=record.weights,
        row=row,
        title=one_line(record.data["title"]),
        data_licence=DATA_LICENCES.get(record.data["dataset"].split("/")[0]),
        weights_licence=WEIGHTS_LICENCES.get(record.experiment.backbone) if record.weights["official"] else None,
        versions=[f"{name} {version}" for name, version in about["network"]["versions"].items()],
    )
    recall = pd.DataFrame(
        [
            (markdown(name), f"{tested['photos_of_class'][name]:,}", words.percent(share, 0))
            for name, share in tested["recall"].items()
        ],
        columns=["Class", "Test photos", "Of these classified correctly"],
    )
    files = pd.DataFrame([(f"`{name}`", f"`{digest}`") for name, digest in about["files"].items()])
    parts = {
        "classes": recall.to_markdown(index=False, disable_numparse=True),
        "use": USE,
        "files": files.set_axis(["File", "SHA-256"], axis=1).to_markdown(index=False, disable_numparse=True),
    }
    # Text from outside has no bare punctuation, so that these lines are the template's own.
    return re.sub(r"^@(\w+)$", lambda line: parts[line[1]], text, flags=re.MULTILINE) + "\n"
