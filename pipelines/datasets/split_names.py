"""The splits of a data set, train, val and test, and other words that are used for them."""

from __future__ import annotations

from collections.abc import Collection

SPLITS = ("train", "val", "test")
_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validate", "validation"),
    "test": ("test", "testing"),
}
_SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}
SPLIT_WORDS = tuple(sorted(_SPLIT_OF, key=lambda word: word not in SPLITS))  # the plain words first


def split_named(word: str) -> str:
    """The split that `word` means, "train", "val" or "test"; empty if it means none. "Validation" means "val"."""
    return _SPLIT_OF.get(word.lower(), "")


def final_split(split: str, present: Collection[str]) -> str:
    """The split with its final name: "val" becomes "test" in a data set whose `present` splits have no "test"."""
    return "test" if split == "val" and "test" not in present else split
