#pragma once

#include "runtime/scheduling/load_metrics.hpp"

#include <cstdint>

namespace llumnix {

/// The load metrics of the original Llumnix (spec/rescheduling.md 7), rows of the table in
/// load_metrics.cpp.
///
/// Blocks are `metadata.block_size` tokens, 16 where that is unknown. A listed waiting request
/// wants what holds all its tokens; where a status tells only how many wait, they want together the
/// blocks of its field 25, the uncomputed tokens of all that wait, and the first of them an equal
/// share, rounded up to a block. What was sent and no status shows yet does not count. An instance
/// that has not reported compares as the least loaded.

/// Tokens a high-priority request may share its instance with before others are better off
/// elsewhere: its headroom is the rest of the memory (the paper's evaluation).
inline constexpr std::int64_t high_priority_target_tokens = 1600;

/// Free blocks left once all that waits has its own, per request, running or waiting: for how many
/// steps the batch goes on. Infinite without requests, below 0 where they queue. Higher is better.
float remaining_steps(const metric_input& of);

/// The same looking at no more than the head of the queue, as an instance whose free blocks can be
/// gathered by moving requests away ("defragmentation on"). Higher is better.
float remaining_steps_defrag(const metric_input& of);

/// Share of the blocks in use once all that waits has its own; infinite without a cache.
float kv_blocks_ratio(const metric_input& of);

/// Fills half-full instances first: what a decode batch lacks to 128; from there on its size. Of
/// listed requests those that run and have output are in it, in the place of the status' count.
float adaptive_decode(const metric_input& of);

/// Tokens that waiting requests have to compute, cached ones left out: field 25, or where it says
/// nothing all tokens of those listed, as lists do not tell what is cached.
float miss_waiting_tokens(const metric_input& of);

/// Steps until memory is exhausted, by virtual usage (7.2): memory less what running requests use,
/// the headroom of high-priority ones, and what the head of the queue wants, per running request
/// (one, if some wait and none runs). Infinite when empty; minus infinity while draining, so that
/// nothing comes and all goes. Usage is the listed requests' blocks, else the status' used tokens.
/// Higher is better.
float freeness(const metric_input& of);

} // namespace llumnix
