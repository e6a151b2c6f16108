# Third-party libraries, each behind one name. docs/decisions/ says why each is here.

find_package(absl REQUIRED)
find_package(GTest REQUIRED)
find_package(benchmark REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(CLI11 REQUIRED)
find_package(spdlog REQUIRED)
find_package(Threads REQUIRED)
find_package(ZLIB REQUIRED)
find_package(MPI REQUIRED COMPONENTS CXX)
find_package(PkgConfig REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)

# The control tower.
find_package(Protobuf REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(prometheus-cpp CONFIG REQUIRED)
pkg_check_modules(SQLITE3 REQUIRED IMPORTED_TARGET sqlite3)

# LibTorch is the PyPI package torch in .venv. Its include directory also holds
# an old protobuf that would shadow Debian's, so only a directory of links to the
# four folders that llmc uses is put on the include path.
set(LLMC_TORCH_DIR "" CACHE PATH "The torch package directory; empty: the one in .venv")
if(NOT LLMC_TORCH_DIR)
  file(GLOB candidates ${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)
  list(GET candidates 0 LLMC_TORCH_DIR)
endif()
if(NOT EXISTS ${LLMC_TORCH_DIR}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "LibTorch: no torch package in .venv; run scripts/setup first")
endif()
set(torch_links ${CMAKE_BINARY_DIR}/torch-include)
file(MAKE_DIRECTORY ${torch_links})
foreach(folder ATen c10 torch caffe2)
  file(CREATE_LINK ${LLMC_TORCH_DIR}/include/${folder} ${torch_links}/${folder} SYMBOLIC)
endforeach()
file(GLOB torch_site_lib_dirs ${LLMC_TORCH_DIR}/../nvidia/*/lib)

# Where LibTorch and the CUDA libraries that come with it lie.
add_library(llmc_torch_rpaths INTERFACE)
target_link_options(llmc_torch_rpaths INTERFACE -Wl,-rpath,${LLMC_TORCH_DIR}/lib)
foreach(dir ${torch_site_lib_dirs})
  target_link_options(llmc_torch_rpaths INTERFACE -Wl,-rpath,${dir} -Wl,-rpath-link,${dir})
endforeach()

# libtorch_cpu.so carries MKL; `llmc_blas` is that library without LibTorch's headers.
add_library(llmc_blas INTERFACE)
target_link_libraries(llmc_blas INTERFACE ${LLMC_TORCH_DIR}/lib/libtorch_cpu.so ${LLMC_TORCH_DIR}/lib/libc10.so)
target_link_libraries(llmc_blas INTERFACE llmc_torch_rpaths)
add_library(llmc_torch INTERFACE)
target_include_directories(llmc_torch SYSTEM INTERFACE ${torch_links})
target_link_libraries(llmc_torch INTERFACE llmc_blas)
if(LLMC_CUDA)
  # Its operators register themselves when it is loaded; no symbol of it need be used.
  target_link_libraries(llmc_torch INTERFACE
    -Wl,--push-state,--no-as-needed,${LLMC_TORCH_DIR}/lib/libtorch_cuda.so,${LLMC_TORCH_DIR}/lib/libc10_cuda.so,--pop-state)
  find_path(NCCL_INCLUDE_DIR nccl.h REQUIRED
    HINTS ${LLMC_TORCH_DIR}/../nvidia/nccl/include ${CUDAToolkit_INCLUDE_DIRS})
  find_file(NCCL_LIBRARY libnccl.so.2 REQUIRED
    HINTS ${LLMC_TORCH_DIR}/../nvidia/nccl/lib ${CUDAToolkit_LIBRARY_DIR})
  add_library(llmc_nccl INTERFACE)
  target_link_libraries(llmc_nccl INTERFACE ${NCCL_LIBRARY} $<LINK_ONLY:CUDA::cudart> llmc_torch_rpaths)
endif()

# Debian's cpp-httplib has no CMake package; it is built with OpenSSL.
find_library(HTTPLIB_LIBRARY cpp-httplib REQUIRED)
add_library(llmc_httplib INTERFACE)
target_compile_definitions(llmc_httplib INTERFACE CPPHTTPLIB_OPENSSL_SUPPORT)
target_link_libraries(llmc_httplib INTERFACE ${HTTPLIB_LIBRARY} OpenSSL::SSL Threads::Threads)
