// Products of float32 numbers by tensor cores, which multiply shorter ones.

#pragma once

namespace {

// A number as two that have 11 bits each: what tensor cores multiply.
struct Split {
  float high, low;
};

DEVICE Split split(float x) {
  const float high = float_of((bits_of(x) + 0x1000u) & 0xffffe000u);
  return {high, x - high};
}

// The left side of a product.
struct Left {
  float high[4], low[4];
};

DEVICE Left split(const float (&x)[4]) {
  Left left;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const Split parts = split(x[i]);
    left.high[i] = parts.high, left.low[i] = parts.low;
  }
  return left;
}

// float32 to 21 bits: the product of both low parts is less than what is rounded.
DEVICE void multiply(float (&d)[4], const Left& a, Split b0, Split b1) {
  multiply_short(d, a.low, b0.high, b1.high);
  multiply_short(d, a.high, b0.low, b1.low);
  multiply_short(d, a.high, b0.high, b1.high);
}

}  // namespace
