# Warnings are errors, but for sanitized code, where GCC 12 warns of what is not there.
set(LLUMNIX_WARNINGS -Wall -Wextra -Wpedantic)
if(NOT LLUMNIX_SANITIZE)
  list(APPEND LLUMNIX_WARNINGS -Werror)
endif()

# Rooms whose own work takes time in tests. The others are not optimized where they are sanitized: that would take the
# compiler nearly twice as long.
set(LLUMNIX_BUSY_ROOMS config runtime transport actors sim)

# One library per room: its sources and headers by name, and the libraries it may use.
function(llumnix_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;HEADERS;LINK" ${ARGN})
  add_library(llumnix_${name} STATIC ${arg_SOURCES})
  add_library(llumnix::${name} ALIAS llumnix_${name})
  target_sources(llumnix_${name} PUBLIC FILE_SET HEADERS
    BASE_DIRS ${PROJECT_SOURCE_DIR} FILES ${arg_HEADERS})
  target_compile_features(llumnix_${name} PUBLIC cxx_std_20)
  target_compile_options(llumnix_${name} PRIVATE ${LLUMNIX_WARNINGS})
  target_link_libraries(llumnix_${name} PUBLIC ${arg_LINK})
  if(LLUMNIX_SANITIZE AND NOT name IN_LIST LLUMNIX_BUSY_ROOMS)
    target_compile_options(llumnix_${name} PRIVATE -O0)
  endif()
endfunction()

# A test program of doctest cases, run by ctest under its name. LABELS: the ring, `plain` if not given. MAIN: its main file, if it has
# one of its own.
# Its own code is not optimized: what it tests is, and the compiler is done in two thirds of the time.
function(llumnix_test name)
  cmake_parse_arguments(arg "" "MAIN" "SOURCES;LINK;LABELS" ${ARGN})
  if(NOT arg_MAIN)
    set(arg_MAIN ${PROJECT_SOURCE_DIR}/tests/main.cpp)
  endif()
  add_executable(${name} ${arg_MAIN} ${arg_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_options(${name} PRIVATE ${LLUMNIX_WARNINGS} -O0)
  target_link_libraries(${name} PRIVATE ${arg_LINK})
  add_test(NAME ${name} COMMAND ${name})
  set(seconds 120)
  if(LLUMNIX_SANITIZE) # it takes several times as long
    set(seconds 400)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${seconds})
  if(NOT arg_LABELS)
    set(arg_LABELS plain)
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${arg_LABELS}")
endfunction()

# A benchmark program; never part of ctest.
function(llumnix_bench name)
  cmake_parse_arguments(arg "" "" "SOURCES;LINK" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_options(${name} PRIVATE ${LLUMNIX_WARNINGS})
  target_link_libraries(${name} PRIVATE ${arg_LINK})
endfunction()
