"""Other people's weights: .pth and .pdparams files, read without running any code of theirs."""
