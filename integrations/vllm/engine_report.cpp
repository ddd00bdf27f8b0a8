#include "integrations/vllm/engine_report.hpp"

namespace llumnix {

std::string describe_engine(const engine_report& report) {
  auto trouble = report.ready ? std::string{} : report.trouble;
  if (report.kind.empty())
    return trouble;
  return report.kind + (report.token_ids ? " (token ids" : " (text only")
         + (report.aborts ? ", abort" : "") + (report.tokens.value_or(false) ? ", generate" : "")
         + (report.wants_key ? "; answers 401, " + std::string{engine_key_hint} + ")" : ")")
         + (trouble.empty() ? "" : "; " + trouble);
}

} // namespace llumnix
