# CUDA's compiler and its runtime as a static library, which a machine without a driver can start. nvcc is called by itself, not
# through CMake's CUDA language: so a toolkit of the distribution, one in /usr/local/cuda and the wheels of the Python Package Index
# (scripts/test_cuda.sh) all do.
set(LLUMNIX_CUDA_ARCHITECTURES "80;90" CACHE STRING "GPUs that kernels are compiled for; later ones compile them when they are loaded")

# Sets LLUMNIX_NVCC and makes the target llumnix_cuda_runtime.
macro(llumnix_find_cuda)
  find_program(LLUMNIX_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin REQUIRED)
  file(REAL_PATH ${LLUMNIX_NVCC} nvcc)
  cmake_path(GET nvcc PARENT_PATH home)
  cmake_path(GET home PARENT_PATH home)
  find_path(LLUMNIX_CUDA_INCLUDE cuda_runtime_api.h
    HINTS ${home}/include ${home}/targets/x86_64-linux/include ${home}/targets/sbsa-linux/include REQUIRED)
  find_library(LLUMNIX_CUDART cudart_static
    HINTS ${home}/lib64 ${home}/lib ${home}/targets/x86_64-linux/lib ${home}/targets/sbsa-linux/lib REQUIRED)
  find_package(Threads REQUIRED)
  add_library(llumnix_cuda_runtime INTERFACE)
  target_include_directories(llumnix_cuda_runtime SYSTEM INTERFACE ${LLUMNIX_CUDA_INCLUDE})
  target_link_libraries(llumnix_cuda_runtime INTERFACE ${LLUMNIX_CUDART} Threads::Threads ${CMAKE_DL_LIBS} rt)
endmacro()

# Compiles a .cu file; the object's path goes to <variable>.
function(llumnix_cuda_object variable source)
  set(code "")
  foreach(number IN LISTS LLUMNIX_CUDA_ARCHITECTURES)
    list(APPEND code -gencode arch=compute_${number},code=sm_${number})
  endforeach()
  list(GET LLUMNIX_CUDA_ARCHITECTURES -1 last)
  list(APPEND code -gencode arch=compute_${last},code=compute_${last})
  cmake_path(ABSOLUTE_PATH source)
  set(object ${CMAKE_CURRENT_BINARY_DIR}/${variable}.cu.o)
  add_custom_command(
    OUTPUT ${object}
    COMMAND ${LLUMNIX_NVCC} -ccbin ${CMAKE_CXX_COMPILER} -std=c++20 -O3 -lineinfo ${code}
      -Xcompiler=-Wall,-Wextra,-Werror --Werror all-warnings -I${PROJECT_SOURCE_DIR} -MD -MF ${object}.d -c ${source} -o ${object}
    DEPENDS ${source}
    DEPFILE ${object}.d
    COMMENT "Compiling ${source} with nvcc"
    VERBATIM)
  set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
  set(${variable} ${object} PARENT_SCOPE)
endfunction()
