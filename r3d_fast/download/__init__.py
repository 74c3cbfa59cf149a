"""`r3d-fast data download`: archives of data sets, fetched, checked and unpacked."""
