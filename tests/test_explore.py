"""The notebook to explore a study: what it compares and says, executed, exported, and driven in JupyterLab."""

import shutil
import subprocess
import sys
from dataclasses import replace

import nbformat
import numpy as np
import pytest
from browser import chromium, has_chromium, jupyterlab, open_notebook, run_all
from conftest import ROOT, TINY
from invented import BLOCKS, LAYERS, invented
from matplotlib.colors import to_rgb
from playwright.sync_api import expect

from thaw.errors import InvalidRecord
from thaw.records.runs import Run
from thaw.report import explore, statistics
from thaw.report.explore import ALL, Explorer, Pair
from thaw.report.figures.style import UNFROZEN
from thaw.report.notation import points
from thaw.report.results import Results
from thaw.study.study import Study


def accuracy(backbone, strategy, amount, control):
    return {BLOCKS: 0.95, LAYERS: 0.945}.get(strategy, 0.8)


def label(results, strategy, amount=0, backbone="mobilenet") -> int:
    rows = results.rows
    return rows.index[(rows["backbone"] == backbone) & (rows["strategy"] == strategy) & (rows["amount"] == amount)][0]


def of_classes(results: Results, tulips) -> Results:
    """Make some photos tulips, by whether `tulips` says so of their number; each is right or wrong as before."""
    runs, other = [], {"rose": "tulip", "tulip": "rose"}
    for run in results.runs:
        photos = run.predictions.copy()
        chosen = np.array([tulips(int(key.removeprefix("photo-"))) for key in photos["key"]])
        for column in ("label", "predicted"):
            photos[column] = np.where(chosen, photos[column].map(other), photos[column])
        runs.append(Run(record=run.record, history=run.history, predictions=photos))
    return replace(results, runs=runs)


@pytest.fixture(scope="module")
def results():
    return of_classes(invented(accuracy), lambda number: number % 4 == 0)


# ---- two configurations -------------------------------------------------------------------------


@pytest.mark.parametrize("folds", [0, 10])
def test_the_words_change_with_the_margin(folds):
    results = invented(accuracy, folds=folds, swap=0.02)
    best, like, worse = (label(results, *which) for which in ((BLOCKS, 2), (LAYERS, 5), ("frozen", 0)))
    close = Pair(results, best, like)
    assert "Too close to call" in close.in_words(0.1).data
    assert "No difference that matters" in close.in_words(10).data
    far = Pair(results, best, worse)
    assert "The first is more accurate" in far.in_words(2).data
    assert "The second is more accurate" in Pair(results, worse, best).in_words(2).data
    for pair in (close, far):
        assert points(pair.effect) in pair.in_words(2).data
        assert pair.effect.equivalence(pair.alike_from) == pytest.approx(statistics.ALPHA)
        assert ("true of these runs only" in pair.in_words(2).data) == (not folds)


def test_the_difference_is_that_of_the_report(results):
    first, second = label(results, BLOCKS, 2), label(results, "frozen")
    groups = [results.of_row(results.rows.loc[index]) for index in (first, second)]
    assert Pair(results, first, second).effect == results.difference(*groups)


@pytest.mark.parametrize("folds", [0, 5])
def test_of_a_class_only_its_photos_count(folds):
    results = of_classes(invented(accuracy, folds=folds, swap=0.1), lambda number: number % 4 == 0)
    pair = Pair(results, label(results, BLOCKS, 2), label(results, "frozen"), "tulip")
    rows = [results.rows.loc[index] for index in (pair.first, pair.second)]
    assert pair.effect.photos == len(pair.photos) == 100
    assert (pair.photos["label"] == "tulip").all()
    assert pair.accuracies == [results.recall(row)["tulip"] for row in rows]
    assert pair.effect.mean == pytest.approx(pair.accuracies[0] - pair.accuracies[1])
    assert pair.effect.folds == folds
    assert "photos of the class tulip" in pair.in_words(2).data


def test_a_fold_without_a_photo_of_the_class_does_not_count():
    results = of_classes(invented(accuracy, folds=5), lambda number: number < 60 and number % 5 != 2)
    pair = Pair(results, label(results, BLOCKS, 2), label(results, "frozen"), "tulip")
    assert pair.effect.folds == 4
    assert np.isfinite([pair.effect.mean, pair.effect.low, pair.effect.high]).all()


