# The float32 kernels for the avx2 instruction set.
ctypedef float real

include "engine.pxi"
