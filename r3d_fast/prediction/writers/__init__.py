"""Writers of prediction files: JSON, CSV, features and annotated videos."""
