# The float64 kernels for the avx512 instruction set.
ctypedef double real

include "engine.pxi"
