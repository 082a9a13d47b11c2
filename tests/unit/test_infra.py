"""infra/, as far as it can be checked without Docker, Kubernetes or a cloud. Every check is seen to fail."""

import copy
import fnmatch
import json
import re
import shlex
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import yaml

import smoothcert
from smoothcert.encoders.loading import resolve_device
from smoothcert.job import parse_job
from smoothcert.work.inputs import loadable_here

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
CONSTRAINTS = {
    name.lower(): version
    for name, version in (line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
}
DOCKERFILES = sorted(INFRA.rglob("Dockerfile"))
YAML_FILES = sorted(INFRA.rglob("*.yaml"))
VARIABLE = re.compile(r"\$\{(\w+)(:?[-?][^}]*)?\}")


class UniqueKeyLoader(yaml.SafeLoader):
    """A key given twice is a mistake that PyYAML hides."""


def _mapping(loader: UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    doubled = {key for key in keys if keys.count(key) > 1}
    assert not doubled, f"keys given twice: {doubled}"
    loader.flatten_mapping(node)
    return loader.construct_mapping(node)


UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def documents(path: Path) -> list[Any]:
    return list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=UniqueKeyLoader))


def strings(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from strings(value, (*path, str(key)))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from strings(value, (*path, str(index)))
    elif isinstance(node, str):
        yield path, node


def test_yaml_parses_without_doubled_keys() -> None:
    assert {path.parent.name for path in YAML_FILES} == {"kuberay", "nightly", "ray-cluster", "mlflow"}
    for path in YAML_FILES:
        assert all(documents(path)), path
    with pytest.raises(AssertionError, match="twice"):
        yaml.load("{a: 1, a: 2}", Loader=UniqueKeyLoader)


# --- secrets ---

SECRET_NAME = re.compile(r"password|secret|token|access_?key|credential", re.IGNORECASE)
SECRET_VALUE = re.compile(r"AKIA[0-9A-Z]{16}|-----BEGIN|gh[pousr]_\w{30,}|://[^/\s:@]+:[^/\s@${}]+@")
REFERENCE = re.compile(r"^(\$\{\w+:\?[^}]+\}|\$\{\{ secrets\.\w+ \}\})$")
# names that contain such a word and hold no secret: references by name, paths, a mode
HARMLESS = {
    ("secretRef", "name"),
    ("MetadataOptions", "HttpTokens"),
    ("file_mounts", "/home/smoothcert/.ray/auth_token"),
}


def leaks(node: Any) -> list[str]:
    found = []
    for path, value in strings(node):
        if SECRET_VALUE.search(VARIABLE.sub("", value)):
            found.append(f"{'.'.join(path)} looks like a secret")
        named = any(SECRET_NAME.search(part) for part in path)
        if named and path[-2:] not in HARMLESS and not REFERENCE.match(value):
            found.append(f"{'.'.join(path)} is written out instead of referenced")
    return found


def test_no_secret_is_written_out() -> None:
    assert [(path.name, leaks(documents(path))) for path in YAML_FILES if leaks(documents(path))] == []
    for path in INFRA.rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert not SECRET_VALUE.search(VARIABLE.sub("", text)), path
    assert leaks({"POSTGRES_PASSWORD": "hunter2"})
    assert leaks({"uri": "postgresql://mlflow:hunter2@postgres/mlflow"})
    assert leaks({"key": "AKIA" + "A" * 16})
    assert leaks({"S3_SECRET_KEY": "${S3_SECRET_KEY:-default}"}), "a default would be a secret too"


# --- Ray cluster launcher ---


def ray_schema() -> dict[str, Any]:
    spec = find_spec("ray")
    assert spec is not None and spec.origin is not None
    path = Path(spec.origin).parent / "autoscaler" / "ray-schema.json"
    schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return schema


def test_cluster_file_fits_the_schema_that_ray_ships() -> None:
    cluster = documents(INFRA / "ray-cluster/cluster.yaml")[0]
    validator = jsonschema.Draft7Validator(ray_schema())
    assert [error.message for error in validator.iter_errors(cluster)] == []
    assert list(validator.iter_errors({**cluster, "max_workerz": 8}))
    assert list(validator.iter_errors({**cluster, "docker": {"img": "x"}}))


def test_cluster_file_passes_the_checks_of_ray_up() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    cluster = documents(INFRA / "ray-cluster/cluster.yaml")[0]
    validate_config(prepare_config(copy.deepcopy(cluster)))
    cluster["head_node_type"] = "no-such-type"
    with pytest.raises(ValueError, match="head_node_type"):
        validate_config(prepare_config(cluster))


def test_cluster_workers_are_spot_the_head_is_not_and_ray_asks_for_a_token() -> None:
    cluster = documents(INFRA / "ray-cluster/cluster.yaml")[0]
    types = cluster["available_node_types"]
    for name, node in types.items():
        spot = node["node_config"].get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        assert spot == (name != cluster["head_node_type"])
    assert types[cluster["head_node_type"]]["resources"] == {"CPU": 0, "GPU": 0}
    assert "--env RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]
    assert f"--volume smoothcert-models:{HUB_CACHE}" in cluster["docker"]["run_options"]
    assert "/home/smoothcert/.ray/auth_token" in cluster["file_mounts"]
    assert not any("0.0.0.0" in command for command in cluster["head_start_ray_commands"])


# --- KubeRay ---

SPOT_LABELS = {
    "cloud.google.com/gke-spot",
    "kubernetes.azure.com/scalesetpriority",
    "karpenter.sh/capacity-type",
    "eks.amazonaws.com/capacityType",
}
JOB_KEYS = {
    "entrypoint", "submissionMode", "submitterConfig", "backoffLimit", "shutdownAfterJobFinishes",
    "ttlSecondsAfterFinished", "rayClusterSpec",
}  # fmt: skip
CLUSTER_KEYS = {
    "rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec",
    "workerGroupSpecs",
}  # fmt: skip
HUB_CACHE = "/home/smoothcert/.cache/huggingface"
WORKER_KEYS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


def rayjob_faults(job: dict[str, Any], config_maps: set[str]) -> list[str]:
    """What KubeRay or Kubernetes would refuse, or what would make the job fragile on spot nodes."""
    faults = []

    def expect(holds: bool, fault: str) -> None:
        if not holds:
            faults.append(fault)

    expect((job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob"), "kind")
    expect(re.fullmatch(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?", job["metadata"]["name"]) is not None, "name")
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    expect(set(spec) <= JOB_KEYS, f"unknown keys {set(spec) - JOB_KEYS}")
    expect(set(cluster) <= CLUSTER_KEYS, f"unknown keys {set(cluster) - CLUSTER_KEYS}")
    # a driver with entrypoint resources could be placed on a spot worker
    expect("entrypointNumCpus" not in spec, "driver may leave the head")
    expect(spec["submissionMode"] == "K8sJobMode", "submission mode")
    # more would start cluster after cluster for a job that refuses to start, e.g. after an upgrade of the image
    expect(spec["backoffLimit"] == 1, "a lost head must be retried, and a refused job not for ever")
    expect(spec["shutdownAfterJobFinishes"] is True, "GPUs are kept after the end")
    expect(cluster["authOptions"] == {"mode": "token"}, "no token authentication")
    expect(cluster["rayVersion"] == CONSTRAINTS["ray"], "rayVersion differs from constraints.txt")
    expect(cluster["enableInTreeAutoscaling"] is True, "no autoscaling")
    expect(head["rayStartParams"].get("num-cpus") == "0", "work on the head")
    for group in (head, *workers):
        expect(
            all(isinstance(value, str) for value in group["rayStartParams"].values()), "rayStartParams type"
        )
        pod = group["template"]["spec"]
        expect(pod.get("restartPolicy") == "Never", "autoscaler v2 wants restartPolicy Never")
        expect(pod["securityContext"].get("runAsNonRoot") is True, "root")
        expect(pod.get("terminationGracePeriodSeconds", 0) > 0, "no grace period")
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        maps = {v["configMap"]["name"] for v in pod.get("volumes", []) if "configMap" in v}
        expect(maps <= config_maps, f"ConfigMaps {maps - config_maps} are not in the file")
        for container in pod["containers"]:
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            expect(mounted <= volumes, f"mounts {mounted - volumes} have no volume")
            secrets = {each["secretRef"]["name"] for each in container.get("envFrom", [])}
            expect("smoothcert-hugging-face" in secrets, "no way to give HF_TOKEN")
            expect(HUB_CACHE in {m["mountPath"] for m in container["volumeMounts"]}, "models have no volume")
            expect("memory" in container["resources"].get("limits", {}), "no memory limit")
            expect(":" in container["image"] and "latest" not in container["image"], "image is not pinned")
    images = {c["image"] for group in (head, *workers) for c in group["template"]["spec"]["containers"]}
    expect(len(images) == 1, "head and workers differ in image")
    on_head = head["template"]["spec"]["affinity"]["nodeAffinity"]
    terms = on_head["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    avoided = {e["key"] for term in terms for e in term["matchExpressions"] if e["operator"] == "NotIn"}
    expect(avoided == SPOT_LABELS, "the head may land on a spot node")
    for group in workers:
        expect(set(group) <= WORKER_KEYS, f"unknown keys {set(group) - WORKER_KEYS}")
        expect(group["minReplicas"] <= group["replicas"] <= group["maxReplicas"], "replicas")
        expect(group["replicas"] == 0, "GPUs are taken before the driver has looked at the job")
        pod, container = group["template"]["spec"], group["template"]["spec"]["containers"][0]
        tolerated = {toleration["key"] for toleration in pod.get("tolerations", [])}
        expect("nvidia.com/gpu" in tolerated, "GPU taint is not tolerated")
        expect(len(tolerated & SPOT_LABELS) >= 3, "spot taints are not tolerated")
        gpus = [container["resources"][kind].get("nvidia.com/gpu") for kind in ("requests", "limits")]
        expect(gpus[0] is not None and gpus[0] == gpus[1], "GPU requests and limits")
        stop = " ".join(container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", []))
        grace = re.search(r"ray stop --grace-period (\d+)", stop)
        expect(grace is not None, "no preStop")
        if grace is not None:
            expect(int(grace[1]) < pod.get("terminationGracePeriodSeconds", 0), "preStop is cut short")
    return faults


def rayjob_file() -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
    found = {
        (document["kind"], document["metadata"]["name"]): document
        for document in documents(INFRA / "kuberay/rayjob.yaml")
    }
    maps = {name: document["data"] for (kind, name), document in found.items() if kind == "ConfigMap"}
    return found["RayJob", "smoothcert"], maps


def test_rayjob_keeps_the_rules() -> None:
    job, maps = rayjob_file()
    assert rayjob_faults(job, set(maps)) == []


def _worker(job: dict[str, Any]) -> dict[str, Any]:
    group: dict[str, Any] = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    return group


BREAKAGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "unknown keys": lambda job: job["spec"].update(backofLimit=1),
    "token": lambda job: (
        job["spec"]["rayClusterSpec"].pop("authOptions")
        and job["spec"]["rayClusterSpec"].update(authOptions={})
    ),
    "rayVersion": lambda job: job["spec"]["rayClusterSpec"].update(rayVersion="2.9.0"),
    "no volume": lambda job: _worker(job)["template"]["spec"].update(volumes=[]),
    "GPU requests": lambda job: _worker(job)["template"]["spec"]["containers"][0]["resources"][
        "requests"
    ].pop("nvidia.com/gpu"),
    "spot taints": lambda job: _worker(job)["template"]["spec"].update(
        tolerations=[{"key": "nvidia.com/gpu"}]
    ),
    "preStop is cut short": lambda job: _worker(job)["template"]["spec"].update(
        terminationGracePeriodSeconds=5
    ),
    "replicas": lambda job: _worker(job).update(minReplicas=99),
    "GPUs are taken": lambda job: _worker(job).update(replicas=1),
    "not for ever": lambda job: job["spec"].update(backoffLimit=6),
    "HF_TOKEN": lambda job: _worker(job)["template"]["spec"]["containers"][0]["envFrom"].pop(),
    "models have no volume": lambda job: _worker(job)["template"]["spec"]["containers"][0][
        "volumeMounts"
    ].pop(),
    "differ in image": lambda job: _worker(job)["template"]["spec"]["containers"][0].update(image="other:1"),
}


@pytest.mark.parametrize("fault", BREAKAGES)
def test_rayjob_rules_can_fail(fault: str) -> None:
    job, maps = rayjob_file()
    BREAKAGES[fault](job)
    assert any(fault in found for found in rayjob_faults(job, set(maps)))


def test_job_in_the_rayjob_is_a_valid_ray_job_on_an_object_store() -> None:
    rayjob, maps = rayjob_file()
    job = parse_job(maps["smoothcert-job"]["job.yaml"])
    assert job.executor.kind == "ray" and job.executor.address is None
    assert job.output.runs.startswith("s3://"), "a pod's disk is lost with the pod"
    group = _worker(rayjob)
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert job.executor.workers == group["maxReplicas"]
    assert job.executor.gpus_per_worker == int(limits["nvidia.com/gpu"])
    assert job.executor.cpus_per_worker <= int(limits["cpu"])
    mount = next(
        m
        for m in rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0][
            "volumeMounts"
        ]
        if m["name"] == "job"
    )
    assert rayjob["spec"]["entrypoint"] == f"smoothcert certify {mount['mountPath']}/job.yaml"
    # the driver plans on the head, which has no GPU, for workers that have one
    head = rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert not any("gpu" in resource for resource in head["resources"]["limits"])
    if not torch.cuda.is_available():
        assert resolve_device(loadable_here(job.encoder, job.executor).device).type == "cpu"
    assert job.encoder.device == "cuda" and job.executor.gpus_per_worker == 1


# --- compose ---


def compose_faults(compose: dict[str, Any]) -> list[str]:
    faults = []
    services = compose["services"]
    for name, service in services.items():
        if "image" not in service and "build" not in service:
            faults.append(f"{name}: neither image nor build")
        if (
            "image" in service
            and ":" not in service["image"]
            and not any(
                other.get("image") == service["image"] and "build" in other for other in services.values()
            )
        ):
            faults.append(f"{name}: image is not pinned")
        for other, how in service.get("depends_on", {}).items():
            if other not in services:
                faults.append(f"{name}: depends on unknown {other}")
            elif how["condition"] == "service_healthy" and "healthcheck" not in services[other]:
                faults.append(f"{name}: {other} has no health check")
        for volume in service.get("volumes", []):
            if volume.split(":")[0] not in compose["volumes"]:
                faults.append(f"{name}: volume {volume} is not declared")
        faults += [
            f"{name}: port {port} is open to the network"
            for port in service.get("ports", [])
            if not port.startswith("${BIND:-127.0.0.1}:")
        ]
    return faults


def test_compose_is_whole() -> None:
    compose = documents(INFRA / "mlflow/compose.yaml")[0]
    assert set(compose) <= {"name", "services", "volumes", "networks", "configs", "secrets"}
    assert compose_faults(compose) == []
    build = compose["services"]["mlflow"]["build"]
    context = (INFRA / "mlflow" / build["context"]).resolve()
    assert context == ROOT and (context / build["dockerfile"]).is_file()
    environment = compose["services"]["mlflow"]["environment"]
    assert environment["MLFLOW_BACKEND_STORE_URI"].startswith("postgresql+psycopg2://")
    assert environment["MLFLOW_ARTIFACTS_DESTINATION"] == "s3://mlflow"
    broken = copy.deepcopy(compose)
    del broken["services"]["store"]["healthcheck"]
    broken["services"]["postgres"]["volumes"] = ["nowhere:/data"]
    broken["services"]["mlflow"]["ports"] = ["5000:5000"]
    assert len(compose_faults(broken)) == 4


def test_compose_variables_are_required_or_have_a_default() -> None:
    text = (INFRA / "mlflow/compose.yaml").read_text(encoding="utf-8")
    example = (INFRA / "mlflow/.env.example").read_text(encoding="utf-8")
    required = {name for name, rest in VARIABLE.findall(text) if rest.startswith(":?")}
    optional = {name for name, rest in VARIABLE.findall(text) if rest.startswith(":-")}
    assert {name for name, _ in VARIABLE.findall(text)} == required | optional
    assert set(re.findall(r"^(\w+)=(.*)$", example, re.MULTILINE)) == {(name, "") for name in required}
    assert set(re.findall(r"^# (\w+)=", example, re.MULTILINE)) == optional


def test_mlflow_server_accepts_the_arguments_and_variables() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SQLAlchemy deprecates what MLflow uses at import
        from mlflow.cli import server

    compose = documents(INFRA / "mlflow/compose.yaml")[0]
    program, command, *arguments = compose["services"]["mlflow"]["command"]
    assert (program, command) == ("mlflow", "server")
    known = {option for parameter in server.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {argument for argument in arguments if argument.startswith("-")} <= known
    variables = {parameter.envvar for parameter in server.params if parameter.envvar}
    assert {
        "MLFLOW_BACKEND_STORE_URI",
        "MLFLOW_ARTIFACTS_DESTINATION",
        "MLFLOW_SERVER_ALLOWED_HOSTS",
    } <= variables


# --- Dockerfiles ---


def instructions(path: Path) -> list[tuple[str, str]]:
    lines = [
        line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")
    ]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [
        (name.upper(), rest.strip())
        for name, _, rest in (line.strip().partition(" ") for line in joined.splitlines())
        if name
    ]


def sent_to_docker(path: str, ignore: list[str]) -> bool:
    sent = True
    for pattern in ignore:
        keep = pattern.startswith("!")
        name = pattern.removeprefix("!")
        if fnmatch.fnmatch(path, name) or path.startswith(f"{name}/"):
            sent = keep
    return sent


def dockerfile_faults(steps: list[tuple[str, str]], ignore: list[str]) -> list[str]:
    faults = []
    stages = {rest.split()[-1] for name, rest in steps if name == "FROM" and " AS " in rest.upper()}
    for name, rest in steps:
        if (
            name == "FROM"
            and rest.split()[0] not in stages
            and not re.search(r":\S*\d", rest.replace("${PYTHON_VERSION}", "3.11"))
        ):
            faults.append(f"FROM {rest} is not pinned")
        if name == "COPY":
            words = shlex.split(rest)
            flags = [word for word in words if word.startswith("--")]
            for source in [word for word in words if not word.startswith("--")][:-1]:
                if any(
                    flag.removeprefix("--from=") in stages for flag in flags if flag.startswith("--from=")
                ):
                    continue
                if not (ROOT / source).exists():
                    faults.append(f"COPY {source}: no such file")
                elif not sent_to_docker(source.removeprefix("./").rstrip("/"), ignore):
                    faults.append(f"COPY {source}: kept out by .dockerignore")
        if name == "ADD":
            faults.append("ADD: use COPY")
        if name == "RUN":
            for command in re.split(r"&&|;", rest):
                if "pip install" in command and not re.search(r"-c (/tmp/)?constraints\.txt", command):
                    faults.append(f"{command.strip()}: without constraints")
    users = [rest for name, rest in steps if name == "USER"]
    if not users or users[-1] in ("root", "0"):
        faults.append("runs as root")
    return faults


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_dockerfile(path: Path) -> None:
    ignore = path.with_name("Dockerfile.dockerignore").read_text(encoding="utf-8").split("\n")
    patterns = [line for line in ignore if line and not line.startswith("#")]
    assert dockerfile_faults(instructions(path), patterns) == []


def test_dockerfile_rules_can_fail() -> None:
    steps = [
        ("FROM", "python:latest"),
        ("COPY", "no-such-file ."),
        ("COPY", "tests ."),
        ("RUN", "pip install mlflow"),
    ]
    assert len(dockerfile_faults(steps, ["*", "!pipeline"])) == 5


def test_image_has_both_variants_the_script_and_all_that_setup_reads() -> None:
    path = INFRA / "image/Dockerfile"
    text = path.read_text(encoding="utf-8")
    assert re.search(r"^\s*cpu\)", text, re.MULTILINE) and re.search(r"^\s*cuda\)", text, re.MULTILINE)
    copied = {word for name, rest in instructions(path) if name == "COPY" for word in rest.split()[:-1]}
    # what pyproject.toml names: readme and the source root
    assert {"pyproject.toml", "README.md", "pipeline", "constraints.txt"} <= {
        word.removeprefix("./") for word in copied
    }
    assert ("RUN", "smoothcert --help > /dev/null") in instructions(path)


def test_images_carry_our_version() -> None:
    tags = {
        tag
        for path in (*YAML_FILES, *INFRA.rglob("*.md"))
        for tag in re.findall(r"registry\.example\.com/smoothcert:(\S+)", path.read_text(encoding="utf-8"))
    }
    assert tags == {f"{smoothcert.__version__}-cuda", f"{smoothcert.__version__}-cpu"}


def test_links_in_the_how_tos_exist() -> None:
    for path in INFRA.rglob("*.md"):
        text = path.read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert (path.parent / link).exists(), f"{path}: {link}"
        for mentioned in re.findall(r"\b(?:infra|jobs|tests)/[\w./-]+\w", text):
            assert (ROOT / mentioned).exists(), f"{path}: {mentioned}"