def test_the_photos_on_which_they_differ_come_first_and_the_hardest_next():
    results = invented(accuracy, seeds=2, swap=0.2)
    first, second = label(results, BLOCKS, 2), label(results, "frozen")
    pair = Pair(results, first, second)
    runs = {index: results.of_row(results.rows.loc[index]) for index in (first, second)}
    share = {index: np.mean([run.correct for run in of], axis=0) for index, of in runs.items()}
    apart = dict(zip(runs[first][0].correct.index, np.abs(share[first] - share[second])))
    shown = [apart[key] for key in pair.photos.index]
    assert shown == sorted(shown, reverse=True)
    assert len(pair.disagreements()) == sum(value > 0 for value in apart.values())
    alike = pair.photos[pair.photos["first_right"] == pair.photos["second_right"]]
    assert alike["wrong"].is_monotonic_decreasing


def test_what_each_configuration_says_of_a_photo(results):
    pair = Pair(results, label(results, BLOCKS, 2), label(results, "frozen"))
    said = pair.said(1).frame
    assert len(said) == len(results.rows)
    for line, (_, row) in zip(said.itertuples(), results.rows.iterrows()):
        photos = results.predictions(row).set_index("key")
        assert line.Says == photos.loc[pair.key(1), "predicted"]
    assert pair.key(10_000) == pair.photos.index[-1]


def test_without_the_photos_they_are_listed(results, monkeypatch):
    monkeypatch.setattr(explore.pictures, "find", lambda record, keys: None)
    pair = Pair(results, label(results, BLOCKS, 2), label(results, "frozen"))
    assert pair.grid().frame["Photo"].tolist() == pair.disagreements().index[:10].tolist()
    assert explore.NO_PHOTOS in pair.picture(1).data


def test_the_photos_on_which_they_differ_are_shown(results, monkeypatch):
    asked = []
    monkeypatch.setattr(
        explore.pictures, "find", lambda record, keys: (asked.extend(keys), np.zeros((len(keys), 8, 8, 3), np.uint8))[1]
    )
    pair = Pair(results, label(results, BLOCKS, 2), label(results, "frozen"))
    figure = pair.grid().plot
    assert asked == pair.disagreements().index[:10].tolist()
    first = pair.photos.iloc[0]
    assert figure.axes[0].get_title() == f"{first['label']}\nfirst: {first['first']}\nsecond: {first['second']}"
    assert first["first"] == first["label"] != first["second"]


def test_a_pair_of_one_and_the_same(results):
    pair = Pair(results, label(results, BLOCKS, 2), label(results, BLOCKS, 2))
    assert "Both sides are" in pair.in_words(2).data
    assert "same photos" in pair.grid().data
    assert len(pair.rows) == 1


# ---- the controls -------------------------------------------------------------------------------


def test_another_study_changes_everything_at_once(results):
    other = replace(invented(lambda *_: 0.9, backbones=("resnet50",)), margin=0.05)
    chosen, seen = Explorer({"demo": results, "other": other}), []
    chosen.observe(lambda change: seen.append(change.new), "value")
    assert chosen.value.study is results
    assert chosen.of_class.label == ALL
    chosen.of_class.value = "tulip"
    assert chosen.value.of_class == "tulip"
    chosen.first.value = label(results, "frozen", backbone="resnet50")
    assert chosen.value.first == label(results, "frozen", backbone="resnet50")
    before = len(seen)
    chosen.study.value = "other"
    assert len(seen) == before + 1, "no state in between"
    assert chosen.value.study is other
    assert (chosen.margin.value, chosen.of_class.label) == (5, ALL)
    assert chosen.photo.max == len(other.tested)


def test_the_first_choice_is_the_most_accurate_against_another(results):
    pair = Explorer({"demo": results}).value
    assert results.rows.loc[pair.first, "test_accuracy"] == results.rows["test_accuracy"].max()
    assert pair.first != pair.second
    assert pair.study.rows.loc[[pair.first, pair.second], "backbone"].nunique() == 1
    ways = {("resnet50", BLOCKS, 2), ("mobilenet", "frozen", 0)}
    each = {(e.backbone, e.strategy, e.amount): run for run in results.runs for e in [run.record.experiment]}
    pair = Explorer({"demo": replace(results, runs=[each[way] for way in ways])}).value
    assert pair.names == ["ResNet50, Strategy B (2 blocks)", "MobileNet, Frozen, 20 epochs"]


def test_a_study_of_one_configuration_can_be_explored(results):
    run = results.runs[0]
    pair = Explorer({"demo": replace(results, runs=[run])}).value
    assert pair.first == pair.second
    assert "Both sides are" in pair.in_words(2).data


