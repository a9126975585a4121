"""`sdi-gs doctor`: diagnosis of the machine, and checks of the kernels and of training steps against references."""
