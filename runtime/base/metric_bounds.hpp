#pragma once

#include <array>

/// Upper bounds of the buckets that dashboards know (spec/observability.md 2).
namespace llumnix::metric_bounds {

inline constexpr std::array e2e_s{0.1, 0.25, 0.5, 1.,   2.,   5.,   10., 20.,
                                  30., 60.,  90., 120., 180., 240., 300.};
inline constexpr std::array ttft_ms{10.,   20.,   50.,    100.,   200.,   500.,  1000.,
                                    2000., 5000., 10000., 20000., 30000., 60000.};
inline constexpr std::array token_ms{1.,  2.,  5.,   10.,  15.,  20.,  30.,
                                     50., 75., 100., 150., 200., 300., 500.};
inline constexpr std::array stage_ms{0.1, 0.2, 0.5, 1., 2., 5., 10., 20., 50., 100.};
inline constexpr std::array tokens{1.,    4.,    16.,   64.,    128.,   256.,   512.,   1024.,
                                   2048., 4096., 8192., 16384., 32768., 65536., 131072.};
inline constexpr std::array ratio{0., 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.};
inline constexpr std::array batch{1., 2., 5., 10., 20., 50., 100., 200., 500., 1000.};

} // namespace llumnix::metric_bounds
