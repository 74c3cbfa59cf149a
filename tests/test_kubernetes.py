"""The manifests in examples/kubernetes: what Kubernetes' schemas say of them, and whether their parts fit together."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Any

import kubernetes_validate
import pytest
import ranks
import tiny
import yaml
from pages import called, found_command
from runs import records

from pipelines.errors import ExitCode
from r3d_fast.cli import cli

FILES = sorted((tiny.REPO / "examples" / "kubernetes").glob("*.yaml"))
ONE_MACHINE, TWO_MACHINES = FILES
# The first one in which podFailurePolicy is stable, and the newest one whose schemas are here.
VERSIONS = ("1.31", kubernetes_validate.latest_version())


def resources(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def pod(path: Path) -> dict[str, Any]:
    spec: dict[str, Any] = resources(path)[-1]["spec"]["template"]["spec"]
    return spec


def name(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", FILES, ids=name)
def test_kubernetes_knows_every_field(path: Path, version: str) -> None:
    for resource in resources(path):
        kubernetes_validate.validate(resource, version, strict=True)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_run_that_was_stopped_goes_on_and_one_that_cannot_go_well_ends(path: Path) -> None:
    job = resources(path)[-1]["spec"]
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # with any other there is no podFailurePolicy
    drained, stopped, hopeless = job["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in (drained, stopped, hopeless)] == ["Ignore", "Ignore", "FailJob"]
    assert drained["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert ExitCode.STOPPED in stopped["onExitCodes"]["values"]
    worth_another_try = {ExitCode.OK, ExitCode.INTERNAL, ExitCode.ENVIRONMENT, ExitCode.STOPPED, ExitCode.INTERRUPTED}
    assert hopeless["onExitCodes"]["values"] == sorted(set(ExitCode) - worth_another_try)
    (container,) = job["template"]["spec"]["containers"]
    assert {rule["onExitCodes"]["containerName"] for rule in (stopped, hopeless)} == {container["name"]}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_pod_may_read_and_write_what_its_command_names(path: Path) -> None:
    spec = pod(path)
    (container,) = spec["containers"]
    assert {"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "compute,utility,video"} in container["env"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert spec["terminationGracePeriodSeconds"] > 30
    # The user of the images in docker/.
    user = spec["securityContext"]["runAsUser"]
    assert f"USER {user}\n" in (tiny.REPO / "docker" / "Dockerfile.v100").read_text(encoding="utf-8")
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert {mount["name"] for mount in mounts.values()} == {volume["name"] for volume in spec["volumes"]}
    words = shlex.split(container["args"][-1]) if len(container["args"]) == 1 else container["args"]
    data = words[words.index("-o") + 1].removeprefix("data.root=")
    assert mounts[f"/{data.split('/')[1]}"]["readOnly"]
    assert not mounts[f"/{words[words.index('--run') + 1].split('/')[1]}"].get("readOnly")


def parsed(words: list[str]) -> dict[str, Any]:
    """The options of an `r3d-fast train` command line."""
    command, rest = found_command(cli, words)
    return command.make_context("train", rest).params


def test_the_command_for_one_machine_exists_with_its_options() -> None:
    (container,) = pod(ONE_MACHINE)["containers"]
    options = parsed(container["args"])
    assert options["nproc"] == int(container["resources"]["limits"]["nvidia.com/gpu"])
    assert options["resume"] == "auto"


def test_the_two_machines_find_each_other() -> None:
    service, job = resources(TWO_MACHINES)
    (container,) = pod(TWO_MACHINES)["containers"]
    assert container["command"] == ["sh", "-c"]
    (script,) = container["args"]
    (words,) = called(script)
    assert parsed(words[1:])["resume"] == "auto"
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 2
    assert "--nnodes 2 " in script
    assert f"--nproc_per_node {container['resources']['limits']['nvidia.com/gpu']} " in script
    # The name of the pod with index 0, in the domain of the service.
    domain = pod(TWO_MACHINES)["subdomain"]
    assert domain == service["metadata"]["name"]
    assert f"master={job['metadata']['name']}-0.{domain}\n" in script
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": job["metadata"]["name"]}


@pytest.mark.slow
def test_the_two_pods_train_together(tmp_path: Path) -> None:
    index = tiny.make_tiny(tmp_path)
    words = tiny.command("train", "-c", "demo", "--run", tmp_path / "run", *tiny.options(tiny.overrides(index)))
    programs = tmp_path / "bin"
    programs.mkdir()
    for program, command in (("python", [sys.executable]), ("r3d-fast", words)):
        more = ' "$@"' if program == "python" else ""
        (programs / program).write_text(f"#!/bin/sh\nexec {shlex.join(command)}{more}\n", encoding="utf-8")
        (programs / program).chmod(0o755)
    (script,) = pod(TWO_MACHINES)["containers"][0]["args"]
    # Another name that has an address here, and what fits a machine without GPUs.
    for there, here in (
        ("r3d-fast-0.r3d-fast", "localhost"),
        ("node 8", "node 1"),
        ("/runs/ucf101", str(tmp_path)),
        (":6170", f":{ranks.free_port()}"),
    ):
        assert there in script
        script = script.replace(there, here)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    pods = []
    for number in (0, 1):
        own = {"JOB_COMPLETION_INDEX": str(number), "POD_IP": f"127.0.0.{number + 2}", "PATH": path}
        environment = {**ranks.environment(), **own}
        pods.append(subprocess.Popen(["sh", "-c", script], env=environment, stdout=PIPE, stderr=STDOUT, text=True))
    for process in pods:
        output, _ = process.communicate(timeout=ranks.LIMIT)
        assert process.returncode == 0, output
    assert [record["count"] for record in records(tmp_path / "run", "train")] == [6] * 12
    assert {path.name for path in (tmp_path / "ranks").iterdir()} == {"0", "1"}
