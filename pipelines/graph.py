"""The DALI graph: samples in, model input out.

One clip on its way: the source ships uint8 [T, h, w, 3] (the plan's crop box, cut where frames are copied anyway)
-> antialiased bilinear resize -> window of S x S px -> mirror, scale, normalise, transpose -> float32 [3, T, S, S] or
[T, S, S, 3]. The augment step is the same for every source and device.
"""

from __future__ import annotations

from typing import Any

from pipelines.compat import executor_options, import_dali
from pipelines.source import DecodedSource
from pipelines.specs import AugmentSpec


def augment(frames: Any, resized: Any, window: Any, mirror: Any, spec: AugmentSpec) -> Any:
    """Clips float32, laid out as `spec.layout`, of `frames` uint8 [T, h, w, 3] (layout FHWC); see ClipPlan."""
    fn, types, _ = import_dali()
    clips = fn.resize(frames, size=resized, interp_type=types.INTERP_LINEAR, antialias=True)
    clips = fn.slice(clips, window, [spec.size_px, spec.size_px], axes=[1, 2])
    to_pixels = 255.0 / spec.value_max  # DALI normalises pixels of 0..255
    return fn.crop_mirror_normalize(
        clips,
        mirror=mirror,
        mean=[value * to_pixels for value in spec.mean],
        std=[value * to_pixels for value in spec.std],
        dtype=types.FLOAT,
        output_layout="CFHW" if spec.layout == "NCTHW" else "FHWC",
    )


def build_pipeline(source: DecodedSource, *, workers: int, threads: int, prefetch: int) -> Any:
    """A built DALI pipeline whose outputs are clips, info int64 [4] and reason uint8 [bytes] a sample.

    `workers` processes call `source` (0: the calling process does), `threads` augment, `prefetch` batches lie ready.
    """
    fn, types, Pipeline = import_dali()
    parallel = workers > 0
    pipeline = Pipeline(
        batch_size=source.stream.batch_size,
        num_threads=threads,
        device_id=None,
        prefetch_queue_depth=prefetch,
        py_num_workers=max(workers, 1),
        py_start_method="spawn",
        **executor_options(Pipeline),
    )
    with pipeline:
        frames, resized, window, mirror, info, reason = fn.external_source(
            source=source,
            num_outputs=6,
            batch=False,
            parallel=parallel,
            layout=["FHWC", "", "", "", "", ""],
            dtype=[types.UINT8, types.FLOAT, types.INT32, types.INT32, types.INT64, types.UINT8],
            ndim=[4, 1, 1, 1, 1, 1],
            **({"prefetch_queue_depth": prefetch} if parallel else {}),
        )
        clips = augment(frames, resized, window, mirror, source.stream.augment)
        pipeline.set_outputs(clips, info, reason)
    pipeline.build()
    return pipeline
