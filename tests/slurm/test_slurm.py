"""A study on a SLURM cluster: the same results as on one machine, and on two nodes in less time."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from cluster import MISSING, slurm
from conftest import ROOT, TINY

from thaw.study import freshness
from thaw.study.study import Study

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(bool(MISSING), reason=f"needs SLURM (Debian: slurm-wlm, munge); not here: {', '.join(MISSING)}"),
]

CLUSTER = ROOT / "params" / "clusters" / "slurm" / "config.yaml"


def cluster_for(folder: Path) -> Path:
    """The project's own settings, made to fit nodes of one core and a scheduler without accounting."""
    settings = yaml.safe_load(CLUSTER.read_text(encoding="utf-8"))
    # The plugin looks after 5 seconds, and then after 15 more: most jobs here take that long.
    settings |= {"slurm-status-command": "squeue", "slurm-init-seconds-before-status-checks": 5}
    settings["set-threads"] = dict.fromkeys(settings["set-threads"], 1)
    settings["default-resources"]["mem_mb"] = 3000
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return folder


def start(environment: dict[str, str], cache: Path, outputs: Path, *command) -> subprocess.Popen:
    """A command, in a process group of its own as a terminal has it."""
    command = [sys.executable, "-m", "thaw", *command, "--outputs", outputs]
    environment = environment | {"THAW_CACHE_DIR": str(cache)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(list(map(str, command)), env=environment, cwd=ROOT, start_new_session=True, **pipes)


def squeue(environment: dict[str, str], *arguments: str) -> list[list[str]]:
    command = ["squeue", "--noheader", *arguments]
    lines = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.split() for line in lines]


def running_experiment(environment: dict[str, str], process: subprocess.Popen) -> str:
    """Wait until one is at work; its number."""
    while process.poll() is None:
        running = {job for job, rule in squeue(environment, "--format=%i %k") if rule.startswith("rule_experiment")}
        for (step,) in squeue(environment, "--steps", "--format=%i"):
            job, _, number = step.partition(".")
            if job in running and number == "0":
                return job
        time.sleep(0.2)
    pytest.fail(f"no experiment was running:\n{process.communicate()[0]}")


@pytest.fixture
def tiny(tmp_path, first_study) -> Path:
    """A profile of two experiments.

    With what is in the cache: five levels of jobs, each waiting for the next look, take minutes.
    """
    path = tmp_path / "tiny.yaml"
    profile = yaml.safe_load(TINY.read_text(encoding="utf-8"))
    profile |= {"study": {"configurations": ["mobilenet-frozen", "mobilenet-blocks-2"]}}
    path.write_text(yaml.safe_dump(profile), encoding="utf-8")
    shutil.copytree(first_study / "cache", tmp_path / "cache", ignore=shutil.ignore_patterns("plans"))
    return path


def assert_same(one: Study, two: Study) -> None:
    """Both have the same results, and the second its report."""
    finished = (study.outcomes()[0].values() for study in (one, two))
    for (here,), (there,) in zip(*finished, strict=True):
        assert here.predictions["key"].tolist() == there.predictions["key"].tolist()
        probabilities = [run.predictions.filter(regex="^p_").to_numpy() for run in (here, there)]
        assert probabilities[1] == pytest.approx(probabilities[0], abs=1e-4)
        assert there.record.test_accuracy == here.record.test_accuracy
    assert freshness.report_is_current(two)


def test_a_study_on_two_nodes_with_a_job_killed_is_that_of_one_machine(tmp_path, first_study, tiny):
    one, two = (Study.load(str(tiny), folder / "outputs", ROOT) for folder in (first_study, tmp_path))
    with slurm() as environment:
        more = ("--cluster", cluster_for(tmp_path / "cluster"))
        process = start(environment, tmp_path / "cache", tmp_path / "outputs", "report", tiny, *more)
        killed = running_experiment(environment, process)
        subprocess.run(["scancel", "--signal=KILL", killed], env=environment, check=True)
        shown, _ = process.communicate()
        assert process.returncode == 0, shown
        jobs = squeue(environment, "--states=all", "--format=%i %T %N %k")
    states = {job: state for job, state, *_ in jobs}
    assert "Trying to restart job" in shown and states.pop(killed) in ("CANCELLED", "FAILED"), shown
    assert set(states.values()) == {"COMPLETED"}
    assert {node for _, _, node, _ in jobs} == {"node0", "node1"}
    assert_same(one, two)


@pytest.mark.long
def test_what_a_killed_coordinator_leaves_ends_and_the_next_goes_on(tmp_path, first_study, tiny):
    """One node: while one experiment trains, the other waits in the queue."""
    one, two = (Study.load(str(tiny), folder / "outputs", ROOT) for folder in (first_study, tmp_path))
    with slurm(nodes=1) as environment:
        more = ("--cluster", cluster_for(tmp_path / "cluster"))
        first = start(environment, tmp_path / "cache", tmp_path / "outputs", "report", tiny, *more)
        running_experiment(environment, first)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        left = {job for (job,) in squeue(environment, "--format=%i")}
        assert len(left) == 2
        second = start(environment, tmp_path / "cache", tmp_path / "outputs", "report", tiny, *more)
        shown, _ = second.communicate()
        assert second.returncode == 0, shown
        states = dict(squeue(environment, "--states=all", "--format=%i %T"))
    assert {states[job] for job in left} <= {"FAILED", "CANCELLED"}, "none of them did the other's work again"
    assert {states[job] for job in set(states) - left} == {"COMPLETED"}
    assert_same(one, two)


def seconds(folder: Path, profile: str | Path, nodes: int) -> float:
    """How long a study takes from an empty cache."""
    with slurm(nodes) as environment:
        before = time.monotonic()
        more = ("--cluster", cluster_for(folder / f"cluster-{nodes}"))
        process = start(environment, folder / f"cache-{nodes}", folder / f"outputs-{nodes}", "report", profile, *more)
        shown, _ = process.communicate()
        assert process.returncode == 0, shown
        return time.monotonic() - before


@pytest.mark.long
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores, one a node")
def test_two_nodes_take_at_most_three_fifths_of_the_time_of_one(tmp_path, capsys):
    """The demo on folds, each a job of its own: 80 of them."""
    profile = yaml.safe_load((ROOT / "params" / "profiles" / "demo.yaml").read_text(encoding="utf-8"))
    profile["study"] |= {"folds": 10, "spread": "folds", "deliver": "none"}
    path = tmp_path / "demo-on-folds.yaml"
    path.write_text(yaml.safe_dump(profile), encoding="utf-8")
    two, one = (seconds(tmp_path, path, nodes) for nodes in (2, 1))
    with capsys.disabled():
        print(f"\ntwo nodes: {two:.0f} s; one: {one:.0f} s; ratio {two / one:.2f}")
    studies = [Study.load(str(path), tmp_path / f"outputs-{nodes}", ROOT) for nodes in (1, 2)]
    accuracies = [
        [run.record.test_accuracy for found in study.outcomes()[0].values() for run in found] for study in studies
    ]
    assert accuracies[0] == accuracies[1]
    assert two <= 0.6 * one
