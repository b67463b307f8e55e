# The float32 kernels for the avx512 instruction set with the matrix unit.
ctypedef float real

include "engine.pxi"
