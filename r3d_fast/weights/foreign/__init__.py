"""Weights of other projects: .pth and .pdparams files, read without running any code in them."""
