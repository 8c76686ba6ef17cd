"""The model card: what the network does, how it was made, how accurate it is, and what it is not good for."""

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup

from thaw.experiment import OWN_PHOTOS
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
FLOWERS = Markup("Creative Commons Attribution 2.0 (CC BY 2.0), each photo by a member of Flickr")
# As far as they are known. A description beside a weights file may name another.
DATA_LICENCES = {"tf_flowers": FLOWERS, "demo_flowers": FLOWERS}
WEIGHTS_LICENCES = {"mobilenet": Markup("Apache License 2.0")}


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
    experiment, tested, dataset = about["experiment"], about["tested"], record.data["dataset"]
    known = WEIGHTS_LICENCES.get(record.experiment.backbone)
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
        name=dataset if dataset.partition(":")[0] not in OWN_PHOTOS else "",  # the folder concerns nobody else
        data_licence=DATA_LICENCES.get(dataset),
        weights_licence=record.weights.get("licence") or (known if record.weights["official"] else None),
        rates=[Markup(words.parameter(experiment[f"{phase}_learning_rate"])) for phase in ("head", "finetune")],
        versions=[Markup(f"{name} {version}") for name, version in about["network"]["versions"].items()],
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
