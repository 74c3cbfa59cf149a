"""The files that predictions are written to: JSON, CSV, features and annotated videos."""
