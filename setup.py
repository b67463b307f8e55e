"""Build fastrna's kernels: one extension module for each (float type, instruction set).

Each module is the same Cython source compiled with its own flags; the package loads the best one
the machine can run, so a wheel is fast everywhere and crashes nowhere. FASTRNA_OPENMP=0 builds
without threads; otherwise OpenMP is used where the compiler has it. FASTRNA_EMULATE=1 builds
AVX-512 and AMX for the tests of a machine that has neither.
"""

import os
import platform
import sys
import tempfile
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

X86_64 = platform.machine().lower() in ("x86_64", "amd64")
if sys.platform == "darwin" and "arm64" in os.environ.get("ARCHFLAGS", ""):
    X86_64 = False

# Never -march=native, which breaks on the next machine, nor -ffast-math, which hides NaN.
# Sums keep the order they are written in: results may not depend on how loops are cut.
# Python's own flags may include -fwrapv, which keeps the compiler from simplifying the kernels'
# addresses (64-100-10 with batches of 1, two threads: 1.05).
MATH_FLAGS = ["-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast",
              "-fno-wrapv"]
VARIANTS = {"baseline": []}
if X86_64:
    # prefetchw: processors of this kind that do not know it skip it, as they do any of its family.
    VARIANTS["avx2"] = ["-mavx2", "-mfma", "-mprfchw"]
    VARIANTS["avx512"] = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma",
                          "-mprefer-vector-width=512", "-mprfchw"]
    # The matrix unit multiplies numbers of 16 bits, of which a float32 takes three (float64 is left
    # to the vector units). Compilers before GCC 11 and Clang 12 do not know it.
    VARIANTS["amx"] = VARIANTS["avx512"] + ["-mamx-tile", "-mamx-bf16"]
EMULATED = os.environ.get("FASTRNA_EMULATE", "0") != "0"
if X86_64 and EMULATED:  # for tests, where no processor has them: tests/emulation
    VARIANTS["avx512"] = VARIANTS["avx2"] + ["-Itests/emulation", "-Wno-psabi"]
    VARIANTS["amx"] = VARIANTS["avx512"] + ["-DFASTRNA_EMULATE_TILES"]
MSVC_FLAGS = ["/O2", "/fp:contract"]

# Programs that tell what a compiler knows.
OPENMP = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"
TILES = "#include <immintrin.h>\nint main(void) { _tile_dpbf16ps(0, 1, 2); return 0; }\n"


def links(compiler, source, compile_flags, link_flags=()):
    """Whether a program compiles and links with these flags."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "program.c")
        path.write_text(source)
        try:
            objects = compiler.compile([str(path)], output_dir=folder,
                                       extra_postargs=list(compile_flags))
            compiler.link_executable(objects, "program", output_dir=folder,
                                     extra_postargs=list(link_flags))
        except Exception:  # each compiler class raises its own
            return False
    return True


class BuildKernels(build_ext):
    """build_ext that gives each compiler its own flags and OpenMP where it exists."""

    def finalize_options(self):
        """As many extensions at a time as there are processors, unless told otherwise."""
        super().finalize_options()
        self.parallel = self.parallel or True

    def build_extensions(self):
        """Compile every extension with the flags its compiler knows."""
        msvc = self.compiler.compiler_type == "msvc"
        openmp = (["/openmp"], []) if msvc else (["-fopenmp"], ["-fopenmp"])
        if os.environ.get("FASTRNA_OPENMP", "1") == "0" or not links(
            self.compiler, OPENMP, *openmp
        ):
            openmp = ([], [])
        if msvc:  # has no vector types, so that the variants would not differ
            self.extensions = [e for e in self.extensions if e.name.endswith("_baseline")]
        elif not (X86_64 and links(self.compiler, TILES, VARIANTS["amx"])):
            self.extensions = [e for e in self.extensions if not e.name.endswith("_amx")]
        for extension in self.extensions:
            if msvc:
                extension.extra_compile_args = list(MSVC_FLAGS)
            extension.extra_compile_args += openmp[0]
            extension.extra_link_args += openmp[1]
        self.generate_c()
        super().build_extensions()

    def generate_c(self):
        """Have Cython write C: here, so that whoever asks for sources or metadata need not wait."""
        translated = cythonize(
            self.extensions,
            nthreads=0 if sys.platform == "win32" else os.cpu_count(),
            compiler_directives={
                "language_level": 3, "boundscheck": False, "wraparound": False, "cdivision": True,
                "initializedcheck": False, "freethreading_compatible": True,
            },
        )
        for extension, in_c in zip(self.extensions, translated, strict=True):
            extension.sources = in_c.sources


def extensions():
    """One Extension for each (float type, instruction set)."""
    return [
        Extension(
            f"fastrna.kernels.{prefix}_{variant}",
            [f"fastrna/kernels/{prefix}_{variant}.pyx"],
            include_dirs=[numpy.get_include(), "fastrna/kernels"],
            define_macros=[("FASTRNA_BITS", bits),
                           ("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"),
                           *[("FASTRNA_EMULATE", None)] * EMULATED],
            extra_compile_args=MATH_FLAGS + flags,
            depends=[str(path) for pattern in ("*.pxi", "*.h")
                     for path in Path("fastrna/kernels").glob(pattern)],
        )
        for prefix, bits in (("f32", "32"), ("f64", "64"))
        for variant, flags in VARIANTS.items()
        if variant != "amx" or prefix == "f32"
    ]


# Cython's workers import this file where they are not forked.
if __name__ == "__main__":
    setup(ext_modules=extensions(), cmdclass={"build_ext": BuildKernels})
