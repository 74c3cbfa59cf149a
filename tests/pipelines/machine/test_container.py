from __future__ import annotations

from pathlib import Path

from pipelines.machine.container import container


def test_where_this_runs(tmp_path: Path) -> None:
    assert container(root=tmp_path, environment={}) == ""
    assert container(root=tmp_path, environment={"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) == "Kubernetes"
    assert container(root=tmp_path, environment={"APPTAINER_CONTAINER": "x.sif"}) == "Apptainer"
    assert container(root=tmp_path, environment={"container": "lxc"}) == "lxc"
    (tmp_path / "proc" / "1").mkdir(parents=True)
    (tmp_path / "proc" / "1" / "cgroup").write_text("12:cpu:/docker/0123\n", encoding="utf-8")
    assert container(root=tmp_path, environment={}) == "Docker"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".containerenv").touch()
    assert container(root=tmp_path, environment={}) == "Podman"
