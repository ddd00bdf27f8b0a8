# Makes a source file that holds another file's text.
#
#     llumnix_embed_file(<target> <file> <function>)
#
# defines `std::string_view llumnix::<function>()` in <target>; the declaration is the caller's. As a script
# (`cmake -DINPUT= -DOUTPUT= -DFUNCTION= -P embed_file.cmake`) it writes that source.
if(CMAKE_SCRIPT_MODE_FILE)
  file(READ ${INPUT} text)
  if(text MATCHES "\\)embedded\"")
    message(FATAL_ERROR "${INPUT} contains the delimiter of its own literal")
  endif()
  file(WRITE ${OUTPUT} "#include <string_view>

namespace llumnix {

std::string_view ${FUNCTION}();

std::string_view ${FUNCTION}() {
  return R\"embedded(${text})embedded\";
}

} // namespace llumnix
")
  return()
endif()

function(llumnix_embed_file target file function)
  cmake_path(ABSOLUTE_PATH file BASE_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR})
  set(script ${CMAKE_CURRENT_FUNCTION_LIST_FILE})
  set(source ${CMAKE_CURRENT_BINARY_DIR}/${function}.cpp)
  add_custom_command(
    OUTPUT ${source}
    COMMAND ${CMAKE_COMMAND} -DINPUT=${file} -DOUTPUT=${source} -DFUNCTION=${function} -P ${script}
    DEPENDS ${file} ${script}
    VERBATIM)
  target_sources(${target} PRIVATE ${source})
endfunction()
