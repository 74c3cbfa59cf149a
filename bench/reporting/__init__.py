"""Results of measurements: their JSON files, tables and charts, and how two of them compare."""
