# llmc_library(NAME DEPS...): one static library per folder, from every .cc in it.
# NAME_cuda.cc needs CUDA's headers and is built with LLMC_CUDA only; no_cuda.cc without.
# llmc_test(FOLDER DEPS...): one test program from tests/FOLDER/*_test.cc.

find_program(CCACHE ccache)
if(CCACHE)
  # Paths relative to the source, so that clones share the cache.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR}
    CCACHE_NOHASHDIR=1 ${CCACHE})
endif()

add_library(llmc_options INTERFACE)
target_include_directories(llmc_options INTERFACE
  ${CMAKE_SOURCE_DIR}/include ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR})
# No contraction: a fused multiply-add rounds once where the formats of
# compressed-tensors round twice. Kernels that want it ask for it by name.
# GCC 12 reports overlaps in std::string that cannot happen (GCC bug 105329).
target_compile_options(llmc_options INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Werror;-ffp-contract=off;-Wno-restrict>"
  # nvcc's own preprocessor and stubs are not free of warnings.
  "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-ffp-contract=off>")
target_link_options(llmc_options INTERFACE -fuse-ld=lld -Wl,--as-needed)
if(LLMC_FUZZ)
  target_compile_options(llmc_options INTERFACE -fsanitize=fuzzer-no-link,address,undefined
    -fno-sanitize-recover=undefined -Wno-error)
  target_link_options(llmc_options INTERFACE -fsanitize=address,undefined)
endif()
if(LLMC_SANITIZE)
  target_compile_options(llmc_options INTERFACE -fsanitize=${LLMC_SANITIZE} -fno-omit-frame-pointer
    -Wno-maybe-uninitialized)  # g++ 12 sees false ones in instrumented code.
  target_link_options(llmc_options INTERFACE -fsanitize=${LLMC_SANITIZE})
  if(LLMC_SANITIZE STREQUAL "address")
    target_compile_options(llmc_options INTERFACE -fsanitize=undefined -fno-sanitize-recover=undefined)
    target_link_options(llmc_options INTERFACE -fsanitize=undefined)
  endif()
endif()

function(llmc_library name)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  if(LLMC_CUDA)
    list(FILTER sources EXCLUDE REGEX "/no_cuda\\.cc$")
    file(GLOB cuda_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*_cuda.cc)
    # Of these files alone, so that the others compile like those of the other presets.
    list(TRANSFORM CUDAToolkit_INCLUDE_DIRS PREPEND -isystem OUTPUT_VARIABLE cuda_headers)
    set_source_files_properties(${cuda_sources} PROPERTIES
      COMPILE_OPTIONS "${cuda_headers};-isystem${NCCL_INCLUDE_DIR}")
  else()
    set(stand_ins ${sources})
    list(FILTER stand_ins INCLUDE REGEX "/no_cuda\\.cc$")
    list(FILTER sources EXCLUDE REGEX "_cuda\\.cc$")
    list(APPEND sources ${stand_ins})
  endif()
  if(NOT sources)
    add_library(llmc_${name} INTERFACE)
    target_link_libraries(llmc_${name} INTERFACE llmc_options ${ARGN})
    return()
  endif()
  add_library(llmc_${name} STATIC ${sources})
  target_link_libraries(llmc_${name} PUBLIC llmc_options ${ARGN})
endfunction()

function(llmc_test folder)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/${folder}/*_test.cc)
  if(NOT sources)
    return()
  endif()
  add_executable(${folder}_test ${sources})
  target_link_libraries(${folder}_test PRIVATE ${ARGN} GTest::gmock GTest::gtest_main)
  target_compile_definitions(${folder}_test PRIVATE LLMC_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
    LLMC_BIN_DIR="${CMAKE_BINARY_DIR}/bin")
  add_test(NAME ${folder} COMMAND ${folder}_test)
  set_tests_properties(${folder} PROPERTIES LABELS unit)
endfunction()
