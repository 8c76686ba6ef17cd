"""A study on a SLURM cluster: the same results as on one machine, and on two nodes in less time."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from cluster import MISSING, slurm
from conftest import ROOT, TINY

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
    command = [sys.executable, "-m", "thaw", *command, "--outputs", outputs]
    environment = environment | {"THAW_CACHE_DIR": str(cache)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(list(map(str, command)), env=environment, cwd=ROOT, **pipes)


def squeue(environment: dict[str, str], *arguments: str) -> list[list[str]]:
    command = ["squeue", "--noheader", *arguments]
    lines = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.split() for line in lines]


def kill_an_experiment(environment: dict[str, str], process: subprocess.Popen) -> str:
    """Have the scheduler kill one, once it runs; its number."""
    while process.poll() is None:
        running = {job for job, rule in squeue(environment, "--format=%i %k") if rule.startswith("rule_experiment")}
        for (step,) in squeue(environment, "--steps", "--format=%i"):
            job, _, number = step.partition(".")
            if job in running and number == "0":
                subprocess.run(["scancel", "--signal=KILL", job], env=environment, check=True)
                return job
        time.sleep(0.2)
    pytest.fail(f"no experiment was running:\n{process.communicate()[0]}")


def test_a_study_on_two_nodes_with_a_job_killed_is_that_of_one_machine(tmp_path, first_study):
    tiny = tmp_path / "tiny.yaml"
    profile = yaml.safe_load(TINY.read_text(encoding="utf-8"))
    profile |= {"study": {"configurations": ["mobilenet-frozen", "mobilenet-blocks-2"]}}
    tiny.write_text(yaml.safe_dump(profile), encoding="utf-8")
    one, two = (Study.load(str(tiny), folder / "outputs", ROOT) for folder in (first_study, tmp_path))
    # With what is in the cache: five levels of jobs, each waiting for the next look, take minutes.
    shutil.copytree(first_study / "cache", tmp_path / "cache", ignore=shutil.ignore_patterns("plans"))
    with slurm() as environment:
        more = ("--cluster", cluster_for(tmp_path / "cluster"))
        process = start(environment, tmp_path / "cache", tmp_path / "outputs", "report", tiny, *more)
        killed = kill_an_experiment(environment, process)
        shown, _ = process.communicate()
        assert process.returncode == 0, shown
        jobs = squeue(environment, "--states=all", "--format=%i %T %N %k")
    states = {job: state for job, state, *_ in jobs}
    assert "Trying to restart job" in shown and states.pop(killed) in ("CANCELLED", "FAILED"), shown
    assert set(states.values()) == {"COMPLETED"}
    assert {node for _, _, node, _ in jobs} == {"node0", "node1"}

    finished = (study.outcomes()[0].values() for study in (one, two))
    for (here,), (there,) in zip(*finished, strict=True):
        assert here.predictions["key"].tolist() == there.predictions["key"].tolist()
        probabilities = [run.predictions.filter(regex="^p_").to_numpy() for run in (here, there)]
        assert probabilities[1] == pytest.approx(probabilities[0], abs=1e-4)
        assert there.record.test_accuracy == here.record.test_accuracy
    assert (two.outputs / "report.html").is_file()
    assert (two.outputs / "report.pdf").is_file()


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
def test_two_nodes_take_at_most_two_thirds_of_the_time_of_one(tmp_path):
    assert seconds(tmp_path, "demo", 2) <= 0.65 * seconds(tmp_path, "demo", 1)
