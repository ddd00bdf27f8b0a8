# Warnings are errors, but for sanitized code, where GCC 12 warns of what is not there.
set(LLUMNIX_WARNINGS -Wall -Wextra -Wpedantic)
if(NOT LLUMNIX_SANITIZE)
  list(APPEND LLUMNIX_WARNINGS -Werror)
endif()

# Rooms whose own work takes time in tests. The others are not optimized where they are sanitized: that would take the
# compiler nearly twice as long. Only the rooms of raw memory are asked at every access whether it is aligned and within its object: that
# would be a quarter of the compiler's time for the others.
set(LLUMNIX_BUSY_ROOMS config runtime transport actors sim)
set(LLUMNIX_RAW_ROOMS runtime transport)
set(LLUMNIX_FEWER_CHECKS "")
if(LLUMNIX_SANITIZE)
  set(LLUMNIX_FEWER_CHECKS -fno-sanitize=alignment,object-size)
endif()

# Compiles several files of a target at once, where LLUMNIX_TOGETHER is on. For rooms of CAF: most of what the compiler reads and makes
# there is the same for each file. APART: files that say the same name in other ways.
function(llumnix_together target)
  cmake_parse_arguments(arg "" "" "APART" ${ARGN})
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${LLUMNIX_TOGETHER} UNITY_BUILD_BATCH_SIZE 6)
  set_source_files_properties(${arg_APART} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
endfunction()

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
  if(NOT name IN_LIST LLUMNIX_RAW_ROOMS)
    target_compile_options(llumnix_${name} PRIVATE ${LLUMNIX_FEWER_CHECKS})
  endif()
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
  target_compile_options(${name} PRIVATE ${LLUMNIX_WARNINGS} -O0 ${LLUMNIX_FEWER_CHECKS})
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
  if(NOT TARGET tests_${arg_LABELS}) # all of a ring, for --target
    add_custom_target(tests_${arg_LABELS})
  endif()
  add_dependencies(tests_${arg_LABELS} ${name})
endfunction()

# A benchmark program; never part of ctest. All of them: --target benches.
function(llumnix_bench name)
  cmake_parse_arguments(arg "" "" "SOURCES;LINK" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_options(${name} PRIVATE ${LLUMNIX_WARNINGS})
  target_link_libraries(${name} PRIVATE ${arg_LINK})
  if(NOT TARGET benches)
    add_custom_target(benches)
  endif()
  add_dependencies(benches ${name})
endfunction()
