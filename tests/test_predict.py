"""`thaw predict`: what a network says of photos, for people and for programs."""

import csv
import io
import json
import os
import re

import keras
import numpy as np
import pytest
import small_network
from own_photos import photo
from PIL import Image

from thaw.__main__ import main
from thaw.delivery import predict
from thaw.network import backbones, saved

CLASSES = ["daisy", "@SUM(A1)", '"<b>rose</b>", $(touch x)']


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small network, as both files."""
    from conftest import made_up_data

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.REGISTRY, "small", small_network.SMALL)
        setup = small_network.setup(made_up_data(32))
    setup.model.get_layer("head").bias.assign([0, 0.5, 0])
    network = saved.plain(setup.model, setup.backbone.preprocess, 32)
    folder = tmp_path_factory.mktemp("small") / "model"
    folder.mkdir()
    saved.save_keras(network, CLASSES, folder / saved.KERAS)
    saved.save_tflite(network, CLASSES, folder / saved.TFLITE)
    return folder


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Photos in a folder and below it, one that is damaged, and files that are no photos."""
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("a.png", "=b.png", "deep/c.jpg")):
        photo(number, (40 + number, 30)).save(f"photos/{name}")
    photo(4).convert("RGBA").save("photos/transparent.webp")
    photo(5).convert("L").save("-grey.bmp")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8 no")
    (tmp_path / "photos" / "notes.txt").write_text("no photo")
    (tmp_path / "photos" / ".hidden.png").write_text("no photo")
    return tmp_path / "photos"


def said(capfd, *arguments, code: int = 0) -> tuple[str, str]:
    assert main(["predict", *map(str, arguments)]) == code
    shown = capfd.readouterr()
    assert "Traceback" not in shown.err
    return shown.out, shown.err


@pytest.mark.parametrize("name", ["", saved.KERAS, saved.TFLITE])
def test_photos_get_a_line_each_and_a_folder_its_counts(name, model, photos, capfd):
    out, err = said(capfd, model / name, "photos", "photos/a.png", code=1)
    lines = out.splitlines()
    named = [re.fullmatch(r" *[\d.]+%  (.+?)  +(photos/.*)", line) for line in lines[:5]]
    assert [each[2] for each in named] == [
        "photos/=b.png",
        "photos/a.png",
        "photos/deep/c.jpg",
        "photos/transparent.webp",
        "photos/a.png",
    ]
    network = saved.Saved.load(str(model / saved.KERAS))
    for each in named:
        probabilities = network.probabilities(np.asarray(Image.open(each[2]).convert("RGB")))
        if each[2] != "photos/transparent.webp":
            assert each[1] == CLASSES[probabilities.argmax()]
    assert lines[6] == "photos: 4 photos"
    assert sum(int(line.split()[0]) for line in lines[7:]) == 4
    assert err.count("\n") == 1
    assert "photos/broken.jpg: cannot be read: " in err


def test_csv_has_no_cell_that_a_spreadsheet_would_run(model, photos, capfd):
    out, _ = said(capfd, model, "--csv", "--", "-grey.bmp", "photos/a.png")
    header, *rows = csv.reader(io.StringIO(out))
    assert header == ["path", "class", "probability"]
    assert rows[0][0] == "'-grey.bmp"
    assert {row[1] for row in rows} <= {"daisy", "'@SUM(A1)", '"<b>rose</b>", $(touch x)'}
    assert all(0 < float(row[2]) <= 1 for row in rows)
    for cell in ("=1", "+1", "-1", "@x", "＝1"):
        (row,) = csv.reader(io.StringIO(predict._csv(cell, "a,b")))
        assert row == [f"'{cell}", "a,b"]


def test_json_has_the_probability_of_each_class(model, photos, capfd):
    out, err = said(capfd, model, "photos", "nowhere.jpg", "--json", code=1)
    found = json.loads(out)
    assert [each["path"] for each in found["photos"]][:2] == ["photos/=b.png", "photos/a.png"]
    for each in found["photos"]:
        assert list(each["probabilities"]) == CLASSES
        assert abs(sum(each["probabilities"].values()) - 1) < 1e-5
        assert max(each["probabilities"], key=each["probabilities"].get) == each["class"]
    assert [each["path"] for each in found["unreadable"]] == ["photos/broken.jpg", "nowhere.jpg"]
    assert found["unreadable"][1]["reason"] == "there is no such file"
    assert sum(found["folders"]["photos"].values()) == 4
    assert err.count("\n") == 2


def test_what_is_no_file_and_what_is_empty_is_named(model, photos, capfd):
    os.mkfifo("pipe.jpg")
    (photos / "empty").mkdir()
    out, err = said(capfd, model, "pipe.jpg", "photos/empty", "photos/a.png", code=1)
    assert "pipe.jpg: cannot be read: not a file" in err
    assert "photos/empty: cannot be read: no photos in this folder" in err
    assert "photos/a.png" in out


def test_a_name_with_control_characters_stays_in_its_line(model, photos, capfd):
    photo(7).save("photos/a\x1b[2J\nb.png")
    out, _ = said(capfd, model, "photos", code=1)
    assert "\x1b" not in out
    assert "a\\x1b[2J\\nb.png" in out


def test_a_photo_on_its_side_is_turned(model, photos, capfd):
    upright = photo(9, (60, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.save("upright.png")
    upright.transpose(Image.Transpose.ROTATE_90).save("turned.png", exif=exif)
    out, _ = said(capfd, model, "upright.png", "turned.png", "--json")
    first, second = json.loads(out)["photos"]
    assert first["probabilities"] == second["probabilities"]


def test_a_wrong_model_ends_in_one_message(photos, capfd, tmp_path):
    for given in ("nowhere", "photos", "photos/a.png"):
        assert main(["predict", given, "photos/a.png"]) == 1
        err = capfd.readouterr().err
        assert err.startswith(f"\nthaw: MODEL = {given!r}: ")
        assert err.count("\n") == 2
    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()]).save(tmp_path / "other.keras")
    assert main(["predict", str(tmp_path / "other.keras"), "photos/a.png"]) == 1
    assert "holds no labels.txt" in capfd.readouterr().err
    assert main(["predict", "nowhere"]) == 2
    assert "PHOTOS" in capfd.readouterr().err
