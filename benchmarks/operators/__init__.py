"""The kernels against other libraries, and against the best GEMM of the machine."""
