"""What `bench gpu` finds on made-up machines: a V100, an A100, and one on which nearly nothing works."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.gpu.findings import Found

Json = dict[str, Any]
SPREAD = (0.99, 0.995, 1.0, 1.005, 1.01)


def rounds(middle: float) -> list[float]:
    """Five rounds about `middle`, all within 1 %."""
    return [round(middle * one, 4) for one in SPREAD]


def figures(name: str, rate: float, cpu_ms: float, routing: Sequence[Any] = ()) -> Json:
    routed = dict(zip(("decoder", "share", "reason"), routing, strict=True)) if routing else None
    cpu = [cpu_ms / 1000] * 5
    return {"name": name, "clips_per_second": rounds(rate), "cpu_seconds_per_clip": cpu, "routing": routed}


def throughput(*of: Json, missing: Json | None = None) -> Json:
    extra = {"not measured": missing} if missing else {}
    return {"runs": [{"figures": list(of)}], "extra": extra}


def loader(rates: dict[str, tuple[float, float]], routing: Sequence[Any]) -> Json:
    """A report of the loader: clips/s and CPU ms a clip by the name of the contender after `r3d-fast`."""
    names = {name: f"r3d-fast, {name}" if name else "r3d-fast" for name in rates}
    return throughput(*(figures(names[name], *pair, routing if not name else ()) for name, pair in rates.items()))


def training(compute: float, data: float, both: float, cpu_ms: float) -> Json:
    return throughput(
        figures("synthetic", compute, 1.0), figures("loader", data, cpu_ms), figures("training", both, cpu_ms)
    )


def timing(name: str, precision: str, layout: str, ms: float, problem: str = "") -> Json:
    return {
        "name": name, "precision": precision, "layout": layout, "ms": [] if problem else rounds(ms),
        "tflop_per_second": 40.0, "gb_per_second": 700.0, "problem": problem,
    }  # fmt: skip


def kernels(half: str, *, norm: tuple[float, float], stem: tuple[float, float]) -> Json:
    """Timings in a half precision, channels last; ms of batch norm in 5-D and 4-D, of the stem of 3 and 4 channels."""
    last = (half, "NDHWC")
    return {
        "device": "gpu", "paddle": "2.6.2", "persistent": "0",
        "kernels": [
            timing("copy", half, "", 2.5), timing("matmul", half, "", 12.0),
            timing("stem, 3 channels", *last, stem[0]), timing("stem, 4 channels", *last, stem[1]),
            timing("batch norm", *last, norm[0]), timing("batch norm, 4-D view", *last, norm[1]),
            timing("max pool", *last, 9.0), timing("max pool, two of 2-D", *last, 4.0),
            timing("conv of stage 1", *last, 0.0, problem="OutOfMemory: 3 GiB"),
        ],
    }  # fmt: skip


def machine(gpu: str | None) -> Json:
    return {
        "cpu": "Intel(R) Xeon(R) CPU E5-2698 v4", "cpus": 20, "memory_gib": 251.6, "gpu": gpu,
        "os": "Ubuntu 22.04, Linux 5.15, x86_64", "versions": {"paddlepaddle-gpu": "2.6.2", "av": "18.1.0"},
    }  # fmt: skip


def doctor(*, works: bool = True) -> Json:
    found = "paddlepaddle-gpu 2.6.2, CUDA 11.8, cuDNN 8.6, computes on the GPU"
    check = {"name": "Paddle", "state": "ok", "found": found, "to_do": ""}
    if not works:
        check = {**check, "state": "missing", "found": "paddlepaddle-gpu 2.6.2, can't use the GPU: no code for sm_90",
                 "to_do": "pip uninstall -y paddlepaddle-gpu\ninstall it as Paddle's own site says"}  # fmt: skip
    driver = {"version": "550.54.15", "problem": "", "gpus": [{"name": "Tesla V100", "arch": 70}]}
    return {"device": "gpu" if works else "", "checks": [check], "driver": driver}


def parity(wrong: Sequence[str] = ()) -> Json:
    def verdict(video: str, kind: str, what: str, why: str = "") -> Json:
        return {"video": video, "kind": kind, "verdict": what, "why": why}

    return {
        "device": "gpu", "codecs": ["h264", "mpeg4"], "at": "", "not made": [],
        "real": [verdict(f"{k}.avi", "mpeg4, yuv420p", "right") for k in range(198)]
        + [verdict(name, "mpeg4, yuv420p", "wrong", "frame 9 comes where 8 is wanted") for name in wrong],
        "made": [verdict("a/mpeg4_424x240_0b.avi", "mpeg4", "refused", "its size is no multiple of the coded unit")],
        "sessions": [
            {"video": "mpeg4 320x240", "multiple of 16": True, "ms a clip": [20.0, 20.0, 20.0]},
            {"video": "mpeg4 424x240", "multiple of 16": False, "ms a clip": [55.0, 55.0, 55.0]},
        ],
    }  # fmt: skip


def done(*names: str) -> dict[str, Json]:
    return {name: ended(name, "done", 0, "") for name in names}


def ended(name: str, state: str, code: int | None, says: str) -> Json:
    step = name.split("_")[0]
    return {"step": step, "command": f"bench {name}", "state": state, "code": code, "seconds": 9.5, "says": says}


def a_v100() -> Found:
    """PyAV on 20 cores is faster than the one NVDEC, and `auto` says so; fp16 channels first is the fastest."""
    large = {
        "": (910.0, 16.0), "CPU decode, GPU augment": (920.0, 16.0), "NVDEC, 1 thread": (48.0, 4.0),
        "NVDEC, 2 threads": (40.0, 9.0), "hybrid": (925.0, 17.5), "decode only (ceiling)": (1100.0, 15.0),
    }  # fmt: skip
    small = {"": (880.0, 16.5), "CPU decode, GPU augment": (880.0, 16.5), "NVDEC, 1 thread": (48.0, 4.0)}
    results = {
        "machine": machine("Tesla V100-SXM2-16GB"), "doctor": doctor(), "parity": parity(),
        "kernels": kernels("fp16", norm=(21.0, 7.0), stem=(14.0, 13.9)),
        "kernels_persistent": {"kernels": [timing("batch norm, 4-D view", "fp16", "NDHWC", 3.5)]},
        "loader_64": loader(large, ("pyav", 0.0, "clips/s expected: pyav 900, dali 48")),
        "loader_16": loader(small, ("pyav", 0.0, "as expected")),
        "train_fp16_NCDHW": training(480.0, 910.0, 470.0, 18.0),
        "train_fp16_NDHWC": training(400.0, 905.0, 395.0, 18.0),
        "train_fp32_NCDHW": training(160.0, 700.0, 158.0, 19.0),
        "train_fp16_NDHWC_spin": training(400.0, 905.0, 396.0, 21.0),
    }  # fmt: skip
    parts = done(*results, "tests")
    parts["train_fp32_NDHWC"] = ended("train_fp32_NDHWC", "failed", 4, "bench: out of GPU memory at batch 64")
    tests = {"passed": 140, "failed": [], "skipped": [{"test": "a", "why": "this PyAV has no av1 encoder"}]}
    card = {"name": "Tesla V100-SXM2-16GB", "arch": 70, "engines": 1, "problem": "", "to_do": ""}
    return Found(card, parts, results, tests)


def an_a100() -> Found:
    """NVDEC beside the cores is the fastest, but `auto` chose PyAV; one video is decoded wrongly, and a test fails."""
    large = {
        "": (300.0, 16.0), "CPU decode, GPU augment": (305.0, 16.0), "NVDEC, 5 threads": (330.0, 6.0),
        "NVDEC, 10 threads": (331.0, 9.0), "hybrid": (520.0, 11.0),
    }  # fmt: skip
    small = {"NVDEC, 5 threads": (210.0, 7.0), "CPU decode, GPU augment": (305.0, 16.0)}
    results = {
        "machine": machine("NVIDIA A100-SXM4-40GB"), "doctor": doctor(),
        "parity": parity(["Punch/v_Punch_g01_c01.avi"]),
        "kernels": kernels("bf16", norm=(9.0, 9.0), stem=(6.0, 4.0)),
        "loader_64": loader(large, ("pyav", 0.0, "clips/s expected: pyav 310, dali 290")),
        "loader_16": loader(small, ("pyav", 0.0, "x")),
        "train_bf16_NDHWC": training(1200.0, 520.0, 515.0, 11.0),
        "train_bf16_NCDHW": training(800.0, 520.0, 510.0, 11.0),
        "train_bf16_NDHWC-padded": training(1210.0, 520.0, 515.0, 11.0),
        "train_fp16_NDHWC": training(1500.0, 520.0, 512.0, 14.0),
        "train_fp16_NDHWC_spin": training(1150.0, 560.0, 550.0, 14.5),
    }  # fmt: skip
    tests = {"passed": 150, "failed": [{"test": "tests.x.test_y", "why": "assert 3.2 < 3.0"}], "skipped": []}
    parts = {**done(*results), "tests": ended("tests", "failed", 1, "1 failed, 150 passed")}
    card = {"name": "NVIDIA A100-SXM4-40GB", "arch": 80, "engines": 5, "problem": "", "to_do": ""}
    return Found(card, parts, results, tests)


def a_broken_machine() -> Found:
    """Paddle has no code for the card, the decoder crashed on a video, the loader took too long, nothing else ran."""
    wrong = "Paddle can't use this GPU: paddlepaddle-gpu 2.6.2, can't use the GPU: no code for sm_90"
    parts = {
        **done("machine"),
        "doctor": ended("doctor", "failed", 4, "Missing for training: Paddle."),
        "kernels": ended("kernels", "left out", None, wrong),
        "parity": ended(
            "parity", "failed", -11, "its process was ended by signal 11 (Segmentation fault); made: 3 right"
        ),
        "loader_64": ended("loader_64", "over its time", None, "ended after its 5 minutes: round 1 of 5"),
        "train_fp16_NDHWC": ended("train_fp16_NDHWC", "left out", None, wrong),
    }
    crashed = {**parity(), "real": [], "at": "Lunges/v_Lunges_g04_c04.avi"}
    results = {"machine": machine("NVIDIA H200"), "doctor": doctor(works=False), "parity": crashed}
    return Found({"name": "NVIDIA H200", "arch": 90, "engines": 7, "problem": "", "to_do": ""}, parts, results, None)