def test_the_study_of_the_repository_is_there_at_once(tmp_path):
    assert "paper" in explore.studies()
    with pytest.raises(InvalidRecord, match="make report"):
        explore.studies(str(tmp_path))


# ---- where a network looks ----------------------------------------------------------------------


def test_it_looks_at_what_decides(monkeypatch):
    """A network that tells red from blue: it looks at the red corner of a red photo, and at the blue of a blue one."""
    import keras

    from thaw.network import attention

    photos = keras.Input((None, None, 3))
    maps = keras.layers.Conv2D(3, 3, padding="same", name="maps")(photos)
    pooled = keras.layers.GlobalAveragePooling2D()(maps)
    network = keras.Model(photos, keras.layers.Dense(2, "softmax")(pooled))
    kernel = np.zeros((3, 3, 3, 3))
    kernel[1, 1] = np.eye(3)
    network.get_layer("maps").set_weights([kernel, np.zeros(3)])
    network.layers[-1].set_weights([np.array([[1, -1], [0, 0], [-1, 1]]) / 10, np.zeros(2)])
    photo = np.zeros((40, 40, 3), np.uint8)
    photo[:20, :20, 0] = 255
    photo[20:, 20:, 2] = 200
    for channels, says, corner in ((photo, 0, (5, 5)), (photo[..., ::-1], 1, (5, 5))):
        probabilities, heat = attention.look(network, channels)
        assert probabilities.argmax() == says
        assert heat.shape == (40, 40)
        assert heat[corner] == 1
        assert heat[35, 35] < 0.01
        assert heat[5, 35] < 0.01


# ---- before a run -------------------------------------------------------------------------------


def test_what_is_said_before_a_run_is_what_the_run_finds(first_study, monkeypatch):
    from thaw.study.ahead import Ahead

    monkeypatch.setenv("THAW_CACHE_DIR", str(first_study / "cache"))
    jobs = {job.configuration: job for job in Study.load(str(TINY), first_study / "outputs").jobs}
    tuned = jobs["mobilenet-blocks-2"]
    ahead = Ahead.of(tuned.experiment)
    assert ahead.experiment("blocks", 2) == tuned.experiment
    outlook, (run,) = ahead.outlook(tuned.experiment), tuned.read()
    assert outlook.trainable_parameters == run.record.trainable_parameters
    assert outlook.total_parameters == run.record.total_parameters
    kept = run.record.activations["finetune"]
    assert (outlook.kept, outlook.activations / 1e6) == (kept.cached, pytest.approx(kept.megabytes))
    assert outlook.layers["trains"].sum() == 13
    frozen = ahead.outlook(ahead.experiment("frozen", 0))
    assert frozen.trainable_parameters == 5_125
    seconds = [ahead.outlook(ahead.experiment("blocks", amount)).seconds for amount in (1, 5, 13)]
    assert frozen.seconds < seconds[0] < seconds[1] < seconds[2]
    assert not ahead.outlook(ahead.experiment("all", 0)).kept
    assert ahead.experiment("blocks", 99).amount == ahead.most("blocks") == 13

    own, unfrozen = explore.Unfreezing(ahead), explore.figures.UNFROZEN
    live = own.cells[-6:]  # the head, and the last five blocks
    live[0].click()
    assert own.value == ahead.experiment("blocks", 5)
    own.strip(own.value)
    assert [cell for cell in own.cells if cell.style.button_color == unfrozen] == live
    own.cells[-1].click()
    assert (own.value.strategy, own.amount.disabled) == ("frozen", True)
    own.cells[0].click()
    assert own.value.strategy == "all"
    own.strip(own.value)
    assert {cell.style.button_color for cell in own.cells} == {unfrozen}


# ---- the notebook -------------------------------------------------------------------------------


def small_profile(folder) -> str:
    """A profile of one small experiment, for the part that runs one."""
    text = TINY.read_text(encoding="utf-8")
    assert ", resnet50-frozen]" in text
    (folder / "small.yaml").write_text(text.replace(", resnet50-frozen]", "]"), encoding="utf-8")
    return str(folder / "small.yaml")


