from __future__ import annotations

from pathlib import Path

from pipelines.machine.driver_library import installed_libraries


def test_libraries_are_named_by_the_files_behind_them_and_none_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.550.54.15").write_text("no library at all")
    (tmp_path / "libcuda.so.1").symlink_to("libcuda.so.550.54.15")
    (tmp_path / "libnvcuvid.so.1").symlink_to("gone")
    found = installed_libraries({"LD_LIBRARY_PATH": f":{tmp_path / 'missing'}:{tmp_path}", "PATH": ""})
    assert found["libcuda.so.1"] == "libcuda.so.550.54.15"
    assert set(found) >= {"libnvidia-ml.so.1", "libnvcuvid.so.1", "libnvidia-encode.so.1"}


def test_what_ldconfig_lists_is_found_where_it_is_not_on_the_path(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.535.1").touch()
    (tmp_path / "ldconfig").write_text(
        "#!/bin/sh\n"
        f"printf '2 libs found in cache\\n\\tlibnvidia-ml.so.1 (libc6,x86-64) => {tmp_path}/libnvidia-ml.so.535.1\\n'\n"
    )
    (tmp_path / "ldconfig").chmod(0o755)
    found = installed_libraries({"PATH": str(tmp_path)})
    assert found["libnvidia-ml.so.1"] == "libnvidia-ml.so.535.1"
    assert found["libcuda.so.1"] == "not there" or found["libcuda.so.1"].startswith("libcuda.so")
