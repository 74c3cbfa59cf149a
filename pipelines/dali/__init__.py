"""The DALI graph, which augments clips and can decode them, and the choice of which videos DALI decodes."""
