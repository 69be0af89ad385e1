"""The cluster examples say what userfm, Ray and Kubernetes understand, and what belongs together is the same."""

from __future__ import annotations

import re
import shlex
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from userfm.cli import app

EXAMPLES = Path(__file__).parents[2] / "examples" / "cluster"


@pytest.fixture(scope="module")
def manifests() -> dict[str, dict[str, Any]]:
    """What the manifests ask Kubernetes for, by kind."""
    files = [EXAMPLES / "rayjob.yaml", EXAMPLES / "storage.yaml"]
    return {one["kind"]: one for one in (yaml.safe_load(file.read_text()) for file in files)}


@pytest.fixture(scope="module")
def job(manifests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return manifests["RayJob"]["spec"]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def pods(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["rayClusterSpec"]
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def parameters(command: str) -> dict[str, Any]:
    """What `userfm` makes of a command line; click ends with an error where it knows an option not."""
    program, name, *arguments = shlex.split(command)
    assert Path(program).name == "userfm"
    group = typer.main.get_command(app)
    found = group.get_command(None, name)  # type: ignore[attr-defined,arg-type]
    return found.make_context(name, arguments).params  # type: ignore[no-any-return]


def test_the_job_runs_a_command_that_userfm_has(job: dict[str, Any]) -> None:
    told = parameters(job["entrypoint"])
    assert told["address"] == "auto"
    (workers,) = job["rayClusterSpec"]["workerGroupSpecs"]
    assert (told["workers"], told["min_workers"]) == (workers["maxReplicas"], workers["minReplicas"])


def test_all_pods_share_the_folder_of_the_corpus_and_the_run(
    manifests: dict[str, dict[str, Any]], job: dict[str, Any], pods: list[dict[str, Any]]
) -> None:
    told, claim = parameters(job["entrypoint"]), manifests["PersistentVolumeClaim"]["metadata"]["name"]
    for pod in pods:
        (container,) = pod["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert {told["corpus"].parts[1], told["out"].parts[1]} == {mounts["shared"].strip("/")}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert set(mounts) == set(volumes)
        assert volumes["shared"]["persistentVolumeClaim"]["claimName"] == claim


def test_all_machines_have_one_image_and_one_user(job: dict[str, Any], pods: list[dict[str, Any]]) -> None:
    assert len({container["image"] for pod in pods for container in pod["containers"]}) == 1
    users = {pod["securityContext"]["runAsUser"] for pod in pods}
    assert re.findall(r"--uid (\d+)", (EXAMPLES / "Containerfile").read_text()) == [str(user) for user in users]


def test_the_version_of_ray_is_one_that_userfm_takes(job: dict[str, Any]) -> None:
    from packaging.requirements import Requirement

    told = [Requirement(line) for line in metadata.requires("userfm") or [] if line.startswith("ray[")]
    assert told
    assert all(one.specifier.contains(job["rayClusterSpec"]["rayVersion"]) for one in told)


def test_the_image_takes_along_every_package_that_a_wheel_has() -> None:
    copied = set(re.findall(r"^COPY .*?(\w+) /src/\w+", (EXAMPLES / "Containerfile").read_text(), re.MULTILINE))
    assert {"tokenization", "foundation", "serving", "training", "userfm"} <= copied


def test_ray_takes_the_cluster_of_ones_own_machines() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((EXAMPLES / "cluster.yaml").read_text())
    validate_config(prepare_config(config))
    described = (EXAMPLES / "cluster.yaml").read_text()
    (command,) = re.findall(r"ray exec \S+ '([^']+)'", described)
    told = parameters(command)
    assert told["workers"] == len(config["provider"]["worker_ips"])
    assert told["address"] == "auto"
