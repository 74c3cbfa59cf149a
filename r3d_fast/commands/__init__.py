"""The commands of `r3d-fast`, a file a subject. Thin: each says what it takes and calls one function."""
