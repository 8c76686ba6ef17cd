"""Photos of one's own: in folders and tables, as real files are."""

import json
import os
import re
import shutil
import socket
import struct
import time
import unicodedata
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from conftest import has_flowers
from hypothesis import given, settings
from hypothesis import strategies as st
from own_photos import fill, photo
from PIL import Image

from thaw.data import decoding, files, photos, splits
from thaw.data.augmentation import with_copies
from thaw.data.source import find_source, on_disk
from thaw.errors import DataDamaged, DataNotFound, InvalidParameter

TWO = {"cat": 40, "dog": 40}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes of 40 photos each."""
    return fill(tmp_path / "pets", TWO)


def found(folder: Path, **options):
    return find_source(f"folder:{folder}", **options)


def parts_of(source) -> dict[str, str]:
    """The part of each photo, by its path."""
    listing = source.listing()
    return dict(zip(listing["path"], listing["part"]))


# Layouts


def test_a_sub_folder_is_a_class(folder):
    source = found(folder)
    assert (source.classes, len(source), source.title) == (("cat", "dog"), 80, "pets")
    assert Counter(source.listing()["label"]) == TWO
    assert source.listing()["path"].iloc[0].count("/") == 1
    assert source.description == f"80 photos of 2 classes, from the folder {folder}."


def test_parts_cover_all_photos_once_in_about_their_shares(tmp_path):
    source = found(fill(tmp_path / "many", {"a": 400, "b": 400}))
    parts = source.parts()
    assert sorted(np.concatenate(parts)) == list(range(800))
    shares = [len(part) / 800 for part in parts]
    assert np.allclose(shares, splits.SHARES, atol=0.04)
    assert "75% train" in source.splits


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Train", "VALIDATION", "Test"), ("TRAIN", "valid", "test")]
)
def test_the_owner_s_parts_are_used(tmp_path, names):
    for seed, (name, count) in enumerate(zip(names, (20, 5, 6))):
        fill(tmp_path / name, {"cat": count, "dog": count}, seed)
    source = found(tmp_path)
    assert [len(part) for part in source.parts()] == [40, 10, 12]
    assert {path.split("/")[0] for path, part in parts_of(source).items() if part == "validation"} == {names[1]}
    assert source.splits == "The photos came divided into train, validation and test."
    anew = found(tmp_path, splits="position")
    assert [len(part) for part in anew.parts()] != [40, 10, 12]
    assert "hash" in anew.splits


def test_a_part_that_is_missing_is_taken_from_train(tmp_path):
    fill(tmp_path / "train", {"cat": 120, "dog": 120})
    fill(tmp_path / "test", TWO, seed=1)
    source = found(tmp_path)
    train, validation, test = source.parts()
    assert len(test) == 80
    assert len(train) + len(validation) == 240
    assert 0.08 < len(validation) / 240 < 0.25
    assert "17% validation, taken from train" in source.splits


def test_classes_called_train_and_test_are_classes(tmp_path):
    source = found(fill(tmp_path, {"train": 40, "car": 40}))
    assert source.classes == ("car", "train")


def test_a_class_folder_beside_train_and_test_is_refused(tmp_path):
    fill(tmp_path / "train", TWO)
    fill(tmp_path, {"bird": 3})
    with pytest.raises(InvalidParameter, match="photos in 'bird', beside train"):
        found(tmp_path)


def test_photos_to_be_tested_that_have_no_class_are_named(tmp_path):
    fill(tmp_path / "train", TWO)
    fill(tmp_path, {"test": 4}, seed=1)
    source = found(tmp_path)
    assert len(source) == 80
    assert source.ignored == tuple(f"test/{i}.bmp" for i in range(4))


def test_folders_in_a_class_folder_belong_to_it_and_links_do_not_go_round(folder):
    fill(folder / "cat", {"2021": 3}, seed=5)
    elsewhere = fill(folder.parent / "elsewhere", {"more": 4}, seed=6)
    os.symlink(elsewhere / "more", folder / "dog" / "linked")
    os.symlink(folder, folder / "cat" / "round")
    os.symlink(folder / "dog", folder / "dog" / "itself")
    source = found(folder)
    paths = set(source.listing()["path"])
    assert {f"cat/2021/{i}.bmp" for i in range(3)} <= paths
    assert {f"dog/linked/{i}.bmp" for i in range(4)} <= paths
    assert len(source) == 87
    assert set(source.ignored) == {"cat/round/", "dog/itself/"}


def test_names_with_spaces_unicode_and_any_case(tmp_path):
    names = ["Größe 1", "日本 語", 'it\'s, "so"; $HOME', unicodedata.normalize("NFD", "né")]
    for seed, name in enumerate(names):
        fill(tmp_path, {name: 40}, seed, suffix=[".BMP", ".Png", ".jPeG", ".tif"][seed])
    data = photos.load_photos(f"folder:{tmp_path}", 32)
    assert set(data.classes) == {unicodedata.normalize("NFC", name) for name in names}
    assert len(data) == 160
    assert json.loads(json.dumps(data.provenance)) == data.provenance


# Order and parts: each photo for itself


ROWS = st.lists(st.tuples(st.integers(), st.sampled_from("ab"), st.sampled_from(["train", "train", "test"])))


@given(ROWS.filter(lambda rows: len(rows) > 8), ROWS, st.booleans())
@settings(deadline=None)
def test_adding_photos_moves_no_other(before, more, divided):
    """The law, for classes with a photo in each part: a photo's part depends on its own name alone."""
    rows = [(f"{name}{label}", label, part if divided else "train") for name, label, part in before + more]
    if {part for _, _, part in rows[: len(before)]} == {part for _, _, part in rows}:
        alone, together = (splits.by_hash(*zip(*rows[:count])) for count in (len(before), len(rows)))
        cells = Counter((label, part) for _, label, part in {(*row[:2], part) for row, part in zip(rows, alone)})
        for i, (_, label, _) in enumerate(rows[: len(before)]):
            if all(cells[label, part] > 1 for part in splits.PARTS):
                assert together[i] == alone[i]


