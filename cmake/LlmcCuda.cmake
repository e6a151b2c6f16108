# nvcc, the CUDA libraries and NCCL, for LLMC_CUDA=ON.

find_program(LLMC_NVCC nvcc HINTS ENV CUDACXX ENV CUDA_HOME ENV CUDA_PATH /usr/local/cuda
  PATH_SUFFIXES bin)
if(NOT LLMC_NVCC AND NOT CMAKE_CUDA_COMPILER)
  message(FATAL_ERROR "CUDA: no nvcc on PATH, in CUDA_HOME or in /usr/local/cuda; the preset `cuda` "
    "needs the CUDA 13 toolkit. The preset `release` builds without it.")
endif()
if(NOT CMAKE_CUDA_COMPILER)
  set(CMAKE_CUDA_COMPILER ${LLMC_NVCC})
endif()
# Machine code of the three, and PTX of the last; CUDAARCHS in the environment says otherwise.
if(NOT DEFINED ENV{CUDAARCHS} AND NOT DEFINED CACHE{CMAKE_CUDA_ARCHITECTURES})
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 100)
elseif(DEFINED ENV{CUDAARCHS})
  set(CMAKE_CUDA_ARCHITECTURES $ENV{CUDAARCHS})
endif()
# One CUDA runtime in the process: the shared one that LibTorch uses.
set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 20)
# CMake 3.25 does not know that nvcc 12 and later have it.
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
endif()
if(CCACHE)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
endif()
find_package(CUDAToolkit REQUIRED)

# Found at run time beside LibTorch, which brings its own of each; never the toolkit's.
set(CMAKE_SKIP_BUILD_RPATH ON)