@has_chromium
def test_executed_and_exported(first_study, tmp_path):
    study = Study.load(str(TINY), first_study / "outputs")
    done = tmp_path / "explore.ipynb"
    command = [sys.executable, "-m", "papermill", ROOT / "notebooks" / "explore.ipynb", done, "--no-progress-bar"]
    for name, value in {"profile": TINY, "outputs": first_study / "outputs", "small": small_profile(tmp_path)}.items():
        command += ["-p", name, value]
    ran = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    notebook = nbformat.read(done, as_version=4)
    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    assert not [out for every in outputs.values() for out in every if out.output_type in ("stream", "error")]
    pair = Explorer({"tiny": Results.of(study)}).value
    assert outputs["difference"][0].data["text/markdown"] == pair.in_words(100 * study.margin).data
    pictures = {name for name, every in outputs.items() for out in every if "<img" in out.data.get("text/html", "")}
    shown = {"confusion", "curves", "picture", "look", "strip"} | ({"disagree"} if len(pair.disagreements()) else set())
    assert pictures == shown

    export = [sys.executable, "-m", "nbconvert", "--to", "html", done]
    assert subprocess.run(list(map(str, export)), capture_output=True).returncode == 0
    with chromium() as browser:
        context = browser.new_context(offline=True)
        page = context.new_page()
        page.goto(done.with_suffix(".html").as_uri())
        assert page.locator("figure img").count() == len(pictures)
        assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
        expect(page.get_by_text(points(pair.effect))).to_be_visible()


@has_chromium
def test_explored_in_jupyterlab(tmp_path, monkeypatch):
    """On a fresh clone: the study of the repository, without its photos."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    for folder in ("notebooks", "params", "outputs/paper"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    small_profile(tmp_path / "params" / "profiles")
    path = tmp_path / "notebooks" / "explore.ipynb"
    notebook = nbformat.read(path, as_version=4)
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    cell.source = cell.source.replace('small = "demo"', 'small = "small"')
    nbformat.write(notebook, path)
    results = Results.of(Study.load("paper", ROOT / "outputs"))
    pair = Explorer({"paper": results}).value
    worst = results.rows["test_accuracy"].idxmin()
    alike = results.rows[results.rows["backbone"] == results.rows.loc[worst, "backbone"]]
    other = Pair(results, worst, alike["test_accuracy"].idxmax())

    with jupyterlab(tmp_path) as lab, chromium() as browser:
        page = open_notebook(browser, f"{lab}/lab/tree/notebooks/explore.ipynb", "Explore a study", height=6000)
        run_all(page)
        said = page.locator(".jp-RenderedMarkdown", has_text="The difference is")
        expect(said).to_contain_text(points(pair.effect), timeout=60_000)
        expect(said).to_contain_text("Too close to call")
        result = page.locator("figcaption", has_text="parameters train (")
        expect(result).to_contain_text("Strategy B (2 blocks)", timeout=120_000)

        margin, _, amount = (page.get_by_role("slider").nth(number) for number in range(3))
        margin.press("End")
        expect(said).to_contain_text("No difference that matters")
        margin.press("Home")
        expect(said).to_contain_text("Too close to call")

        for side, name in zip(("First", "Second"), other.names):
            page.get_by_label(side, exact=True).select_option(label=name)
        expect(said).to_contain_text("The second is more accurate", timeout=60_000)
        expect(said).to_contain_text(points(other.effect))
        confusion = page.locator("figure img[alt^='A confusion matrix']")
        assert "data:image/svg+xml" in confusion.get_attribute("src")

        page.get_by_label("Unfreeze", exact=True).select_option(label="the last layers")
        expect(result).to_contain_text("Strategy A (2 layers)")
        amount.press("ArrowRight")
        expect(result).to_contain_text("Strategy A (3 layers)")
        block = page.get_by_role("button", name="5", exact=True)
        block.click()
        expect(result).to_contain_text("Strategy B (5 blocks)")
        expect(page.get_by_label("Unfreeze", exact=True)).to_have_value("the last blocks")
        colour = ", ".join(str(round(part * 255)) for part in to_rgb(UNFROZEN))
        assert block.evaluate("cell => getComputedStyle(cell).backgroundColor") == f"rgb({colour})"
        page.screenshot(path=tmp_path / "explore.png")
        page.get_by_role("button", name="2", exact=True).click()
        page.get_by_role("button", name="Run it").click()
        expect(page.locator(".jp-RenderedMarkdown", has_text="8 test photos are classified")).to_be_visible(
            timeout=120_000
        )
        assert list((tmp_path / "outputs" / "lab").glob("mobilenet-blocks-2/record.json"))
