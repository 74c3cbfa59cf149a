"""The DALI graph that augments clips and, where it can, decodes them; and who decodes which video."""
