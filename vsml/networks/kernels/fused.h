// What the kernels of fused.cu are handed, as their launcher in fused.cpp sees it.
//
// Arrays have a member axis in front, which is not written below. NP is N filled up with zeros to a multiple of 8,
// J the number of blocks that share a member's input units. Rows of 4 are the gates i, g, f, o.

#pragma once

// State [G, N, R, I], of the type that it is kept in.
struct Sizes {
  int members, tiles, rows, inputs;  // tiles G, rows R, inputs I
};

struct Visit {
  Sizes size;
  const float *hidden, *forward, *from_output;  // [NP, 4, NP], [NP, 4, M], and W2 m_bwd + bias [O, NP, 4]
  const void *h, *c;
  const float* message;  // [I, M]
};

struct Visited {
  void *h, *c;
  float *sum_over_inputs, *sum_over_outputs;  // of the new h: parts [J, O, NP], and [I, NP]
};

// Derivatives with respect to what a `Visited` has.
struct Cotangents {
  const void *h, *c;
  const float *sum_over_inputs, *sum_over_outputs;
};

struct Gradient {
  float *hidden, *from_input, *from_output;  // parts [J, NP, 4, NP]; of W1 m_fwd [I, NP, 4]; parts [J, O, NP, 4]
  void *h, *c;
};

constexpr int WARPS = 4;          // of a block
constexpr int WARP_INPUTS = 8;    // input units that a warp has; as many synapses at a time
constexpr int BLOCK_INPUTS = WARPS * WARP_INPUTS;
