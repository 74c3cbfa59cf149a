"""What the measurements of `bench gpu` decide: which of the choices is to be the default on such a card.

Two choices are told apart by the rule of `bench compare`. Where none is faster, the one that costs less of the CPU is
taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from bench.gpu import kernels
from bench.gpu.findings import Found, Json
from bench.reporting.comparison import verdict
from bench.reporting.figures import BASE, LOADER, SYNTHETIC, TRAINING
from bench.reporting.text import as_rate

HALVES = ("bf16", "fp16")  # the default's choice first
_AT_BATCH = 64


@dataclass(frozen=True)
class Choice:
    """Something that could be the default: its values a round (the more, the better), and what it costs, if known.

    `cpu_ms` is CPU time a clip, `gpu_mib` the most GPU memory that was in use on the card, all contenders together.
    """

    name: str
    rounds: tuple[float, ...]
    cpu_ms: float | None = None
    gpu_mib: float | None = None

    @property
    def middle(self) -> float:
        """The median of the rounds."""
        return median(self.rounds)

    def in_words(self, unit: str = "clips/s") -> str:
        """Its name and its figures with their spread."""
        cost = "" if self.cpu_ms is None else f", {self.middle * self.cpu_ms / 1000:.1f} CPU cores"
        cost += "" if self.gpu_mib is None else f", {self.gpu_mib:.0f} MiB on the GPU"
        low, high = as_rate(min(self.rounds)), as_rate(max(self.rounds))
        return f"{self.name} {as_rate(self.middle)} ({low} to {high}) {unit}{cost}"


@dataclass(frozen=True)
class Decision:
    """What to choose for `subject`, and why: the figures of all choices. `wrong` names a default of ours that isn't it.

    `missing` says why nothing was decided; then there is nothing else.
    """

    subject: str
    choice: str = ""
    figures: tuple[str, ...] = ()
    wrong: str = ""
    missing: str = ""


def best(choices: Iterable[Choice]) -> Choice | None:
    """The fastest; of those that aren't slower than it by the rule, the one that costs the least of the CPU."""
    ranked = sorted(choices, key=lambda choice: choice.middle, reverse=True)
    if not ranked:
        return None
    first = ranked[0]
    equal = [first, *(one for one in ranked[1:] if not is_slower(one.rounds, first.rounds))]
    known = [one for one in equal if one.cpu_ms is not None]
    return min(known, key=lambda one: one.cpu_ms or 0.0) if len(known) == len(equal) else first


