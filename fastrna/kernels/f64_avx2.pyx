# The float64 kernels for the avx2 instruction set.
ctypedef double real

include "engine.pxi"
