from __future__ import annotations

import numpy as np

from pipelines.machine.packages import installed_version, installed_versions


def test_versions_of_what_is_installed() -> None:
    assert installed_version("numpy") == np.__version__
    assert installed_version("no-such-package") == ""
    assert installed_versions(["no-such-package", "numpy"]) == {"numpy": np.__version__}
