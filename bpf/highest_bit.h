/* SPDX-License-Identifier: GPL-2.0 */
#pragma once

/* Position of the highest bit; value is not 0 and below 2 ** 40. */
static __always_inline __u32 highest_bit(__u64 value)
{
	__u32 position = 0;

	if (value >> 32) {
		value >>= 32;
		position = 32;
	}
	if (value >> 16) {
		value >>= 16;
		position += 16;
	}
	if (value >> 8) {
		value >>= 8;
		position += 8;
	}
	if (value >> 4) {
		value >>= 4;
		position += 4;
	}
	if (value >> 2) {
		value >>= 2;
		position += 2;
	}
	return position + (value >> 1);
}
