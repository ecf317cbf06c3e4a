/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/* Native histograms: each power of two seconds is divided into eight buckets. exporter/model/lifetimes.py has the same. */
#ifndef NATIVE_H
#define NATIVE_H

#define LIFETIMES 256 /* bounds to 2^(118/8) s, 7.6 hours; a power of two, so that a mask tells the verifier that a position is one */
#define LIFETIMES_LOWEST (-136) /* the first bucket ends at 2^(-136/8) s, 7.6 us */

/* Returns 1 if a > b, else 0; both are less than 2^63. A comparison would be a branch that the verifier follows through all code after it. */
static __always_inline __u64 is_greater(__u64 a, __u64 b)
{
	__u64 difference = b - a;

	asm volatile("" : "+r"(difference)); /* else the compiler makes a branch of it */
	return difference >> 63;
}

/* Returns the position of a time in ns among the buckets. Exact: a time that equals a bound is in the bucket that ends there. The mantissa
 * is compared with those of the eight bounds in a power of two: 1e9 * 2^(i/8), rounded down to 63 bits.
 */
static __always_inline __u64 lifetime_of(__u64 ns)
{
	__u64 mantissa = ns & ((1ULL << 62) - 1), shift = 0, bits, each, at;

#pragma unroll
	for (bits = 32; bits; bits /= 2) {
		each = bits * is_greater(1ULL << (63 - bits), mantissa);
		mantissa <<= each;
		shift += each;
	}
	at = 8 * (62 - shift) - 239 - LIFETIMES_LOWEST; /* 239 = 8 * 29 + 7: a second is 2^29 ns and more than seven of the bounds */
	at += is_greater(mantissa, 0x40ffd3d4aa4e5371ULL);
	at += is_greater(mantissa, 0x46e1dc4b00b253ecULL);
	at += is_greater(mantissa, 0x4d4c3382a6a891c8ULL);
	at += is_greater(mantissa, 0x544b2fba5f832838ULL);
	at += is_greater(mantissa, 0x5bec4509686ecf50ULL);
	at += is_greater(mantissa, 0x643e1f3e81e6df61ULL);
	at += is_greater(mantissa, 0x6d50be1668caaaedULL);
	at += is_greater(mantissa, 0x7735940000000000ULL);
	at &= -is_greater(at + 1, 0); /* 0 instead of less */
	at |= -is_greater(at, LIFETIMES - 1); /* the last instead of more */
	return at & (LIFETIMES - 1);
}

#endif
