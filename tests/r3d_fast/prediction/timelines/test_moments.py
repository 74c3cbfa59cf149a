from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from r3d_fast.prediction.timelines.moments import Moment


def test_a_moment_as_json_has_an_error_and_a_time_of_day_only_where_there_is_one() -> None:
    plain = {"start": 1.0, "end": 2.0, "classes": [{"class": "run", "probability": 0.75}]}
    assert Moment("v", 1.0, 2.0, (("run", 0.75),)).as_json() == plain
    at = datetime(2024, 5, 6, 7, 8, 9, 10_000, tzinfo=UTC)
    assert Moment("v", 1.0, 2.0, (("run", 0.75),), at=at).as_json() == {**plain, "at": "2024-05-06T07:08:09.010+00:00"}
    assert Moment("v", 1.0, 2.0, error="cut").as_json() == {"start": 1.0, "end": 2.0, "classes": [], "error": "cut"}


def test_moments_are_the_same_by_what_they_say_not_by_all_probabilities() -> None:
    one, other = (Moment("v", 0.0, 1.0, (("a", 0.5),), probabilities=np.array([0.5, p])) for p in (0.5, 0.4))
    assert one == other
    assert one != Moment("v", 0.0, 1.0, (("b", 0.5),))
