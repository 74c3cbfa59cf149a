"""Everything behind `r3d-fast data download`: downloads the archives of data sets, checks and unpacks them."""
