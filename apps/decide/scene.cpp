#include "apps/decide/scene.hpp"

namespace llumnix {

std::string_view to_string(scene_question question) {
  switch (question) {
    case scene_question::place: return "place";
    case scene_question::plan: return "plan";
    case scene_question::choose: return "choose";
    case scene_question::metrics: return "metrics";
    case scene_question::predict: return "predict";
    case scene_question::reserve: return "reserve";
    case scene_question::keys: return "keys";
    case scene_question::scale: return "scale";
    case scene_question::config: return "config";
  }
  return "place";
}

scene_instance::scene_instance() {
  metadata.instance_type = "neutral";
  metadata.data_parallel_size = 1;
  status.schedulable = true;
  status.profiling_id = 0;
}

bool operator==(const scene_instance& x, const scene_instance& y) {
  return x.state == y.state && x.metadata == y.metadata && x.status == y.status
         && x.names_out_slots == y.names_out_slots && x.dispatched == y.dispatched
         && x.account == y.account && x.metrics == y.metrics && x.reserved == y.reserved
         && x.chunks == y.chunks && x.requests.running == y.requests.running
         && x.requests.waiting == y.requests.waiting;
}

} // namespace llumnix
