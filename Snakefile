# The study as a graph of jobs: parameters -> experiments -> summary -> HTML and PDF.
#
# `make report` runs it; by hand: snakemake --cores all --config profile=demo
#
# An experiment's folder is named by a digest of its parameters (thaw.study), so
# whether one is up to date does not depend on file times.
import os
import sys

from thaw import places
from thaw.plan import plan
from thaw.study import Study

outputs = str(config.get("outputs") or "outputs")
study = Study.load(config["profile"], outputs)
jobs = {job.name: job for job in study.jobs}
runs = f"{study.outputs}/runs"
shared = plan(study)
thaw = f'"{sys.executable}" -m thaw --outputs "{outputs}"'
settings = workflow.resource_settings  # cores, and what a cluster's profile sets


def effort(wildcards):
    """Roughly how long an experiment takes: the longest start first, lest one be left over at the end."""
    experiment = jobs[wildcards.job].experiment
    return experiment.amount * (10 if experiment.strategy == "blocks" else 1)  # a block is some ten layers


def needed(wildcards):
    """What an experiment shares with others, made before it starts; nothing once it is finished."""
    experiment = jobs[wildcards.job].experiment
    if (jobs[wildcards.job].directory / "record.json").exists():
        return []  # else what has gone since would be made again, and the experiment run on it
    weights = [places.drawn_weights(experiment.backbone)] if experiment.weights == "drawn" else []
    return weights + shared.needs[wildcards.job]


rule report:
    input:
        f"{study.outputs}/report.html",
        f"{study.outputs}/report.pdf",


rule weights:
    output:
        places.drawn_weights("{backbone}"),
    shell:
        "{thaw} weights {wildcards.backbone} --threads {threads}"


def inputs(part):
    """What a part is made from; nothing for a head that is there: its activations are gone, and not worth making anew."""
    if part.kind == "head" and all(map(os.path.exists, part.outputs)):
        return []
    return part.inputs


for part in shared.parts:

    rule:
        name:
            part.name
        input:
            [ancient(path) for path in inputs(part)],
        output:
            [temp(path) if part.passing else path for path in part.outputs],
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
        f"{runs}/{{job}}/record.json",
        f"{runs}/{{job}}/history.csv",
        f"{runs}/{{job}}/predictions.csv",
        f"{runs}/{{job}}/experiment.ipynb",
    priority: effort
    threads: 1
    shell:
        "{thaw} experiment {study.path:q} {wildcards.job} --threads {threads}"


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
        f"{study.outputs}/latency.csv",
        [f"{runs}/{name}/record.json" for name in jobs],
        notebook=places.project() / "notebooks" / "summary.ipynb",
    output:
        f"{study.outputs}/summary.ipynb",
        [f"{study.outputs}/results.{kind}" for kind in ("csv", "md", "tex")],
    params:
        reason=str(config.get("reason") or ""),
        jobs=list(jobs),  # so that it is run again when one is taken out
        margin=study.margin,
    shell:
        "{thaw} summary {study.path:q} --reason={params.reason:q}"


rule export:
    input:
        f"{study.outputs}/summary.ipynb",
    output:
        f"{study.outputs}/report.{{format,html|pdf}}",
    shell:
        "{thaw} export {input:q} {output:q}"
