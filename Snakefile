# The study as a graph of jobs: parameters -> experiments -> summary -> HTML and PDF.
#
# `make report` runs it; by hand: snakemake --cores all --directory outputs/demo --config profile=demo
#
# An experiment's folder is named by a digest of its parameters (thaw.study.study), so
# whether one is up to date does not depend on file times.
import os
import shlex
import subprocess
import sys
from pathlib import Path

from thaw.study import search
from thaw.study.plan import plan
from thaw.study.study import Study

outputs = str(config.get("outputs") or "outputs")
root = Path(workflow.basedir)
study = Study.load(config["profile"], outputs, root)
without = set(config.get("without") or [])  # jobs that have failed: nothing waits for them
jobs = {job.name: job for job in study.jobs if job.name not in without}
runs = f"{study.outputs}/runs"
shared = plan(study)
lost = {f"{runs}/{name}/record.json" for name in without}
lost |= {path for part in shared.parts if part.name in without for path in part.outputs}
searched = search.of(study, root)
quoted = subprocess.list2cmdline if os.name == "nt" else shlex.join
thaw = f"{quoted(['cd', str(root)])} && {quoted([sys.executable, '-m', 'thaw', '--outputs', outputs])}"
settings = workflow.resource_settings  # cores, and what a cluster's profile sets


def effort(wildcards):
    """Roughly how long an experiment takes: the longest start first, lest one be left over at the end."""
    experiment = jobs[wildcards.job].experiment
    return experiment.amount * (10 if experiment.strategy == "blocks" else 1)  # a block is some ten layers


def needed(wildcards):
    """What an experiment shares with others, made before it starts; nothing once it is finished."""
    if (jobs[wildcards.job].directory / "record.json").exists():
        return []  # else what has gone since would be made again, and the experiment run on it
    return present(shared.needs[wildcards.job])


def present(paths):
    """Those that no failed job was to make."""
    return [path for path in paths if path not in lost]


rule report:
    input:
        [f"{runs}/{name}/record.json" for name in jobs] if study.is_search else [],
        [] if study.is_search else [f"{study.outputs}/report.html", f"{study.outputs}/report.pdf"],


def inputs(part):
    """What a part is made from; nothing for a head that is there: its activations are gone, and not worth making anew."""
    if part.kind == "head" and all(map(os.path.exists, part.outputs)):
        return []
    return present(part.inputs)


for part in (part for part in shared.parts if part.name not in without):

    rule:
        name:
            part.name
        input:
            [ancient(path) for path in inputs(part)],
        output:
            # Not of what is large: Snakemake keeps a copy of what is there until the job is done.
            [temp(path) if part.passing else update(path) for path in part.outputs],
        params:
            part=part.name,
        priority: 1000
        threads: settings.overwrite_threads.get(part.kind, 1)
        shell:
            "{thaw} prepare {study.path:q} {params.part:q} --threads {threads}"

    # A part's name holds a digest: a cluster's profile sets things for its kind.
    workflow.get_rule(part.name).resources.update(settings.overwrite_resources.get(part.kind, {}))


rule experiment:
    input:
        ancient(needed),
    output:
        update(f"{runs}/{{job}}/record.json"),
        update(f"{runs}/{{job}}/history.csv"),
        update(f"{runs}/{{job}}/predictions.csv"),
        update(f"{runs}/{{job}}/experiment.ipynb"),
    priority: effort
    threads: 1
    shell:
        "{thaw} experiment {study.path:q} {wildcards.job:q} --threads {threads}"


rule latency:
    input:
        [ancient(f"{runs}/{name}/record.json") for name in jobs],  # nothing else may run beside it
    output:
        f"{study.outputs}/latency.csv",
    params:
        jobs=list(jobs),
    threads: 1 if workflow.remote_exec else settings.cores or 1  # on a cluster, what its profile sets
    shell:
        "{thaw} latency {study.path:q}"


rule summary:
    input:
        [] if "latency" in without else f"{study.outputs}/latency.csv",
        [f"{runs}/{name}/record.json" for name in jobs],
        notebook=root / "notebooks" / "summary.ipynb",
    output:
        f"{study.outputs}/summary.ipynb",
        [f"{study.outputs}/results.{kind}" for kind in ("csv", "md", "tex")],
    params:
        reason=str(config.get("reason") or ""),
        jobs=list(jobs),  # so that it is run again when one is taken out
        margin=study.margin,
        search=[job.name for job in searched.finished()] if searched else [],  # the appendix
    shell:
        "{thaw} summary {study.path:q} --reason={params.reason:q}"


rule export:
    input:
        f"{study.outputs}/summary.ipynb",
    output:
        f"{study.outputs}/report.{{format,html|pdf}}",
    shell:
        "{thaw} export {input:q} {output:q}"
