# The float32 kernels for the avx512 instruction set.
ctypedef float real

include "engine.pxi"
