#include "transport/ucx/ucx_staging.hpp"

namespace llumnix::ucx {

result<std::shared_ptr<ucx_staging>>
ucx_staging::make(ucp_context_h context, std::shared_ptr<std::byte> memory, std::uint64_t bytes) {
  ucp_mem_map_params_t params{};
  params.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH;
  params.address = memory.get();
  params.length = bytes;
  ucp_mem_h handle = nullptr;
  if (auto status = ucp_mem_map(context, &params, &handle); status != UCS_OK)
    return failure(status, "register pinned memory with UCX");
  return std::shared_ptr<ucx_staging>{new ucx_staging{context, handle, std::move(memory), bytes}};
}

ucx_staging::~ucx_staging() {
  ucp_mem_unmap(context_, handle_);
}

bool ucx_staging::may_take(std::uint64_t link, std::uint64_t bytes) const {
  auto found = held_.find(link);
  return has_share(found == held_.end() ? 0 : found->second, bytes, size_);
}

std::optional<ucx_staging::part>
ucx_staging::take(const std::shared_ptr<ucx_staging>& of, std::uint64_t link, std::uint64_t bytes) {
  auto at = of->area_.take(bytes);
  if (!at)
    return std::nullopt;
  of->held_[link] += bytes;
  return part{of, link, *at, bytes};
}

void ucx_staging::give_back(const part& x) {
  area_.give_back(x.at_);
  auto held = held_.find(x.link_);
  held->second -= x.bytes_;
  if (held->second == 0)
    held_.erase(held);
}

} // namespace llumnix::ucx