def is_slower(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether `one` is slower than `other`, both clips/s a round; of very few rounds all have to be."""
    told = verdict(other, one)
    return max(one) < min(other) if told == "too few rounds" else told == "slower"


def decoder(found: Found) -> Decision:
    """Who is to decode, and whether `auto` came to it."""
    subject, name = "decoder (loader.decoder)", f"loader_{_AT_BATCH}"
    choices = contenders(found.results.get(name))
    auto = choices.pop(BASE, None)
    own = {_DECODERS[key]: choice for key, choice in choices.items() if key in _DECODERS}
    own |= {f"dali, {key.rpartition(', ')[2]}": one for key, one in choices.items() if _NVDEC_THREADS in key}
    taken = best(_named(own))
    if taken is None:
        return Decision(subject, missing=found.why_not(name))
    figures = [choice.in_words() for choice in _named(own)]
    wrong = ""
    if auto is not None:
        routing = _routing(found.results[name])
        figures.append(f"{replace(auto, name='auto').in_words()}; {routing}")
        if is_slower(auto.rounds, taken.rounds):
            wrong = f"loader.decoder auto gives {auto.middle / taken.middle:.2f} of what {taken.name} gives; {routing}"
    return Decision(subject, taken.name, tuple(figures), wrong)


def threads(found: Found) -> Decision:
    """How many threads of DALI feed NVDEC best."""
    subject, name = "DALI threads (loader.threads)", f"loader_{_AT_BATCH}"
    own = {key.rpartition(", ")[2]: one for key, one in contenders(found.results.get(name)).items()
           if _NVDEC_THREADS in key}  # fmt: skip
    taken = best(_named(own))
    if taken is None:
        return Decision(subject, missing=_left_out(found, name, "NVDEC") or found.why_not(name))
    return Decision(subject, taken.name, tuple(choice.in_words() for choice in _named(own)))


def batch(found: Found) -> Decision:
    """Which batch the loader fills faster, decoder by decoder."""
    subject = "batch of the loader (loader.batch_size)"
    small, large = (contenders(found.results.get(f"loader_{size}")) for size in (16, _AT_BATCH))
    both = [name for name in large if name in small and name != BASE]
    if not both:
        return Decision(
            subject, missing="; ".join(dict.fromkeys(found.why_not(f"loader_{size}") for size in (16, _AT_BATCH)))
        )
    figures, votes = [], []
    for name in both:
        pair = [Choice(str(size), own[name].rounds) for size, own in ((16, small), (_AT_BATCH, large))]
        figures.append(f"{name.removeprefix(f'{BASE}, ')}: {'; '.join(one.in_words() for one in pair)}")
        votes.append({"faster": "64", "slower": "16"}.get(verdict(pair[0].rounds, pair[1].rounds), "either"))
    told = set(votes) - {"either"}
    return Decision(subject, told.pop() if len(told) == 1 else "either" if not told else "depends", tuple(figures))


def precision(found: Found) -> Decision:
    """Which precision and layout compute fastest."""
    subject = "precision and layout (train.precision, model.data_format)"
    cases = _training_cases(found)
    choices = [choice for by_name in cases.values() if (choice := by_name.get(SYNTHETIC))]
    if not choices:
        return Decision(subject, missing=_why_no_training(found))
    named = [Choice(name, cases[name][SYNTHETIC].rounds) for name in cases if SYNTHETIC in cases[name]]
    taken = max(named, key=lambda choice: choice.middle)
    usual = next((half for half in HALVES if any(one.name.startswith(half) for one in named)), "fp32")
    own = max((one for one in named if one.name.startswith(usual)), key=lambda choice: choice.middle)
    wrong = ""
    if is_slower(own.rounds, taken.rounds):
        wrong = f"train.precision auto takes {usual}: {own.name} gives {own.middle / taken.middle:.2f} of {taken.name}"
    return Decision(subject, taken.name, tuple(f"compute alone: {one.in_words()}" for one in named), wrong)


def wait(found: Found) -> Decision:
    """Whether threads that wait for the GPU are to sleep or to spin."""
    subject = "waiting for the GPU (train.gpu_wait)"
    cases = _training_cases(found, spinning=True)
    spins = next(iter(cases.items()), None)
    sleeps = _training_cases(found).get(spins[0]) if spins else None
    if spins is None or sleeps is None or TRAINING not in spins[1] or TRAINING not in sleeps:
        return Decision(subject, missing=_why_no_training(found))
    pair = [
        Choice(name, own[TRAINING].rounds, own[TRAINING].cpu_ms)
        for name, own in (("sleep", sleeps), ("spin", spins[1]))
    ]
    taken = best(pair)
    choice = taken.name if taken else ""
    wrong = "train.gpu_wait sleep: spin is faster" if choice == "spin" else ""
    return Decision(subject, choice, tuple(f"training, {spins[0]}: {one.in_words()}" for one in pair), wrong)


def operations(found: Found) -> list[Decision]:
    """Which of two ways to compute the same is faster, in each precision and layout."""
    return [
        _of_kernels(found, "stem of 4 channels (padded)", kernels.STEM_3, kernels.STEM_4),
        _of_kernels(found, "batch norm over a 4-D view", kernels.NORM_5D, kernels.NORM_4D),
        _of_kernels(found, "max pool as two of 2-D", kernels.POOL_3D, kernels.POOL_2D),
        _persistent(found),
    ]


def _of_kernels(found: Found, subject: str, usual: str, other: str) -> Decision:
    if found.results.get("kernels", {}).get("device") == "cpu":
        return Decision(subject, missing="tried on the CPU alone, in tiny sizes, which decides nothing")
    timings = _timings(found.results.get("kernels"))
    pairs = {case: (timings[case, usual], timings[case, other]) for case, name in timings
             if name == usual and (case, other) in timings}  # fmt: skip
    return _faster_where(subject, pairs, found.why_not("kernels"))


def _persistent(found: Found) -> Decision:
    off, on = (_timings(found.results.get(name)) for name in ("kernels", "kernels_persistent"))
    pairs = {f"{case}, {name}": (off[case, name], on[case, name]) for case, name in on if (case, name) in off}
    return _faster_where("FLAGS_cudnn_batchnorm_spatial_persistent", pairs, found.why_not("kernels_persistent"))


def _faster_where(subject: str, pairs: Mapping[str, tuple[Choice, Choice]], why_not: str) -> Decision:
    """In which cases the second of each pair is faster; of times the less is the better."""
    if not pairs:
        return Decision(subject, missing=why_not)
    figures, faster = [], []
    for case, (usual, other) in pairs.items():
        figures.append(f"{case}: {_ms(usual)} without, {_ms(other)} with: {usual.middle / other.middle:.2f} x")
        if verdict(_rates(usual), _rates(other)) == "faster":
            faster.append(case)
    return Decision(subject, f"yes in {'; '.join(faster)}" if faster else "no", tuple(figures))


def _timings(report: Json | None) -> dict[tuple[str, str], Choice]:
    """Milliseconds of each kernel that could be run, by (precision and layout, name)."""
    return {
        (f"{one['precision']} {one['layout']}", one["name"]): Choice(one["name"], tuple(one["ms"]))
        for one in (report or {}).get("kernels", [])
        if one["ms"]
    }


def _ms(choice: Choice) -> str:
    return f"{choice.middle:.2f} ({min(choice.rounds):.2f} to {max(choice.rounds):.2f}) ms"


def _rates(choice: Choice) -> tuple[float, ...]:
    return tuple(1 / max(ms, 1e-9) for ms in choice.rounds)


_NVDEC_THREADS = f"{BASE}, NVDEC, "
_DECODERS = {
    f"{BASE}, NVDEC": "dali",
    f"{BASE}, hybrid": "hybrid",
    f"{BASE}, CPU decode, GPU augment": "pyav",
}


def contenders(report: Json | None) -> dict[str, Choice]:
    """The contenders of a report of throughput, by name, those of its first run."""
    runs: list[Json] = (report or {}).get("runs", [])
    found = {}
    for one in runs[0]["figures"] if runs else []:
        cpu = one.get("cpu_seconds_per_clip") or ()
        memory = ((one.get("gpu") or {}).get("figures") or {}).get("card_memory_mib")
        found[one["name"]] = Choice(
            one["name"], tuple(one["clips_per_second"]), 1000 * median(cpu) if cpu else None,
            memory[1] if memory else None,
        )  # fmt: skip
    return found


def _named(choices: Mapping[str, Choice]) -> list[Choice]:
    return [replace(choice, name=name) for name, choice in choices.items()]


def _routing(report: Json) -> str:
    """What `auto` came to, in words."""
    figures: Json = next((one for one in report["runs"][0]["figures"] if one["name"] == BASE), {})
    routing = figures.get("routing")
    return f"it chose {routing['decoder']} ({routing['reason']})" if routing else "it had not chosen yet"


def _left_out(found: Found, name: str, what: str) -> str:
    """Why a contender that has `what` in its name was left out; empty where it wasn't, or nothing is known."""
    left = found.results.get(name, {}).get("extra", {}).get("not measured", {})
    return "; ".join(str(reason) for key, reason in left.items() if what in key)


def _training_cases(found: Found, *, spinning: bool = False) -> dict[str, dict[str, Choice]]:
    """The contenders of each training that was measured, by `fp16 NDHWC`."""
    cases = {}
    for name, report in found.results.items():
        words = name.split("_")
        if words[0] == "train" and len(words) > 2 and (words[-1] == "spin") == spinning:
            cases[f"{words[1]} {words[2]}"] = contenders(report)
    return {name: own for name, own in cases.items() if own}


def _why_no_training(found: Found) -> str:
    names = [name for name in found.parts if name.startswith("train_")]
    return found.why_not(names[0]) if names else found.why_not("train")


def feeding(found: Found) -> str:
    """Whether the model or the loader is what training waits for, in the fastest case; empty if not measured."""
    cases = {name: own for name, own in _training_cases(found).items() if {SYNTHETIC, LOADER, TRAINING} <= set(own)}
    if not cases:
        return ""
    name = max(cases, key=lambda case: cases[case][TRAINING].middle)
    own = cases[name]
    slower = "Decoding" if own[LOADER].middle < own[SYNTHETIC].middle else "The GPU"
    figures = "; ".join(Choice(what, own[key].rounds).in_words() for what, key in (
        ("training", TRAINING), ("compute alone", SYNTHETIC), ("loader alone", LOADER)))  # fmt: skip
    return f"{name}: {figures}. {slower} is what it waits for."
