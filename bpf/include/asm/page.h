/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/* For bcc's ring buffers, of which there are none. */
#define PAGE_SIZE 4096
