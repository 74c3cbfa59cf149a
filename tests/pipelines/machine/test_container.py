from __future__ import annotations

from pathlib import Path

from pipelines.machine.container import cgroup_limits, container, driver_remedy, install_driver


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


def test_how_a_driver_is_installed(tmp_path: Path) -> None:
    def said(system: str, least: str = "") -> str:
        (tmp_path / "etc").mkdir(exist_ok=True)
        (tmp_path / "etc" / "os-release").write_text(f'NAME="Some"\nID={system}\n', encoding="utf-8")
        return install_driver(least, root=tmp_path, environment={})

    assert install_driver("525", root=tmp_path, environment={}) == (
        "install version 525 or later of NVIDIA's driver, and reboot"
    )
    assert said("ubuntu", "525") == "sudo ubuntu-drivers install --gpgpu && sudo reboot"
    assert said("debian").startswith("sudo apt-get install nvidia-driver && sudo reboot")
    assert said('"rocky"') == "install NVIDIA's driver, and reboot"
    (tmp_path / ".dockerenv").touch()
    assert said("ubuntu", "525") == (
        "install version 525 or later of NVIDIA's driver on the host, outside of Docker, and start the container again"
    )


def test_limits_are_those_of_the_files_that_are_there(tmp_path: Path) -> None:
    assert cgroup_limits(tmp_path) == {}
    (tmp_path / "cpu.max").write_text("400000 100000\n")
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("17179869184\n")
    assert cgroup_limits(tmp_path) == {
        "cpu.max": "400000 100000",
        "memory/memory.limit_in_bytes": "17179869184",
    }


def test_how_the_libraries_of_the_driver_get_there(tmp_path: Path) -> None:
    def said(outside: str = "", **environment: str) -> str:
        return driver_remedy(outside, root=tmp_path, environment=environment)

    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "os-release").write_text("ID=ubuntu\n", encoding="utf-8")
    assert said() == "sudo ubuntu-drivers install --gpgpu && sudo reboot"
    assert said("sudo apt-get install libnvidia-decode-550") == "sudo apt-get install libnvidia-decode-550"
    for kind in ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, {"APPTAINER_CONTAINER": "x.sif"}, {"container": "docker"}):
        assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video" in said("outside", **kind)
