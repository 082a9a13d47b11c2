"""infra/nightly, without Kubernetes and GitHub: the files are held against the schemas of both, and their commands are
read by the program itself. tests/integration/test_docs_commands.py types the commands.
"""

import copy
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml
from typer.core import TyperGroup

from smoothcert.cli.main import app
from smoothcert.job import parse_job

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def said(arguments: list[str]) -> dict[str, Any]:
    """Arguments of ``smoothcert monitor`` as the program itself reads them."""
    command = typer.main.get_command(app)
    assert isinstance(command, TyperGroup)
    return command.commands["monitor"].make_context("monitor", list(arguments)).params


def cronjob_faults(cronjob: dict[str, Any], maps: set[str]) -> list[str]:
    """What the API server, or a night, would stumble over."""
    faults, spec = [], cronjob["spec"]
    if (cronjob["apiVersion"], cronjob["kind"]) != ("batch/v1", "CronJob"):
        faults.append("no CronJob of batch/v1")
    if len(spec["schedule"].split()) != 5:
        faults.append("schedule has not five fields")
    if spec.get("concurrencyPolicy") != "Forbid":
        faults.append("two nights at once")
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    if pod.get("restartPolicy") != "Never":
        faults.append("podFailurePolicy needs restartPolicy: Never")
    (container,) = pod["containers"]
    rules = spec["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    codes = [rule["onExitCodes"] for rule in rules if "onExitCodes" in rule]
    if [each["containerName"] for each in codes] != [container["name"]]:
        faults.append("exit codes of no container")
    if codes[0]["values"] != [1, 2, 6]:
        faults.append("a drop is tried again")
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for mount in container["volumeMounts"]:
        if mount["name"] not in volumes:
            faults.append(f"volume {mount['name']} is not declared")
    for volume in volumes.values():
        if "configMap" in volume and volume["configMap"]["name"] not in maps:
            faults.append(f"no ConfigMap {volume['configMap']['name']}")
    if not pod["securityContext"].get("runAsNonRoot"):
        faults.append("may run as root")
    return faults


@pytest.mark.parametrize("version", ["1.31", "1.37"])
def test_kubernetes_takes_the_recipe(version: str) -> None:
    """Kubernetes' own schema, strict: a field that it does not know is an error. 1.31 is the oldest that we name."""
    for document in documents(INFRA / "nightly/cronjob.yaml"):
        kubernetes_validate.validate(document, version, strict=True)
    broken = documents(INFRA / "nightly/cronjob.yaml")[1]
    broken["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="volumeMount"):
        kubernetes_validate.validate(broken, version, strict=True)


def test_github_takes_the_workflow(tmp_path: Path) -> None:
    """By the schema of workflows that SchemaStore keeps, as check-jsonschema brings it."""
    text = (INFRA / "nightly/workflow.yaml").read_text(encoding="utf-8")
    (tmp_path / "workflow.yaml").write_text(text)
    (tmp_path / "broken.yaml").write_text(text.replace("runs-on:", "run-on:"))
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", "-o", "json",
         *(str(tmp_path / name) for name in ("workflow.yaml", "broken.yaml"))],
        capture_output=True, text=True,
    )  # fmt: skip
    wrong = {Path(each["filename"]).name for each in json.loads(done.stdout)["errors"]}
    assert wrong == {"broken.yaml"}, done.stdout


def test_cronjob_is_whole_and_its_command_is_one() -> None:
    config, cronjob = documents(INFRA / "nightly/cronjob.yaml")
    maps = {config["metadata"]["name"]}
    assert cronjob_faults(cronjob, maps) == []
    job = parse_job(config["data"]["job.yaml"])
    assert job.output.runs.startswith("s3://") and job.certify.targets, "else --claim would be missing"
    (container,) = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["smoothcert"] and container["args"][0] == "monitor"
    read = said(container["args"][1:])
    assert (read["alpha"], read["tolerance"], read["pairs"]) == (0.01, 0.02, 200)
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == "job"]
    assert read["place"] == f"{mount['mountPath']}/job.yaml"
    broken = copy.deepcopy(cronjob)
    broken["spec"]["concurrencyPolicy"] = "Allow"
    broken["spec"]["schedule"] = "daily"
    broken["spec"]["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] = "OnFailure"
    broken["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] = [2]
    assert len(cronjob_faults(broken, set())) == 5


def test_nightly_workflow_names_what_is_there() -> None:
    (workflow,) = documents(INFRA / "nightly/workflow.yaml")
    assert set(workflow[True]) == {"schedule", "workflow_dispatch"}, "YAML reads the key 'on' as true"
    (job,) = workflow["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    (monitor,) = [command for command in commands if command.startswith("smoothcert monitor")]
    read = said(shlex.split(re.sub(r"\$\{\{.*?\}\}", "runs/reference", monitor))[2:])
    assert (ROOT / read["place"]).is_file() and read["csv"] == Path("nights.csv")
    kept = next(step["with"]["path"] for step in job["steps"] if "upload-artifact" in step.get("uses", ""))
    assert kept.split() == ["nights.csv", "trend.html"] == [str(read["csv"]), str(read["page"])]
    assert all("@" in step["uses"] for step in job["steps"] if "uses" in step)
    with pytest.raises(Exception, match="No such option"):
        said(["jobs/digits.yaml", "--unknown=1"])