def test_a_small_class_gets_a_photo_in_each_part():
    for start in range(100):
        names = [f"{start} {i}" for i in range(6)]
        parts = splits.by_hash(names, ["a"] * 6, ["train"] * 6)
        if max(map(splits.fraction, names)) < 0.9 and min(map(splits.fraction, names)) < 0.5:
            assert set(parts) == set(splits.PARTS)
    assert splits.by_hash(["x"] * 6, ["a"] * 6, ["train"] * 6) == splits.by_hash(["x"], ["a"], ["train"]) * 6


def test_adding_photos_to_a_folder_moves_no_other(folder):
    before = parts_of(found(folder))
    order = found(folder).listing()["path"].tolist()
    fill(folder, {"cat": 90, "dog": 60, "bird": 50}, seed=0)
    after = found(folder)
    assert parts_of(after).items() >= before.items()
    assert [path for path in after.listing()["path"] if path in before] == order


def test_the_same_photo_twice_is_in_one_part(folder):
    for i in range(40):
        shutil.copy(folder / "cat" / f"{i}.bmp", folder / "dog" / f"copy {i}.bmp")
    source = found(folder)
    assert source.listing().groupby("sha256")["part"].nunique().max() == 1
    assert len(source) == 120


def test_parts_and_order_do_not_depend_on_names(folder):
    before = found(folder).listing()
    for path in list(folder.rglob("*.bmp")):
        path.rename(path.with_name(f"renamed {99 - int(path.stem)}.bmp"))
    after = found(folder).listing()
    assert after[["sha256", "part", "label"]].equals(before[["sha256", "part", "label"]])


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(splits.PARTS)), min_size=9), st.integers(9, 60))
def test_the_first_photos_are_of_every_class_and_part(rows, count):
    table = pd.DataFrame(rows, columns=["label", "part"]).assign(path=range(len(rows)))
    few = splits.first(table, count)
    assert len(few) == min(count, len(table))
    assert few["path"].is_monotonic_increasing
    assert set(map(tuple, few[["label", "part"]].to_numpy())) == set(rows)


def test_max_examples_takes_some_of_each(folder):
    data = photos.load_photos(f"folder:{folder}", 32, 30)
    assert len(data) == 30
    assert data.provenance["photos"]["available"] == 80
    assert data.listing().groupby(["label", "part"]).size().min() >= 1
    whole = photos.load_photos(f"folder:{folder}", 32)
    position = {key: i for i, key in enumerate(whole.keys)}
    rows = np.array([position[key] for key in data.keys])
    assert np.array_equal(data.images[:], whole.images[rows])
    with pytest.raises(InvalidParameter, match=r"max_examples = 5: .* 2 classes.*Give 6 or more"):
        found(folder).first(5)


# What a network is given


