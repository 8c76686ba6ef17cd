"""The data checks: each fires where it should, and keeps silent where it should not."""

import time

import numpy as np
import pandas as pd
import pytest
from own_photos import fill, photo
from PIL import Image

from thaw.data import checks, splits
from thaw.data.source import find_source


def good(count: int = 300, classes: str = "abc") -> pd.DataFrame:
    """Photos with which nothing is wrong."""
    rng = np.random.default_rng(0)
    rows = np.arange(count)
    label = np.array(list(classes))[rows % len(classes)]
    return pd.DataFrame(
        {
            "path": [f"{name}/{i}.jpg" for i, name in zip(rows, label)],
            "label": label,
            "part": np.array(["train"] * 7 + ["validation", "validation", "test"])[rows // len(classes) % 10],
            "sha256": [f"{i:064x}" for i in rows],
            "group": [f"plant {i}" for i in rows],
            "width": rng.integers(200, 400, count),
            "height": rng.integers(200, 400, count),
            "format": "JPEG",
            "p5": 20.0,
            "p99": 220.0,
        }
    )


def codes(photos: pd.DataFrame, *more) -> list[str]:
    return [finding.code for finding in checks.findings(photos, *more)]


def one(code: str, photos: pd.DataFrame, *more) -> str:
    """See that just this check fires; give what it found."""
    found = checks.findings(photos, *more)
    assert [finding.code for finding in found] == [code]
    assert found[0].do.endswith(".")
    return found[0].found


def test_good_photos_pass():
    assert checks.findings(good()) == []
    assert checks.as_text([]) == ""
    assert list(checks.as_table([]).columns) == ["code", "title", "found", "do"]


def test_checks_that_know_too_little_do_not_apply():
    bare = good()[["path", "label", "part"]]
    assert codes(bare) == []
    assert codes(bare[bare["label"].ne("c") | (bare.index < 30)]) == ["D3", "D4"]


def test_every_check_has_a_number_of_its_own_and_a_line_in_the_docs():
    from conftest import ROOT

    docs = (ROOT / "docs" / "your-photos.md").read_text(encoding="utf-8")
    numbers = sorted(int(code[1:]) for code in [*checks.CHECKS, *checks.OF_FEATURES])
    assert numbers == list(range(1, 15))
    for code, (title, *_) in {**checks.CHECKS, **checks.OF_FEATURES}.items():
        assert f"| {code} | {title} |" in docs


def test_photos_left_out():
    left_out = [{"path": f"{i}.jpg", "reason": "damaged"} for i in range(8)]
    assert one("D1", good(), left_out).startswith("8 photos left out. 0.jpg: damaged; ")
    assert "and 3 more" in one("D1", good(), left_out)


def test_files_ignored():
    assert one("D2", good(), [], ["a.txt", "b.txt"]) == "2 files ignored: a.txt, b.txt."


def test_few_photos():
    photos = good()
    assert codes(photos) == []
    said = one("D3", photos.drop(photos.index[(photos["label"] == "a") & (photos["part"] == "test")][:6]))
    assert said == "Fewer than 5 photos test 1 class: a (4)."
    assert "Fewer than 20 photos train 3 classes: a (14), b (14), c (14)" in one("D3", good(60))


def in_folds(photos: pd.DataFrame, folds: int = 5) -> pd.DataFrame:
    """The same photos, of which each fold tests in its turn."""
    places = splits.places_by_class(photos["sha256"].tolist(), photos["label"].tolist())
    return checks.by_fold(photos.reset_index(drop=True), places, folds)


def test_good_photos_in_folds_pass():
    for folds in (3, 5, 10):
        assert codes(in_folds(good(), folds)) == []


def test_few_photos_in_folds():
    photos = good()
    few = photos.drop(photos.index[photos["label"] == "a"][26:])  # 26: less a fifth and 15 % of it, 17 train
    (said,) = (finding.found for finding in checks.findings(in_folds(few)) if finding.code == "D3")
    assert said.startswith("Fewer than 20 photos train 1 class in a fold: a (1")
    rare = photos.drop(photos.index[photos["label"] == "a"][3:])
    (said,) = (finding.found for finding in checks.findings(in_folds(rare, 3)) if finding.code == "D3")
    assert said.endswith("; fewer than 5 photos test 1 class in all folds together: a (3).")
    for fold in range(5):  # the check counts what trains as the study divides it
        train, _, _ = splits.in_fold(in_folds(few)["place"].to_numpy(), 5, fold)
        assert (in_folds(few)["label"].iloc[train] == "a").sum() < checks.FEW


def test_a_class_a_photo_and_a_group_in_several_folds():
    ordered = good().sort_values("label", ignore_index=True)
    by_position = checks.by_fold(ordered, splits.places_by_position(len(ordered)), 3)
    (said,) = (finding.found for finding in checks.findings(by_position) if finding.code == "D5")
    assert "a: 100% of 100 photos in fold 0 (33% of all photos)" in said
    photos = in_folds(good())
    first, other = (photos.index[photos["part"] == part][0] for part in ("fold 0", "fold 3"))
    found = checks.findings(same_content(photos, first, other))
    assert [finding.code for finding in found if finding.code != "D7"] == ["D6", "D8"]
    photos.loc[[first, other], "group"] = "plant 0"
    assert "plant 0" in one("D9", photos)


def test_imbalance():
    photos = good(900)
    few = photos.index[photos["label"] == "c"][50:]
    said = one("D4", photos.drop(few[::1][:-20]))
    assert "has 300 photos, 'c' has 70: 4.3 times" in said
    assert codes(photos.drop(few[:100])) == []


def test_a_class_divided_unevenly():
    photos = good(900)
    photos.loc[photos["label"] == "b", "part"] = ["train", "validation", "test"] * 100
    assert "b: 33% of 300 photos in train" in one("D5", photos)
    chance = good(900)
    chance["part"] = np.random.default_rng(1).choice(["train", "validation", "test"], 900, p=[0.75, 0.15, 0.1])
    assert codes(chance) == []


def same_content(photos: pd.DataFrame, one: int, other: int) -> pd.DataFrame:
    photos = photos.copy()
    photos.loc[other, "sha256"] = photos.loc[one, "sha256"]
    return photos


def test_the_same_photo_twice():
    assert one("D6", same_content(good(), 0, 3)) == "1 of 300 photos repeat the content of another: a/3.jpg = a/0.jpg."


def test_the_same_photo_under_two_labels():
    found = checks.findings(same_content(good(), 0, 1))
    assert [finding.code for finding in found] == ["D6", "D7"]
    assert found[1].found == "1 photo with more than one label: a/0.jpg = b/1.jpg."


def test_the_same_photo_in_two_parts():
    photos = good()
    tested = photos.index[(photos["label"] == "a") & (photos["part"] == "test")][0]
    found = checks.findings(same_content(photos, 0, tested))
    assert [finding.code for finding in found] == ["D6", "D8"]
    assert f"a/0.jpg = a/{tested}.jpg" in found[1].found


def test_a_group_in_two_parts():
    photos = good()
    photos.loc[photos.index[[0, 27]], "group"] = "plant 0"
    assert photos["part"].iloc[[0, 27]].nunique() == 2
    assert one("D9", photos) == "1 group in more than one part: plant 0."
    photos["group"] = ""
    assert codes(photos) == []


def test_a_class_of_another_size():
    photos = good()
    larger = photos.copy()
    larger.loc[larger["label"] == "b", ["width", "height"]] *= 3
    assert "b: pixels 8" in one("D10", larger)
    wider = photos.copy()
    wider.loc[wider["label"] == "b", "width"] *= 2
    wider.loc[wider["label"] == "b", "height"] //= 2
    assert "b: width over height" in one("D10", wider)
    same = photos.copy()
    same.loc[same["label"] == "b", ["width", "height"]] = 300
    assert "100% of b are 300 x 300, 0% elsewhere" in one("D10", same)
    photos[["width", "height"]] = 300
    assert codes(photos) == [], "all alike"


def test_a_class_of_another_format():
    photos = good()
    photos.loc[photos["label"] == "c", "format"] = "PNG"
    assert "100% of c are PNG, 0% elsewhere" in one("D11", photos)
    photos["format"] = ["PNG", "JPEG"] * 150
    assert codes(photos) == []


@pytest.mark.parametrize(
    "change, said",
    [
        ({"p5": 100, "p99": 104}, "2 blank (a/6.jpg, b/7.jpg)"),
        ({"p99": 60}, "2 very dark"),
        ({"p5": 250, "p99": 255}, "2 blank"),
        ({"p5": 245, "p99": 255}, "2 very light"),
        ({"width": 20, "height": 20}, "2 smaller than 32 pixels"),
        ({"width": 1300}, "2 very narrow"),
    ],
)
def test_odd_photos(change, said):
    photos = good()
    photos.loc[[6, 7], list(change)] = list(change.values())
    assert said in one("D12", photos)


def test_what_holds_of_many_photos_is_not_odd():
    photos = good()
    photos["p99"] = 60.0
    assert codes(photos) == [], "photos of the night"


def invented_features(photos: pd.DataFrame, apart: float) -> np.ndarray:
    """Features whose classes lie so many standard deviations apart."""
    rng = np.random.default_rng(0)
    centres = {label: rng.normal(size=64) * apart for label in sorted(set(photos["label"]))}
    return np.array([centres[label] for label in photos["label"]]) + rng.normal(size=(len(photos), 64))


def test_nearly_the_same_photo_in_two_parts(monkeypatch):
    photos = good()
    features = invented_features(photos, 0.5)
    assert checks.findings_of_features(photos, features) == []
    train, validation, test = (photos.index[photos["part"] == part] for part in ("train", "validation", "test"))
    near = features.copy()
    near[test[2]] = near[train[5]] + 0.05 * near[train[6]]
    near[test[3]] = near[validation[1]] + 0.05
    near[train[8]] = near[train[9]]  # of one part: no matter
    for block in (checks.BLOCK, 1000):
        monkeypatch.setattr(checks, "BLOCK", block)
        (finding,) = checks.findings_of_features(photos, near)
        assert finding.code == "D13"
        assert finding.found.startswith("2 photos in validation or test (2 in test)")
        for pair in ((test[2], train[5]), (test[3], validation[1])):
            assert " and ".join(f"{photos['path'][i]} ({photos['part'][i]})" for i in pair) in finding.found


def test_nearly_the_same_photo_in_two_folds():
    photos = in_folds(good())
    features = invented_features(photos, 0.5)
    assert checks.findings_of_features(photos, features) == []
    first, other = (photos.index[photos["part"] == part][0] for part in ("fold 1", "fold 4"))
    features[other] = features[first] + 0.01
    (finding,) = checks.findings_of_features(photos, features)
    assert finding.code == "D13" and finding.found.startswith("1 photo nearly as in another fold: ")
    assert f"{photos['path'][other]} (fold 4) and {photos['path'][first]} (fold 1)" in finding.found


def test_photos_that_look_mislabelled():
    photos = good()
    features = invented_features(photos, 2.0)
    photos.loc[[30, 100], "label"] = ["b", "a"]  # an 'a' and a 'b'
    (finding,) = checks.findings_of_features(photos, features)
    assert finding.code == "D14"
    assert finding.found.startswith("2 of 300 photos: ")
    assert "a/30.jpg (b, looks like a: " in finding.found
    assert "b/100.jpg (a, looks like b: " in finding.found


def test_of_many_classes_the_largest_are_checked_for_wrong_labels(monkeypatch):
    photos = good(330)
    photos.loc[photos.index[:30], "label"] = "small"
    features = invented_features(photos, 2.0)
    photos.loc[[60, 100], "label"] = ["b", "a"]  # an 'a' and a 'b'
    assert checks.findings_of_features(photos, features)[0].found.startswith("2 of 330 photos: ")
    monkeypatch.setattr(checks, "MOST_CLASSES", 3)
    assert checks.findings_of_features(photos, features)[0].found.startswith("2 of 300 photos: ")


def test_hard_photos_do_not_look_mislabelled():
    photos = good()
    assert checks.findings_of_features(photos, invented_features(photos, 0.0)) == [], "no class can be told"


def test_a_few_photos_of_a_class_do_not_stop_the_checks_of_features():
    photos = good(90)
    features = invented_features(photos, 1.0)
    photos.loc[[0, 1, 2, 3], "label"] = "rare"
    assert {finding.code for finding in checks.findings_of_features(photos, features)} <= {"D14"}
    assert checks.findings_of_features(photos[:6], features[:6]) == []


def test_many_classes_are_checked_in_little_more_time_than_few():
    photos = good(30_000)
    began = time.process_time()
    checks.findings(photos)
    few = time.process_time() - began
    many = photos.assign(label=[f"class {number % 1500}" for number in photos.index])
    began = time.process_time()
    checks.findings(many)
    assert time.process_time() - began < few + 2


def test_findings_as_table_and_text():
    found = checks.findings(good(60), [{"path": "a.jpg", "reason": "empty"}])
    table = checks.as_table(found)
    assert table["code"].tolist() == ["D1", "D3"]
    assert checks.as_text(found).count("\n") == 1
    assert "D3 Few photos of a class: Fewer than 20" in checks.as_text(found)


def test_checks_of_a_real_folder(tmp_path):
    fill(tmp_path, {"cat": 60, "dog": 60})
    fill(tmp_path, {"bird": 60}, seed=1, suffix=".png")
    Image.new("RGB", (12, 10), "grey").save(tmp_path / "cat" / "blank.bmp")
    photo(3, (12, 10)).save(tmp_path / "dog" / "twice.bmp")  # of 'cat'
    (tmp_path / "notes.txt").write_text("x")
    source = find_source(f"folder:{tmp_path}")
    found = {finding.code: finding.found for finding in checks.findings(source.listing(), (), source.ignored)}
    assert found.keys() >= {"D2", "D6", "D7", "D11", "D12"}
    assert "cat/3.bmp = dog/twice.bmp" in found["D7"]
    assert "1 blank (cat/blank.bmp)" in found["D12"]
    assert "100% of bird are PNG, 0% elsewhere" in found["D11"]
    assert "D8" not in found, "the same photo is never in two parts"


def test_changes_between_two_listings():
    before = good()[["path", "label", "part", "sha256"]]
    assert checks.changes(before, before) == ""
    now = before.drop(index=[4, 5]).copy()
    now.loc[0, "path"] = "another name.jpg"
    assert checks.changes(before, now) == "Since then, 2 photos were removed (b/4.jpg, c/5.jpg)."
    now.loc[1, "label"] = "c"
    now.loc[2, "part"] = "test"
    now.loc[300] = ["new.jpg", "a", "train", "f" * 64]
    assert checks.changes(before, now) == (
        "Since then, 1 photo was added (new.jpg); 2 photos were removed (b/4.jpg, c/5.jpg); "
        "1 photo was relabelled (b/1.jpg); 1 photo was moved to another part (c/2.jpg)."
    )


def test_changes_of_photos_without_hashes():
    before = good()[["path", "label", "part"]]
    assert "1 photo was relabelled (a/0.jpg)" in checks.changes(
        before, before.assign(label=["b", *before["label"][1:]])
    )
