"""What `sdi-gs doctor` looks at: the machine, its compilers, and whether the kernels do what they should."""