def test_photos_are_read_in_order_with_their_labels(folder):
    data = photos.load_photos(f"folder:{folder}", 32)
    listing = data.listing()
    assert list(listing.columns) == ["path", "label", "part", "sha256"]
    assert listing["path"].tolist() == data.keys.tolist()
    for row in (0, 17, 79):
        assert data.classes[data.labels[row]] == data.keys[row].split("/")[0]
        image = np.asarray(Image.open(folder / data.keys[row]))
        wanted = tf.image.resize(image, (32, 32), antialias=True).numpy().round()
        assert np.array_equal(data.images[row], wanted.astype(np.uint8))
    assert listing["part"].value_counts().to_dict() == {part: data.provenance["photos"][part] for part in splits.PARTS}


def jpeg_turned(folder: Path, orientation: int) -> np.ndarray:
    """Save a photo as a camera does that was turned; give its pixels upright."""
    upright = np.zeros((40, 64, 3), np.uint8)
    upright[:20, :32], upright[20:, 32:] = (250, 10, 10), (10, 10, 250)
    back = {1: 0, 2: 0, 3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}[orientation]
    image = Image.fromarray(upright)
    if orientation in (2, 4, 5, 7):
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.rotate(back, expand=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(folder / "turned.jpg", exif=exif, quality=95, subsampling=0)
    return upright


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_as_their_exif_data_say(tmp_path, orientation):
    upright = jpeg_turned(tmp_path, orientation)
    read = decoding.read(tmp_path / "turned.jpg")
    assert read.shape == (40, 64, 3)
    assert np.abs(read.astype(int) - upright).mean() < 8
    look = decoding.look(tmp_path / "turned.jpg")
    assert (look["width"], look["height"]) == (64, 40)


GREY = np.linspace(0, 255, 240).reshape(12, 20)


def odd_photos() -> dict[str, tuple[Image.Image, np.ndarray]]:
    """Photos of every mode, each with the grey that it has to become, (12, 20)."""
    grey = Image.fromarray(GREY.round().astype(np.uint8))
    sixteen = (GREY * 257).round()
    clear = grey.convert("RGBA")
    clear.putalpha(Image.fromarray(np.full((12, 20), 51, np.uint8)))
    palette = grey.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    hidden = Image.fromarray(np.tile(np.uint8([[0, 1]]), (12, 10)))
    return {
        "grey.png": (grey, GREY),
        "grey.webp": (grey.convert("RGB"), GREY),
        "palette.gif": (palette, GREY),
        "palette.png": (palette, GREY),
        "alpha.png": (clear, 0.2 * GREY + 0.8 * 255),
        "alpha.webp": (clear, 0.2 * GREY + 0.8 * 255),
        "grey-alpha.png": (clear.convert("LA"), 0.2 * GREY + 0.8 * 255),
        "one-colour-clear.png": (hidden.convert("L"), np.tile([[255, 1]], (12, 10))),
        "print.jpg": (grey.convert("RGB").convert("CMYK"), GREY),
        "print.tif": (grey.convert("RGB").convert("CMYK"), GREY),
        "sixteen.png": (Image.fromarray(sixteen.astype(np.uint16)), GREY),
        "sixteen.tiff": (Image.fromarray(sixteen.astype(np.uint16)), GREY),
        "thirty-two.tif": (Image.fromarray(sixteen.astype(np.int32)), GREY),
        "fractions.tif": (Image.fromarray((GREY / 255).astype(np.float32)), GREY),
        "black-and-white.bmp": (grey.convert("1", dither=0), np.where(GREY > 127, 255, 0)),
    }


@pytest.mark.parametrize("name", odd_photos())
def test_every_kind_of_photo_becomes_rgb(tmp_path, name):
    image, wanted = odd_photos()[name]
    options = {"transparency": 0} if name == "one-colour-clear.png" else {}
    if name.endswith("webp"):
        options = {"lossless": True, "exact": True}
    image.save(tmp_path / name, **options)
    read = decoding.read(tmp_path / name)
    assert read.shape == (12, 20, 3)
    assert read.dtype == np.uint8
    off = np.abs(read.astype(float) - wanted[:, :, None])
    assert off.max() <= (12 if name == "print.jpg" else 2)
    assert decoding.look(tmp_path / name)["format"] == Image.open(tmp_path / name).format


def test_huge_photos_are_decoded_one_at_a_time_and_by_rows(tmp_path, monkeypatch):
    """A small file may hold one: each takes up to 3 GB, and four threads read photos."""
    whole, at_once, most = decoding._rgb, [], []

    def watched(image):
        at_once.append(image)
        most.append(len(at_once))
        time.sleep(0.01)
        at_once.remove(image)
        return whole(image)

    monkeypatch.setattr(decoding, "_rgb", watched)
    photo(0, (20, 12)).save(tmp_path / "a.png")
    for huge, several in ((100, False), (20 * 12, True)):
        most.clear()
        monkeypatch.setattr(decoding, "HUGE", huge)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(decoding.read, [tmp_path / "a.png"] * 20))
        assert (max(most) > 1) is several
    Image.fromarray((GREY * 257).round().astype(np.uint16)).save(tmp_path / "sixteen.png")
    before = decoding.read(tmp_path / "sixteen.png")
    monkeypatch.setattr(decoding, "ROWS", 5)
    assert np.array_equal(decoding.read(tmp_path / "sixteen.png"), before)


def chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(folder: Path, kind: str) -> str:
    """Write a small file that would fill the memory; what is said of it."""
    path, packed = folder / "bomb.png", zlib.compress(bytes(2**27))
    side = 50_000 if kind == "pixels" else 8
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    extra = {"text": chunk(b"zTXt", b"k\0\0" + packed), "colours": chunk(b"iCCP", b"k\0\0" + packed)}.get(kind, b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", packed) + chunk(b"IEND", b""))
    if kind == "length":
        with path.open("r+b") as file:
            file.truncate(decoding.BYTES + 2**20)
        return "1,025 MB: more than 1,024"
    return "more than 179 million pixels" if kind == "pixels" else "damaged (Decompressed data too large"


@pytest.mark.parametrize("kind", ["pixels", "text", "colours", "length"])
def test_a_bomb_is_a_photo_that_cannot_be_read(tmp_path, kind):
    said = bomb(tmp_path, kind)
    assert decoding.look(tmp_path / "bomb.png")["reason"].startswith(said)
    with pytest.raises(decoding.Unreadable, match=re.escape(said)):
        decoding.read(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/x) (w) file",  # Ghostscript would run it
        b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        b"%PDF-1.4\n",
        b"8BPS\0\1\0\0\0\0\0\0\0\3\0\0\0\1\0\0\0\1\0\10\0\3",
        b"P6 9 9 255 " + bytes(243),
    ],
    ids=["EPS", "SVG", "PDF", "PSD", "PPM"],
)
def test_no_other_format_is_read_whatever_the_file_is_called(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    assert decoding.look(tmp_path / "a.jpg") == {"reason": "not a photo in JPEG, PNG, WebP, BMP, GIF or TIFF"}


def test_of_a_moving_picture_the_first_frame_is_read(tmp_path):
    frames = [Image.new("RGB", (20, 12), colour) for colour in ("red", "blue", "white")]
    for name in ("a.gif", "a.webp", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert np.abs(decoding.read(tmp_path / name).astype(int) - (255, 0, 0)).max() < 6


def test_damaged_exif_data_spoil_no_photo(tmp_path):
    photo(0, (20, 12)).save(tmp_path / "a.jpg", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xffrubbish")
    assert decoding.read(tmp_path / "a.jpg").shape == (12, 20, 3)
    assert decoding.look(tmp_path / "a.jpg")["width"] == 20


def test_a_large_photo_is_halved_first(tmp_path, monkeypatch):
    photo(0, (40, 24)).resize((400, 240)).save(tmp_path / "a.png")
    whole = decoding.read(tmp_path / "a.png")
    monkeypatch.setattr(decoding, "LARGE", 400 * 240 // 2)
    half = decoding.read(tmp_path / "a.png")
    assert half.shape == (120, 200, 3)
    assert np.abs(half.astype(int) - whole[::2, ::2]).mean() < 15


# What cannot be read


def spoil(folder: Path) -> dict[str, str]:
    """Put one of every kind of unreadable photo into a class; give the reason for each."""
    photo(1, (200, 200)).save(folder / "cat" / "cut.jpg")
    content = (folder / "cat" / "cut.jpg").read_bytes()
    (folder / "cat" / "cut.jpg").write_bytes(content[: len(content) // 2])
    photo(1, (200, 200)).save(folder / "cat" / "cut.png")
    content = (folder / "cat" / "cut.png").read_bytes()
    (folder / "cat" / "cut.png").write_bytes(content[: len(content) // 2])
    (folder / "cat" / "empty.jpg").write_bytes(b"")
    (folder / "cat" / "words.jpg").write_text("no photo")
    (folder / "cat" / "phone.HEIC").write_bytes(b"ftypheic")
    (folder / "cat" / "gone.png").symlink_to(folder / "nowhere.png")
    (folder / "cat" / "folder.png").mkdir()
    photo(2).save(folder / "cat" / "line\nend.bmp")
    return {
        "cat/cut.jpg": "damaged (image file is truncated",
        "cat/cut.png": "damaged (image file is truncated",
        "cat/empty.jpg": "the file is empty",
        "cat/words.jpg": "not a photo in JPEG, PNG, WebP, BMP, GIF or TIFF",
        "cat/phone.HEIC": "HEIC is not read: save it as JPEG or PNG",
        "cat/gone.png": "there is no such file",
        "cat/line\\nend.bmp": "its name has a control character",
    }


def test_what_cannot_be_read_is_listed_with_its_reason_before_anything_runs(folder):
    reasons = spoil(folder)
    with pytest.raises(DataDamaged) as caught:
        found(folder)
    message = str(caught.value)
    assert "7 of 87 photos cannot be read" in message
    assert "on_damaged to leave_out" in message
    assert all(f"{path}: {reason}" in message for path, reason in reasons.items())


def test_what_is_left_out_stands_in_the_provenance(folder):
    reasons = spoil(folder)
    data = photos.load_photos(f"folder:{folder}", 32, on_damaged="leave_out")
    left_out = {entry["path"]: entry["reason"] for entry in data.provenance["left_out"]}
    assert left_out.keys() == reasons.keys()
    assert all(left_out[path].startswith(reason) for path, reason in reasons.items())
    assert len(data) == 80
    assert not set(left_out) & set(data.keys)


def test_nothing_that_can_be_read(tmp_path):
    for name in ("cat/0.jpg", "cat/1.jpg", "dog/2.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InvalidParameter, match=r"0 photos \(3 cannot be read\). 20 or more are needed"):
        found(tmp_path, on_damaged="leave_out")


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(decoding.Unreadable, match="more than 179 million"):
        decoding.read(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as another library may have set it
    assert "more than 179 million" in decoding.look(tmp_path / "bomb.png")["reason"]


def test_files_that_are_no_photos_are_named(folder):
    (folder / "notes.txt").write_text("x")
    (folder / "cat" / "Thumbs.db").write_text("x")
    (folder / "cat" / "._1.bmp").write_text("x")
    (folder / ".git").mkdir()
    (folder / "nothing here").mkdir()
    photo(3).save(folder / "lonely.png")
    source = found(folder)
    assert len(source) == 80
    assert set(source.ignored) == {
        *("notes.txt", "cat/Thumbs.db", "cat/._1.bmp", ".git/", "nothing here/", "lonely.png")
    }


def test_a_photo_that_changes_while_it_is_read_is_named(folder, monkeypatch):
    source = found(folder)
    (folder / source.listing()["path"][3]).write_bytes(b"rubbish")
    monkeypatch.setattr(photos, "find_source", lambda *asked: source)
    with pytest.raises(DataDamaged, match=f"{source.listing()['path'][3]}: not a photo"):
        photos.load_photos(f"folder:{folder}", 32)


# The cache


def test_photos_are_looked_at_and_decoded_once(folder, monkeypatch):
    before = photos.load_photos(f"folder:{folder}", 32)
    monkeypatch.setattr(decoding, "look", None)
    monkeypatch.setattr(photos, "_decode", None)
    after = photos.load_photos(f"folder:{folder}", 32)
    assert after.provenance == before.provenance
    assert after.listing().equals(before.listing())


def test_only_what_changed_is_looked_at_again(folder, monkeypatch):
    before = found(folder).listing()
    looked = []
    monkeypatch.setattr(decoding, "look", lambda file, look=decoding.look: looked.append(file.name) or look(file))
    stat = (folder / "cat" / "3.bmp").stat()
    photo(777).save(folder / "cat" / "3.bmp")
    os.utime(folder / "cat" / "3.bmp", ns=(stat.st_atime_ns, stat.st_mtime_ns))  # of one size and time
    after = found(folder).listing()
    assert looked == ["3.bmp"]
    assert len(set(before["sha256"]) & set(after["sha256"])) == 79


def test_a_photo_that_is_replaced_is_decoded_anew(folder):
    before = photos.load_photos(f"folder:{folder}", 32)
    photo(777).save(folder / "cat" / "3.bmp")
    after = photos.load_photos(f"folder:{folder}", 32)
    assert after.provenance["sha256"] != before.provenance["sha256"]
    row = after.keys.tolist().index("cat/3.bmp")
    wanted = tf.image.resize(np.asarray(photo(777)), (32, 32), antialias=True).numpy().round()
    assert np.array_equal(after.images[row], wanted)


def test_a_photo_that_gets_another_label_is_noticed(folder):
    before = photos.load_photos(f"folder:{folder}", 32)
    (folder / "cat" / "3.bmp").rename(folder / "dog" / "from cat.bmp")
    after = photos.load_photos(f"folder:{folder}", 32)
    assert after.provenance["sha256"] != before.provenance["sha256"]
    assert np.bincount(after.labels).tolist() == [39, 41]
    moved = photos.load_photos(f"table:{table(folder, split=['train', 'val', 'test', 'test'] * 20)}", 32)
    again = photos.load_photos(f"table:{table(folder, split=['train', 'test', 'test', 'val'] * 20)}", 32)
    assert np.array_equal(moved.keys, again.keys)
    for digest in ("sha256", "files_sha256"):
        assert moved.provenance[digest] != again.provenance[digest], "in other parts"
    assert not np.array_equal(moved.test, again.test)


# Tables


def table(folder: Path, **columns) -> Path:
    """Write a table of all photos of a folder, its class folders being the labels."""
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.bmp"))
    frame = pd.DataFrame({"path": paths, "label": [path.split("/")[0] for path in paths]})
    frame.assign(**columns).to_csv(folder / "photos.csv", index=False)
    return folder / "photos.csv"


def test_a_table_gives_the_photos_of_its_folder(folder):
    data = photos.load_photos(f"table:{table(folder)}", 32)
    same = photos.load_photos(f"folder:{folder}", 32)
    assert data.provenance["sha256"] == same.provenance["sha256"]
    assert np.array_equal(data.test, same.test)
    assert (data.provenance["title"], data.provenance["dataset"]) == ("photos", f"table:{folder / 'photos.csv'}")


def test_a_table_s_splits_and_odd_labels(folder):
    where = ["Train"] * 20 + ["VAL", "valid", "validation"] * 5 + ["test "] * 5
    source = find_source(f"table:{table(folder, split=where * 2, label=['NA'] * 40 + ['007'] * 40)}")
    assert source.classes == ("007", "NA")
    assert [len(part) for part in source.parts()] == [40, 30, 10]


def test_photos_divided_otherwise_are_other_data(folder):
    """Or else a head would be taken over that was trained on what is tested now."""
    where = ["train", "train", "val", "test"] * 20
    given = photos.load_photos(f"table:{table(folder, split=where)}", 32)
    anew = photos.load_photos(f"table:{folder / 'photos.csv'}", 32, splits="position")
    other = photos.load_photos(f"table:{table(folder, split=where[::-1])}", 32)
    assert given.keys.tolist() == anew.keys.tolist() == other.keys.tolist()
    assert len({data.digest for data in (given, anew, other)}) == 3
    copied = [with_copies(data, "flip", 1) for data in (given, other)]
    assert copied[0].digest != copied[1].digest
    for data in copied:
        photo, copy = (data.images[rows[0]] for rows in (data.train, data.epochs[0]))
        assert np.array_equal(photo, copy) or np.array_equal(photo[:, ::-1], copy), "a copy of this very photo"


def test_groups_stay_together(folder):
    groups = [f"plant {i // 2}" if i % 5 else "" for i in range(80)]
    source = find_source(f"table:{table(folder, group=groups)}")
    listing = source.listing()
    grouped = listing[listing["group"] != ""]
    assert grouped.groupby("group")["part"].nunique().max() == 1
    assert grouped["group"].nunique() == 40
    assert "group" in source.splits
    assert "group" in photos.load_photos(f"table:{folder / 'photos.csv'}", 32).listing()
    plain = find_source(f"table:{table(folder)}").listing()
    alone = listing.loc[listing["group"] == "", "path"]
    assert parts_of(source).items() >= dict(plain.loc[plain["path"].isin(alone), ["path", "part"]].to_numpy()).items()


def test_the_same_photo_is_in_one_part_whatever_its_groups(folder):
    """A photo in two groups, or in one and in none: what belongs to either is together."""
    for number in range(30):
        shutil.copy(folder / "cat" / f"{number}.bmp", folder / "dog" / f"{(number + 1) % 40}.bmp")
    groups = [f"plant {number // 4}" if number % 3 else "" for number in range(80)]
    listing = find_source(f"table:{table(folder, group=groups)}").listing()
    assert listing["sha256"].duplicated().sum() == 30
    assert listing.groupby("sha256")["part"].nunique().max() == 1
    assert listing[listing["group"] != ""].groupby("group")["part"].nunique().max() == 1


def test_tables_as_a_spreadsheet_writes_them(folder):
    rows = table(folder).read_text().replace(",", ";").replace("/", "\\").replace("path", "Path ")
    (folder / "photos.csv").write_text(rows.replace("\n", "\r\n") + ";\r\n", encoding="utf-8-sig", newline="")
    assert len(find_source(f"table:{folder / 'photos.csv'}")) == 80


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "a table without photos"),
        ("path,label\n", "a table without photos"),
        ("file,label\na.png,x\n", r"no column path \(columns: file, label\)"),
        ("path,labels\na.png,x\n", "no column label.*Did you mean 'labels'"),
        ("path,label\na.png\n", "not 2 cells in line 2"),
        ("path,label\na.png,x\nb.png,\n,y\n", "no path in line 4"),
        ("path,label\na.png,x\nb.png,\n", "no label in line 3"),
        ("path,label\na.png,x\na.png,y\n", "the same photo again in line 3"),
        ("path,label\na/b.png,x\n./a/b.png,y\n a/b.png,x\n", "the same photo again in lines 3, 4"),
        ("path,label,split\na.png,x,train\nb.png,x,tset\n", "split = 'tset' in line 3. Did you mean 'test'"),
        ("path,label,split\na.png,x,train\nb.png,x,\n", "split = '' in line 3"),
        ("path,label,split\na.png,x,test\n", "no photo's split is train"),
        ('path,label\n"a.png,x\n', "not a CSV file"),
        ("path,label\na.png,x\x07\n", "no name for a class"),
        ("path,label\na.png,x\n", "1 of 1 photos cannot be read. a.png: there is no such file"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, text, said):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with pytest.raises((InvalidParameter, DataDamaged), match=said) as caught:
        find_source(f"table:{tmp_path / 't.csv'}")
    assert f"table:{tmp_path / 't.csv'}" in str(caught.value)


# Bad input


@pytest.mark.parametrize(
    "counts, said",
    [
        ({"cat": 5, "dog": 5}, "10 photos. 20 or more are needed"),
        ({"cat": 30}, "one class, 'cat'. Two or more"),
        ({"cat": 60, "dog": 1}, r"class 'dog' \(1 photo\) has none in"),
        ({}, "no class folders with photos"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path, counts, said):
    with pytest.raises(InvalidParameter, match=said) as caught:
        found(fill(tmp_path, counts))
    assert f"folder:{tmp_path}" in str(caught.value)


def test_photos_without_class_folders(tmp_path):
    for i in range(30):
        photo(i).save(tmp_path / f"{i}.png")
    with pytest.raises(InvalidParameter, match="no class folders.*found: 0.png.*25 more.*sub-folder"):
        found(tmp_path)


def test_a_class_whose_name_cannot_be_shown(tmp_path):
    with pytest.raises(InvalidParameter, match=r"'a\\nb' is no name for a class.*Rename it"):
        found(fill(tmp_path, {"a\nb": 30, "c": 30}))


def test_what_lies_among_photos_and_is_none_is_named(folder):
    """Names of bytes, pipes, devices, sockets, links that go round or out: nothing is waited for, or read twice."""
    os.rename(folder / "cat" / "0.bmp", os.fsencode(folder) + b"/cat/\xff.bmp")
    (folder / "cat" / "1.bmp").rename(folder / "cat" / "a\u202epmb.bmp")
    os.mkfifo(folder / "dog" / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as unheard:
        unheard.bind(os.path.relpath(folder / "dog" / "socket.jpg"))
    for name, goal in {"zero": "/dev/zero", "round": "round.jpg", "words": "/etc/passwd"}.items():
        (folder / "dog" / f"{name}.jpg").symlink_to(goal)
    (folder / "dog" / "up").symlink_to("..")
    source = found(folder, on_damaged="leave_out")
    assert {each["path"]: each["reason"].partition(":")[0] for each in source.left_out} == {
        r"cat/\udcff.bmp": "its name has a control character or is not Unicode",
        r"cat/a\u202epmb.bmp": "its name has a control character or is not Unicode",
        **{f"dog/{name}.jpg": "there is no such file" for name in ("pipe", "socket", "zero", "round")},
        "dog/words.jpg": "not a photo in JPEG, PNG, WebP, BMP, GIF or TIFF",
    }
    assert source.ignored == ("dog/up/",)
    assert len(source) == 78


@pytest.mark.parametrize("name", ["http://example.com/a.png", "/dev/zero", "~/x.png", "$HOME/x.png", "x" * 5000])
def test_a_table_s_paths_are_files_and_nothing_else(tmp_path, name):
    (tmp_path / "t.csv").write_text(f"path,label\n{name},x\n", encoding="utf-8")
    with pytest.raises(DataDamaged, match="1 of 1 photos cannot be read.*there is no such file"):
        find_source(f"table:{tmp_path / 't.csv'}")


@pytest.mark.parametrize("names", [("Cat", "cat"), ("-rf", "--help"), ("x" * 255, "a'b\"c$(x)`y`{z}")])
def test_class_names_that_a_shell_or_another_disk_would_confuse(tmp_path, names):
    try:
        for seed, name in enumerate(names):
            fill(tmp_path, {name: 40}, seed)
    except OSError:
        pytest.skip("no folder can have this name here")
    if len(list(tmp_path.iterdir())) == 2:  # a disk may not tell case apart
        assert found(tmp_path).classes == tuple(sorted(names))


def test_no_such_folder(folder):
    with pytest.raises(DataNotFound, match=r"no folder .*/petz/cats'; .* has no 'petz'. Did you mean 'pets'"):
        found(folder.parent / "petz" / "cats")
    assert not on_disk(f"folder:{folder.parent / 'petz'}")
    assert on_disk(f"folder:{folder}")


def test_a_file_for_a_folder_and_the_other_way_round(folder):
    with pytest.raises(InvalidParameter, match="is a file. Give a folder"):
        found(folder / "cat" / "0.bmp")
    with pytest.raises(InvalidParameter, match=f"is a folder. Give a CSV file, or write folder:{folder}"):
        find_source(f"table:{folder}")


def test_a_path_without_its_kind_is_answered_with_what_to_write(folder, monkeypatch):
    table(folder)
    monkeypatch.chdir(folder.parent)
    for name in ("pets", "./pets", str(folder), "../nowhere", "~/x", r"C:\photos"):
        with pytest.raises(InvalidParameter) as caught:
            find_source(name)
        assert f"dataset = {name!r}: for your own photos, write dataset: folder:{name}" == str(caught.value)
    with pytest.raises(InvalidParameter, match="write dataset: table:pets/photos.csv"):
        find_source("pets/photos.csv")


def test_a_relative_path_starts_at_the_project_s_root(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert len(found(Path("pets"))) == 80, "no project: the working directory"
    (folder.parent / "params" / "profiles").mkdir(parents=True)
    (folder.parent / "notebooks").mkdir()
    monkeypatch.chdir(folder.parent / "notebooks")
    assert len(found(Path("pets"))) == 80


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions bind no administrator")
def test_a_folder_that_may_not_be_read(folder):
    (folder / "cat").chmod(0)
    with pytest.raises(DataDamaged, match="cannot be read"):
        found(folder)
    (folder / "cat").chmod(0o700)


def test_a_photo_that_may_not_be_read_is_a_reason():
    assert decoding.reason(PermissionError(13, "Permission denied")) == "permission denied"


def test_names_in_messages_are_bounded():
    assert files.some(map(str, range(30)), 3) == "0, 1, 2 and 27 more"


@has_flowers
def test_a_folder_shows_what_its_tfds_set_shows(tmp_path):
    """Pillow and TensorFlow decode the same photo to nearly the same pixels."""
    import tensorflow_datasets as tfds

    builder = tfds.builder("tf_flowers")
    records = builder.as_dataset(split="train[:3]", decoders={"image": tfds.decode.SkipDecoding()})
    for number, example in enumerate(records.as_numpy_iterator()):
        (tmp_path / f"{number}.jpg").write_bytes(example["image"])
        theirs = tf.io.decode_jpeg(example["image"]).numpy().astype(int)
        ours = decoding.read(tmp_path / f"{number}.jpg").astype(int)
        assert np.abs(ours - theirs).mean() < 2
