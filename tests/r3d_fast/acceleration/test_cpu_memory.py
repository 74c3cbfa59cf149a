"""The memory of training on the CPU, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

STEPS = """
import json
from pipelines.machine.memory import trim_memory
from pipelines.machine.processes import own_memory
from r3d_fast.backend.precision import Precision
from r3d_fast.config.config import load_config
from r3d_fast.learning.learner import Learner, model_to_train, step_on_noise

config = load_config("ucf101_r3d18", ["model.width=32", "clip.num_frames=8"]).in_data_format("NCDHW")
model = model_to_train(config.model, 5, 0, config.init)
learner = Learner(model, config.optimizer, config.train, Precision(), "cpu")
found = []
for rows in (4, 3, 2, 4, 3, 2):
    step_on_noise(learner, rows, config.clip, 32)().loss
    trim_memory()
    found.append(own_memory())
print(json.dumps(found))
"""


def test_batches_of_several_sizes_take_no_more_memory_than_the_largest() -> None:
    """Paddle's graphs keep what oneDNN's convolutions work in, for each size of a batch: here some 110 MB each."""
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    first, *later = json.loads(done.stdout)
    assert max(later) < first + 60 * 2**20, [size >> 20 for size in (first, *later)]


BETWEEN_STEPS = """
from pipelines.machine.memory import trim_memory
from pipelines.machine.processes import own_memory
from r3d_fast.backend.precision import Precision
from r3d_fast.config.config import load_config
from r3d_fast.learning.learner import Learner, model_to_train, step_on_noise

config = load_config("ucf101_r3d18", ["model.width=32", "clip.num_frames=8"]).in_data_format("NCDHW")
model = model_to_train(config.model, 5, 0, config.init)
weights = sum(parameter.size for parameter in model.parameters()) * 4
step = step_on_noise(Learner(model, config.optimizer, config.train, Precision(), "cpu"), 2, config.clip, 32)
trim_memory()
before = own_memory()
step().loss  # one step: with more of them the heap of Paddle 2.6 has gaps that no trimming gives back
trim_memory()
print((own_memory() - before) / weights)
"""


def test_between_two_steps_stay_the_momentum_and_what_onednn_has_arranged_anew() -> None:
    """Clips are small here beside the weights, of 32 MiB: momentum and three copies of oneDNN make 4, and little else.

    Gradients that stay, be it as zeros, would make it 5.6.
    """
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1"}  # each thread has room of its own for oneDNN's sums
    done = subprocess.run(
        [sys.executable, "-c", BETWEEN_STEPS], capture_output=True, text=True, check=True, env=surroundings
    )
    assert float(done.stdout) < 5.1


EVALUATIONS = """
import json
import linecache
import paddle
from r3d_fast.acceleration.cpu import traced
from r3d_fast.models.architectures import build_model

model = build_model("r3d10", num_classes=3, width=4)
clips = paddle.ones([2, 3, 4, 16, 16])
found = []
for number in range(4):
    model.head.fc.bias.set_value(paddle.full([3], float(number)))
    with paddle.no_grad():
        model.eval()
        differ = float((traced(model)(clips) - model(clips)).abs().max())
        model.train()
    found.append([differ, len(linecache.cache)])
print(json.dumps(found))
"""


def test_a_model_is_traced_once_for_all_its_evaluations() -> None:
    """Paddle keeps something of each trace for ever, such as the lines of the code that it writes for it."""
    done = subprocess.run([sys.executable, "-c", EVALUATIONS], capture_output=True, text=True, check=True)
    differ, lines = zip(*json.loads(done.stdout), strict=True)
    assert max(differ) < 1e-4
    assert lines[1:] == (lines[1],) * 3
