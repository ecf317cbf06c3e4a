/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/* Native histograms: each power of two seconds is divided into eight buckets (schema 3) or sixteen (schema 4). exporter/model/lifetimes.py
 * has the same.
 */
#ifndef NATIVE_H
#define NATIVE_H

/* Buckets in schema 3, up to 2^(118/8) s, 7.6 hours, and in schema 4, up to 2^(238/16) s, 8.3 hours; the last one has what is longer. Powers of
 * two, so that a mask tells the verifier that a position is one. In both, the first bucket ends at 2^-17 s, 7.6 us.
 */
#define LIFETIMES 256
#define FINE_LIFETIMES 512
#define SHORTEST_EXPONENT (-17)

/* Returns 1 if a > b, else 0; both are less than 2^63. A comparison would be a branch that the verifier follows through all code after it. */
static __always_inline __u64 is_greater(__u64 a, __u64 b)
{
	__u64 difference = b - a;

	asm volatile("" : "+r"(difference)); /* else the compiler makes a branch of it */
	return difference >> 63;
}

/* Returns how many of the bounds of schema 3 in a power of two a mantissa exceeds: 1e9 * 2^(i/8), rounded down to 63 bits. */
static __always_inline __u64 eighths_below(__u64 mantissa)
{
	return is_greater(mantissa, 0x40ffd3d4aa4e5371ULL) + is_greater(mantissa, 0x46e1dc4b00b253ecULL) +
	       is_greater(mantissa, 0x4d4c3382a6a891c8ULL) + is_greater(mantissa, 0x544b2fba5f832838ULL) +
	       is_greater(mantissa, 0x5bec4509686ecf50ULL) + is_greater(mantissa, 0x643e1f3e81e6df61ULL) +
	       is_greater(mantissa, 0x6d50be1668caaaedULL) + is_greater(mantissa, 0x7735940000000000ULL);
}

/* The others of schema 4, between them. */
static __always_inline __u64 odd_sixteenths_below(__u64 mantissa)
{
	return is_greater(mantissa, 0x43e0891ac1b68b51ULL) + is_greater(mantissa, 0x4a053f1412cfd9c1ULL) +
	       is_greater(mantissa, 0x50b84cbaefd833abULL) + is_greater(mantissa, 0x58069421f08306e1ULL) +
	       is_greater(mantissa, 0x5ffe21dbf3025491ULL) + is_greater(mantissa, 0x68ae48005f908e0fULL) +
	       is_greater(mantissa, 0x7227bba165ab71eeULL) + is_greater(mantissa, 0x7c7cb4ecdad5fca4ULL);
}

/* Returns the first position for what lies before it, and the last one for what lies after it. `last` is constant, and one less than a power
 * of two.
 */
static __always_inline __u64 within(__u64 at, __u64 last)
{
	at &= -is_greater(at + 1, 0);
	at |= -is_greater(at, last);
	return at & last;
}

/* Returns the position of a time in ns among the buckets of schema 3, or 4 if `is_fine`, which the verifier has to know. Exact: a time that
 * equals a bound is in the bucket that ends there. The mantissa, the time without leading zeros, is compared with those of the bounds.
 */
static __always_inline __u64 lifetime_of(__u64 ns, int is_fine)
{
	__u64 mantissa = ns & ((1ULL << 62) - 1), shift = 0, bits, each, at;

#pragma unroll
	for (bits = 32; bits; bits /= 2) {
		each = bits * is_greater(1ULL << (63 - bits), mantissa);
		mantissa <<= each;
		shift += each;
	}
	at = eighths_below(mantissa);
	if (is_fine) { /* a second is 2^29 ns and more than 14 of the bounds */
		at += odd_sixteenths_below(mantissa) + 16 * (62 - shift) - (16 * 29 + 14) - 16 * SHORTEST_EXPONENT;
		return within(at, FINE_LIFETIMES - 1);
	}
	at += 8 * (62 - shift) - (8 * 29 + 7) - 8 * SHORTEST_EXPONENT; /* more than seven of the bounds */
	return within(at, LIFETIMES - 1);
}

#endif
