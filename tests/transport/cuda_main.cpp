// The tests of a program that wants a GPU. Without one it says so and ends with 77, which ctest
// calls skipped; LLUMNIX_GPU=required makes that a failure.
#define DOCTEST_CONFIG_IMPLEMENT
#include "transport/cuda/cuda_device.hpp"

#include <doctest/doctest.h>

#include <cstdlib>
#include <iostream>
#include <string_view>

int main(int count, char** words) {
  auto found = llumnix::describe_cuda_device();
  if (!found) {
    const auto* wanted = std::getenv("LLUMNIX_GPU");
    auto required = wanted != nullptr && std::string_view{wanted} == "required";
    std::cout << "[cuda] " << (required ? "FAILED" : "SKIPPED, nothing was tested") << ": "
              << to_string(found.error()) << std::endl;
    return required ? 1 : 77;
  }
  std::cout << "[cuda] " << *found << std::endl;
  return doctest::Context{count, words}.run();
}
