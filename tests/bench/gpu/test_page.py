"""The page of `bench gpu`, of what was found on made-up machines."""

from __future__ import annotations

from dataclasses import replace

import gpu_results

from bench.gpu.findings import Found
from bench.gpu.page import page


def block(found: Found, title: str) -> str:
    """A block of the page, its lines joined."""
    blocks = [text.split("\n", 1) for text in page(found).rstrip("\n").split("\n\n")]
    return next(" ".join(rest[0].split()) for name, *rest in blocks if name.startswith(title))


def test_of_a_v100_with_many_cores() -> None:
    found = gpu_results.a_v100()
    assert page(found).startswith("r3d-fast on Tesla V100-SXM2-16GB\n- ")
    decided = block(found, "WHAT IT DECIDES")
    for line in (
        "decoder (loader.decoder): pyav", "DALI threads (loader.threads): 1 thread",
        "batch of the loader (loader.batch_size): 64", "(train.precision, model.data_format): fp16 NCDHW",
        "waiting for the GPU (train.gpu_wait): sleep", "stem of 4 channels (padded): no",
        "batch norm over a 4-D view: yes in fp16 NDHWC", "max pool as two of 2-D: yes in fp16 NDHWC",
        "FLAGS_cudnn_batchnorm_spatial_persistent: yes in fp16 NDHWC, batch norm, 4-D view",
    ):  # fmt: skip
        assert line in decided
    wrong = block(found, "DEFAULTS OF OURS")
    assert wrong == "- none of the 9 that were measured"  # the trial of layouts is to come to NCDHW
    assert "198 right" in block(found, "DO THE FRAMES AGREE")
    assert "multiples of 16 20.0; others 55.0" in block(found, "DO THE FRAMES AGREE")
    assert "The GPU is what it waits for." in block(found, "WHAT LIMITS IT")
    figures = block(found, "FIGURES")
    assert "decoder: pyav 920 (911 to 929) clips/s, 14.7 CPU cores" in figures
    assert "it chose pyav (clips/s expected: pyav 900, dali 48)" in figures
    missing = block(found, "NOT MEASURED")
    assert "train_fp32_NDHWC: failed with code 4: bench: out of GPU memory at batch 64" in missing
    assert "fp16 NDHWC conv of stage 1: OutOfMemory: 3 GiB" in missing


def test_of_an_a100_on_which_defaults_are_wrong() -> None:
    found = gpu_results.an_a100()
    decided = block(found, "WHAT IT DECIDES")
    # As fast as with 10 threads, for less of the CPU.
    for line in ("): hybrid", "): 5 threads", "): 64", "): fp16 NDHWC", "): spin", "stem of 4 channels (padded): yes"):
        assert line in decided
    wrong = block(found, "DEFAULTS OF OURS")
    assert "loader.decoder auto gives 0.58 of what hybrid gives; it chose pyav" in wrong
    assert "train.gpu_wait sleep: spin is faster" in wrong
    assert "train.precision auto takes bf16: bf16 NDHWC-padded gives 0.81 of fp16 NDHWC" in wrong
    frames = block(found, "DO THE FRAMES AGREE")
    assert "198 right, 1 wrong" in frames
    assert "WRONG: Punch/v_Punch_g01_c01.avi: frame 9 comes where 8 is wanted" in frames
    assert "150 passed, 1 failed, 0 skipped - FAILED: tests.x.test_y: assert 3.2 < 3.0" in block(found, "TESTS")
    assert "Decoding is what it waits for." in block(found, "WHAT LIMITS IT")


def test_of_a_machine_on_which_little_works() -> None:
    found = gpu_results.a_broken_machine()
    assert block(found, "WHAT IT DECIDES") == "- nothing"
    assert block(found, "DEFAULTS OF OURS") == "- nothing was measured"
    assert "it ended at Lunges/v_Lunges_g04_c04.avi: failed with code -11" in block(found, "DO THE FRAMES AGREE")
    missing = block(found, "NOT MEASURED")
    assert "kernels, train_fp16_NDHWC, precision and layout, " in missing
    assert "loader_64, decoder, DALI threads: over its time: ended after its 5 minutes: round 1 of 5" in missing
    assert "pip uninstall -y paddlepaddle-gpu && install it as Paddle's own site says" in missing


def test_a_video_is_blamed_only_for_a_crash_and_for_time() -> None:
    found = gpu_results.a_broken_machine()
    for state, code, blamed in (
        ("failed", 3, False), ("interrupted", None, False), ("failed", -6, True), ("over its time", None, True),
    ):  # fmt: skip
        parts = {**found.parts, "parity": gpu_results.ended("parity", state, code, "no video in it")}
        frames = block(replace(found, parts=parts), "DO THE FRAMES AGREE")
        assert ("it ended at Lunges/v_Lunges_g04_c04.avi" in frames) == blamed


def test_results_of_an_earlier_run_are_told() -> None:
    text = page(replace(gpu_results.a_v100(), earlier=("loader_64", "parity")))
    assert "- OF AN EARLIER RUN, of other videos or with other options: loader_64, parity; run it again" in text


def test_of_nothing_at_all() -> None:
    found = Found({"name": "", "engines": 0})
    assert page(found).startswith("r3d-fast on a machine without a usable GPU\n- the machine: not asked for\n")
    missing = block(found, "NOT MEASURED")
    assert "decoder, DALI threads, batch of the loader, " in missing
    assert missing.count("not asked for") == 1


def test_what_was_tried_on_the_cpu_decides_nothing() -> None:
    found = gpu_results.a_v100()
    kernels = {**found.results["kernels"], "device": "cpu"}
    found = replace(found, results={**found.results, "kernels": kernels})
    assert "batch norm over a 4-D view" not in block(found, "WHAT IT DECIDES")
    assert "a large copy" not in block(found, "WHAT LIMITS IT")
    assert "tried on the CPU alone, in tiny sizes, which decides nothing" in block(found, "NOT MEASURED")


def test_it_is_about_a_page() -> None:
    for found in (gpu_results.a_v100(), gpu_results.an_a100(), gpu_results.a_broken_machine()):
        lines = page(found).splitlines()
        assert len(lines) < 90
        assert max(map(len, lines)) <= 110
