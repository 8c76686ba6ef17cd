# The jobs of a study, and what each waits for. `thaw report` runs stages, one after the other: rates, experiments,
# latency, report, model. An experiment's folder is named by a digest of its parameters, its learning rates among them,
# so file times decide nothing.
import os
import shlex
import subprocess
import sys
from pathlib import Path

from thaw.study.graph import end_with_coordinator
from thaw.study.plan import Plan, marker, plan
from thaw.study.study import Study, fold_name

end_with_coordinator()
root = Path(workflow.basedir)
study = Study.load(config["profile"], config["outputs"], root)
shared = plan(study, study.unfinished()) if config["shared"] else Plan({}, {})
quoted = subprocess.list2cmdline if os.name == "nt" else shlex.join
thaw = f"{quoted(['cd', str(root)])} && {quoted([sys.executable, '-m', 'thaw'])}"
of_study = f"{quoted([str(study.path), '--outputs', config['outputs']])}"
runs = f"{study.outputs}/runs"
settings = workflow.resource_settings  # cores, and what a cluster's profile sets


def parts_of(jobs):
    return sorted({str(marker(study, shared.needs[job.name])) for job in jobs if job.name in shared.needs})


def jobs_of_choice(wildcards):
    return [job for job in study.jobs if job.choice == study.choice(wildcards.choice)]


def before(job):
    if study.settings.spread == "folds" and job.unfinished_folds():
        return [str(marker(study, fold_name(job, fold))) for fold in job.unfinished_folds()]
    return parts_of([job])


rule rates:
    input:
        [str(choice.path) for choice in study.to_choose()],


rule experiments:
    input:
        [str(path) for job in study.ready() for path in (job.record, job.notebook)],


for part in shared.parts.values():

    rule:
        name:
            part.name
        output:
            marker(study, part.name),
        params:
            part=part.name,
        priority: 1000
        threads: settings.overwrite_threads.get("shared", 1)
        shell:
            "{thaw} part {of_study} {params.part:q} --threads {threads}"

    # A part's name holds a digest: a cluster's profile sets the resources of all of them as those of "shared".
    workflow.get_rule(part.name).resources.update(settings.overwrite_resources.get("shared", {}))


rule choice:
    input:
        lambda wildcards: parts_of(jobs_of_choice(wildcards)),
    output:
        f"{study.outputs}/rates/{{choice}}.csv",
    priority: lambda wildcards: max(job.effort for job in jobs_of_choice(wildcards))
    threads: settings.overwrite_threads.get("experiment", 1)
    shell:
        "{thaw} rates {of_study} {wildcards.choice:q} --threads {threads}"


rule fold:
    input:
        lambda wildcards: parts_of([study.job(wildcards.job)]),
    output:
        marker(study, "{job}-fold-{fold}"),
    priority: lambda wildcards: study.job(wildcards.job).effort
    threads: settings.overwrite_threads.get("experiment", 1)
    shell:
        "{thaw} fold {of_study} {wildcards.job:q} {wildcards.fold} --threads {threads}"


# These two train as experiments do: a cluster's profile that does not name them sets their resources as those.
for name in "choice", "fold":
    of_experiments = settings.overwrite_resources.get("experiment", {})
    workflow.get_rule(name).resources.update(settings.overwrite_resources.get(name, of_experiments))


rule experiment:
    input:
        lambda wildcards: before(study.job(wildcards.job)),
    output:
        update(f"{runs}/{{job}}/record.json"),
        update(f"{runs}/{{job}}/history.csv"),
        update(f"{runs}/{{job}}/predictions.csv"),
        update(f"{runs}/{{job}}/experiment.ipynb"),
    priority: lambda wildcards: study.job(wildcards.job).effort  # the longest start first
    threads: 1
    shell:
        "{thaw} experiment {of_study} {wildcards.job:q} --threads {threads}"


rule latency:
    output:
        f"{study.outputs}/latency.csv",
    threads: 1 if workflow.remote_exec else settings.cores or 1  # on a cluster, what its profile sets
    shell:
        "{thaw} latency {of_study}"


rule report:
    input:
        f"{study.outputs}/report.html",
        f"{study.outputs}/report.pdf",


rule model:  # without an output, it runs when asked for: its command knows what is there already
    threads: 1 if workflow.remote_exec else settings.cores or 1
    shell:
        "{thaw} deliver {of_study} --threads {threads}"


rule summary:
    output:
        f"{study.outputs}/summary.ipynb",
    shell:
        "{thaw} summary {of_study}"


rule export:
    input:
        f"{study.outputs}/summary.ipynb",
    output:
        f"{study.outputs}/report.{{format,html|pdf}}",
    shell:
        "{thaw} export {of_study} {wildcards.format}"
